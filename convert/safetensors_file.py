"""Tensors of a safetensors file.

The safetensors library reads and checks the header: what it refuses is refused here, in its words. The data is read
here, because bfloat16 values are wanted as bits and the library gives them to torch alone. The format is an 8-byte
little-endian header length, a JSON header and the data (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from convert.schemas import DAMAGED
from convert.source_tensor import ANY_DTYPES, CHUNK_VALUES, Bits, SourceTensor, check_type
from orin_runner.errors import UserError


@dataclass(frozen=True, slots=True)
class StoredTensor(SourceTensor):
    """A tensor whose values lie one after the other in the file, ``offset`` bytes after its start."""

    offset: int

    def read(self) -> Bits:
        dtype = ANY_DTYPES[self.dtype]
        count = math.prod(self.shape)
        values = np.fromfile(self.file, dtype=dtype, count=count, offset=self.offset)
        if len(values) != count:
            raise UserError(f"{self.file} ends within tensor {self.name}", "download the file again")
        return values.reshape(self.shape)

    def chunks(self) -> Iterator[Bits]:
        dtype = np.dtype(ANY_DTYPES[self.dtype])
        left = math.prod(self.shape)
        with self.file.open("rb") as file:
            file.seek(self.offset)
            while left:
                values = np.fromfile(file, dtype=dtype, count=min(left, CHUNK_VALUES))
                if not len(values):
                    raise UserError(f"{self.file} ends within tensor {self.name}", "download the file again")
                left -= len(values)
                yield values


def read_header(path: Path) -> Iterator[StoredTensor]:
    """The tensors of a shard, in the order of their data; no data.

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
        check_type(name, dtype)
        tensor = StoredTensor(name, dtype, shape, path, offset)
        offset += tensor.n_bytes
        yield tensor
