"""Hugging Face checkpoints on disk: config, safetensors shards, raw tensor bits.

The safetensors library reads and checks the headers: what it refuses is refused here, in its words. The data is read
here, because bfloat16 values are wanted as bits and the library gives them to torch alone. The format is an 8-byte
little-endian header length, a JSON header and the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from convert.schemas import Config, ShardIndex, check
from orin_runner.errors import UserError
from orin_runner.files import read_json

Bits = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
"""Raw values: uint16 for BF16 and F16, uint32 for F32."""

DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
DAMAGED = "download the checkpoint again"
WEIGHTS = "model.safetensors"
SHARD_INDEX = "model.safetensors.index.json"
CHUNK_VALUES = 4 << 20
"""Values looked at at a time: bounds the temporaries of a pass over a tensor to some 100 MB."""


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """Where a tensor's bytes lie. ``dtype`` is safetensors' name; ``offset`` counts from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(DTYPES[self.dtype]).itemsize

    def read(self) -> Bits:
        """All values as raw bits, in the tensor's shape."""
        dtype = DTYPES[self.dtype]
        count = math.prod(self.shape)
        values = np.fromfile(self.file, dtype=dtype, count=count, offset=self.offset)
        if len(values) != count:
            raise UserError(f"{self.file} ends within tensor {self.name}", "download the file again")
        return values.reshape(self.shape)

    def chunks(self) -> Iterator[Bits]:
        """The values as raw bits, flat, at most ``CHUNK_VALUES`` at a time."""
        dtype = np.dtype(DTYPES[self.dtype])
        left = math.prod(self.shape)
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while left:
                values = np.fromfile(file, dtype=dtype, count=min(left, CHUNK_VALUES))
                if not len(values):
                    raise UserError(f"{self.file} ends within tensor {self.name}", "download the file again")
                left -= len(values)
                yield values

    def sha256(self) -> str:
        """Digest of the tensor's bytes as they lie in the file."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk.data)
        return digest.hexdigest()


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
        _refuse_special_files(directory)
        config = read_json(directory / "config.json", DAMAGED)
        check(Config, config, directory / "config.json")
        weight_map = _weight_map(directory)
        tensors: dict[str, SourceTensor] = {}
        for shard in sorted({WEIGHTS} if weight_map is None else set(weight_map.values())):
            path = directory / shard
            if not path.exists():
                raise UserError(f"shard {shard} of {directory} is missing", DAMAGED)
            for tensor in read_header(path):
                if tensor.name in tensors:
                    raise UserError(f"tensor {tensor.name} stands in two shards of {directory}", DAMAGED)
                tensors[tensor.name] = tensor
        for name, shard in (weight_map or {}).items():
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


def _weight_map(directory: Path) -> dict[str, str] | None:
    """Shard by tensor name; None for one file, which transformers, too, takes first."""
    if (directory / WEIGHTS).exists():
        return None
    index = directory / SHARD_INDEX
    if index.exists():
        return check(ShardIndex, read_json(index, DAMAGED), index).weight_map
    if any(directory.glob("*.bin")):
        raise UserError(
            f"{directory} holds pickled weights (*.bin) only",
            "save it as safetensors first: AutoModel.from_pretrained(DIR).save_pretrained(NEW)",
        )
    raise UserError(f"{directory} holds no {WEIGHTS}", DAMAGED)


def read_header(path: Path) -> Iterator[SourceTensor]:
    """The tensors of a shard, in the order of their data.

    Raises:
        UserError: the safetensors library refuses the file, or a tensor is of a type that is not converted.
    """
    try:
        with safe_open(path, framework="numpy") as shard:
            # A file that the library accepts is covered by its tensors without a gap, so sizes make offsets.
            names = shard.offset_keys()
            views = [shard.get_slice(name) for name in names]
            entries = [(view.get_dtype(), tuple(view.get_shape())) for view in views]
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a complete safetensors file: {error}", DAMAGED) from error
    with path.open("rb") as file:
        offset = 8 + int.from_bytes(file.read(8), "little")
    for name, (dtype, shape) in zip(names, entries, strict=True):
        if dtype not in DTYPES:
            raise UserError(
                f"tensor {name} has type {dtype}; only BF16, F16 and F32 checkpoints can be converted exactly"
            )
        tensor = SourceTensor(name, dtype, shape, path, offset)
        offset += tensor.n_bytes
        yield tensor
