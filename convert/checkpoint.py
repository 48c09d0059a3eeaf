"""Hugging Face checkpoints on disk: config, safetensors shards, raw tensor bits.

The safetensors format is an 8-byte little-endian header length, a JSON header and the data
(https://github.com/huggingface/safetensors#format). It is read here directly because bfloat16 values are wanted as
bits, shard by shard, with every offset checked against the file's real length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orin_runner.errors import UserError
from orin_runner.files import read_json

Bits = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]
"""Raw values: uint16 for BF16 and F16, uint32 for F32."""

DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
DAMAGED = "download the checkpoint again"
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
        return int(np.prod(self.shape)) * np.dtype(DTYPES[self.dtype]).itemsize

    def read(self) -> Bits:
        """All values as raw bits, in the tensor's shape."""
        dtype = DTYPES[self.dtype]
        count = int(np.prod(self.shape))
        values = np.fromfile(self.file, dtype=dtype, count=count, offset=self.offset)
        if len(values) != count:
            raise UserError(f"{self.file} ends within tensor {self.name}", "download the file again")
        return values.reshape(self.shape)

    def chunks(self) -> Iterator[Bits]:
        """The values as raw bits, flat, at most ``CHUNK_VALUES`` at a time."""
        dtype = np.dtype(DTYPES[self.dtype])
        left = int(np.prod(self.shape))
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
        config = read_json(directory / "config.json", DAMAGED)
        index_file = directory / "model.safetensors.index.json"
        if index_file.exists():
            weight_map = read_json(index_file, DAMAGED).get("weight_map")
            if not isinstance(weight_map, dict) or not weight_map:
                raise UserError(f"{index_file} has no weight_map", "download the file again")
            shards = sorted(set(weight_map.values()))
        elif (directory / "model.safetensors").exists():
            weight_map, shards = None, ["model.safetensors"]
        elif any(directory.glob("*.bin")):
            raise UserError(
                f"{directory} holds pickled weights (*.bin) only",
                "save it as safetensors first: AutoModel.from_pretrained(DIR).save_pretrained(NEW)",
            )
        else:
            raise UserError(f"{directory} holds no model.safetensors", "download the checkpoint again")
        tensors: dict[str, SourceTensor] = {}
        for shard in shards:
            path = directory / shard
            if not path.exists():
                raise UserError(f"shard {shard} of {directory} is missing", "download the checkpoint again")
            for tensor in _read_header(path):
                if tensor.name in tensors:
                    raise UserError(f"tensor {tensor.name} stands in two shards of {directory}")
                tensors[tensor.name] = tensor
        if weight_map is not None:
            for name, shard in weight_map.items():
                if name not in tensors or tensors[name].file.name != shard:
                    raise UserError(f"tensor {name} is not in {shard}, where the index says", "download it again")
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


def _read_header(path: Path) -> Iterator[SourceTensor]:
    size = path.stat().st_size
    broken = UserError(f"{path} is not a complete safetensors file", "download the file again")
    with path.open("rb") as file:
        start = file.read(8)
        header_bytes = int.from_bytes(start, "little")
        if len(start) < 8 or header_bytes > size - 8:
            raise broken
        try:
            header = json.loads(file.read(header_bytes))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise broken from error
    if not isinstance(header, dict):
        raise broken
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            dtype, shape = str(entry["dtype"]), tuple(int(n) for n in entry["shape"])
            begin, end = (int(n) for n in entry["data_offsets"])
        except (KeyError, TypeError, ValueError) as error:
            raise broken from error
        if not 0 <= begin <= end:
            raise broken
        if dtype not in DTYPES:
            raise UserError(
                f"tensor {name} has type {dtype}; only BF16, F16 and F32 checkpoints can be converted exactly"
            )
        tensor = SourceTensor(name, dtype, shape, path, 8 + header_bytes + begin)
        if end - begin != tensor.n_bytes or tensor.offset + tensor.n_bytes > size:
            raise UserError(
                f"{path} is truncated: tensor {name} should end at byte {tensor.offset + tensor.n_bytes}, "
                f"the file has {size}",
                "download the file again",
            )
        yield tensor
