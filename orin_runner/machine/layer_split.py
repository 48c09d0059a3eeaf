"""How the layers of a model are divided over several GPUs.

While one GPU computes its layers for a batch, the others compute theirs for other batches, so the run is as fast as
its slowest stage. The division depends on the file and the devices alone: the weights can be loaded before it is known
what will be asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.seats import BESIDE_WEIGHTS
from orin_runner.model.gguf_file import HEAD, GGUFFile

HEAD_SHARE = 0.5
"""Share of the computed tokens whose row goes through the output head: nearly none where letters are scored, nearly all
where texts are. Half of it counts."""
LAYER = re.compile(r"blk\.(\d+)\.")


@dataclass(frozen=True, slots=True)
class ModelBytes:
    """Where a model's bytes are, as llama.cpp puts them on GPUs.

    Attributes:
        layers: bytes of each layer.
        head: bytes behind the last layer: the output head, of which a tied one is a copy of the embedding, and norms.
    """

    layers: tuple[int, ...]
    head: int

    @classmethod
    def of(cls, file: GGUFFile) -> ModelBytes:
        layers = [0] * file.sizes.block_count
        for tensor in file.header.tensors:
            if (found := LAYER.match(tensor.name)) and int(found[1]) < len(layers):
                layers[int(found[1])] += tensor.n_bytes
        embedding = 0 if file.tied else file.embedding_bytes
        return cls(tuple(layers), file.data_bytes - embedding - sum(layers))

    def on(self, split: Sequence[int]) -> list[int]:
        """Bytes on each device where the layers are so divided."""
        bounds = [sum(split[:k]) for k in range(len(split) + 1)]
        found = [sum(self.layers[bounds[k] : bounds[k + 1]]) for k in range(len(split))]
        found[-1] += self.head
        return found


def split_of(file: GGUFFile, device: DeviceMemory) -> tuple[int, ...]:
    """How many layers of ``file`` go on each of the GPUs of ``device``, the first layers on the first.

    The stages take about equal time, and each GPU has room for more than its weights; where that cannot be, what is too
    much is on the GPU that has most room left.

    Returns:
        As many numbers as GPUs; their sum is the file's layers. The output head is on the last. Empty where there is
        one device.
    """
    if not device.gpus:
        return ()
    weights = ModelBytes.of(file)
    most = max(weights.layers)
    head_bytes = file.embedding_bytes if file.tied else _head_bytes(file)
    # A layer's time goes with its bytes, as all its matrices are multiplied with every token.
    head = HEAD_SHARE * head_bytes / most
    room = [(gpu.available - BESIDE_WEIGHTS) // most for gpu in device.gpus]
    room[-1] = (device.gpus[-1].available - BESIDE_WEIGHTS - weights.head) // most
    return balanced(len(weights.layers), head, room)


def balanced(n_layers: int, head: float, room: Sequence[int]) -> tuple[int, ...]:
    """Layers of each device so that the slowest takes as short as can be.

    Args:
        n_layers: layers to divide.
        head: time of the output head, which the last device has, in layers.
        room: layers that fit on each device.
    """
    split = [0] * len(room)
    last = len(room) - 1
    for _ in range(n_layers):
        fitting = [k for k in range(len(room)) if split[k] < room[k]]
        # The device that is done first takes one more: no other choice ends earlier.
        best = min(fitting, key=lambda k: (split[k] + (head if k == last else 0), k), default=None)
        if best is None:
            best = max(range(len(room)), key=lambda k: room[k] - split[k])
        split[best] += 1
    return tuple(split)


def _head_bytes(file: GGUFFile) -> int:
    return next(tensor.n_bytes for tensor in file.header.tensors if tensor.name == HEAD)
