"""Hugging Face checkpoints on disk: the config, and the tensors of all shards, which readers of two formats give.

Knows neither format: ``safetensors_file.py`` and ``torch_bin.py`` read one file each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.safetensors_file import read_header
from convert.schemas import DAMAGED, Config, ShardIndex, check
from convert.source_tensor import SourceTensor
from orin_runner.errors import UserError
from orin_runner.files import need_utf8, read_json

WEIGHTS = "model.safetensors"
BIN_WEIGHTS = "pytorch_model.bin"
"""A checkpoint's one file, or with ``INDEX`` the index of its shards."""
INDEX = ".index.json"

Reader = Callable[[Path], Iterator[SourceTensor]]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint folder: its config and the tensors of all shards by name."""

    directory: Path
    config: dict[str, Any]
    tensors: dict[str, SourceTensor]
    name: str

    @classmethod
    def open(cls, directory: Path) -> Checkpoint:
        """Read config and shard headers; no tensor data.

        Raises:
            UserError: the folder, config, index or a shard is missing or broken.
        """
        if not directory.is_dir():
            raise UserError(f"{directory} is not a folder", "name a checkpoint folder or a hub id such as org/model")
        need_utf8(directory)
        _refuse_special_files(directory)
        config = read_json(directory / "config.json", DAMAGED)
        check(Config, config, directory / "config.json")
        shards, weight_map, read = _weights(directory)
        tensors: dict[str, SourceTensor] = {}
        for shard in shards:
            path = directory / shard
            if not path.exists():
                raise UserError(f"shard {shard} of {directory} is missing", DAMAGED)
            for tensor in read(path):
                if tensor.name in tensors:
                    raise UserError(f"tensor {tensor.name} stands in two shards of {directory}", DAMAGED)
                tensors[tensor.name] = tensor
        for name, shard in weight_map.items():
            if name not in tensors or tensors[name].file.name != shard:
                raise UserError(f"tensor {name} is not in {shard}, where the index says", DAMAGED)
        return cls(directory, config, tensors, directory.resolve().name)

    def digest(self, sha256: dict[str, str]) -> str:
        """One digest for all weights: over name, dtype, shape and sha256 of every tensor, sorted by name.

        The same weights give the same digest however they are sharded.

        Args:
            sha256: digest of every tensor's bytes.
        """
        total = hashlib.sha256()
        for name in sorted(self.tensors):
            tensor = self.tensors[name]
            total.update(f"{name} {tensor.dtype} {list(tensor.shape)} {sha256[name]}\n".encode())
        return total.hexdigest()


def _refuse_special_files(directory: Path) -> None:
    """Nothing that is read here or by transformers may be a device or a FIFO: reading one waits or has no end."""
    for path in (*directory.iterdir(), *directory.glob("additional_chat_templates/*")):
        # A link whose target is missing is nobody's file; where it is needed, it is reported as missing.
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise UserError(f"{path} is not a regular file", DAMAGED)


def has_safetensors(directory: Path) -> bool:
    """Whether the weights in ``directory`` are safetensors, which are taken before any others."""
    return _has(directory, WEIGHTS)


def bin_reader() -> Reader:
    """What reads a ``.bin`` file.

    Raises:
        UserError: torch is not installed.
    """
    try:
        from convert.torch_bin import read_bin  # noqa: PLC0415 - torch is needed by old checkpoints only
    except ModuleNotFoundError as error:
        reason = f"the weights are pickled ({BIN_WEIGHTS}), which takes torch to read ({error})"
        raise UserError(reason, "pip install 'orin-run[reference]', or name a safetensors checkpoint") from error
    return read_bin


def _has(directory: Path, weights: str) -> bool:
    return (directory / weights).exists() or (directory / (weights + INDEX)).exists()


def _weights(directory: Path) -> tuple[list[str], dict[str, str], Reader]:
    """The shards, the shard that the index names by tensor, and the reader; in the order in which transformers looks.

    One file comes before shards and has no index.
    """
    weights = WEIGHTS if has_safetensors(directory) else BIN_WEIGHTS
    if not _has(directory, weights):
        raise UserError(f"{directory} holds no {WEIGHTS} and no {BIN_WEIGHTS}", DAMAGED)
    read: Reader = read_header if weights == WEIGHTS else bin_reader()
    if (directory / weights).exists():
        return [weights], {}, read
    index = directory / (weights + INDEX)
    weight_map = check(ShardIndex, read_json(index, DAMAGED), index).weight_map
    return sorted(set(weight_map.values())), weight_map, read
