"""A tensor of a checkpoint as raw bits, whatever file it lies in. Knows no file format and no folder."""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from orin_runner.errors import UserError

Bits = npt.NDArray[np.unsignedinteger[Any]]
"""Raw values: uint16 for BF16 and F16, uint32 for F32."""

DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
ANY_DTYPES: dict[str, type[np.unsignedinteger[Any]]] = {
    **DTYPES,
    **dict.fromkeys(("F64", "I64", "U64"), np.uint64),
    **dict.fromkeys(("I32", "U32"), np.uint32),
    **dict.fromkeys(("I16", "U16"), np.uint16),
    **dict.fromkeys(("I8", "U8", "BOOL"), np.uint8),
}
"""With those that a tensor that is left out may have."""
SKIPPED = ("rotary_emb.inv_freq", "decoder.version")
"""Ends of the names of tensors that are left out, whatever they hold: transformers ignores them as well. The one is
worked out of config.json, here and there; the other is the number of a form of fairseq's OPT."""
CHUNK_VALUES = 4 << 20
"""Values looked at at a time: bounds the temporaries of a pass over a tensor to some 100 MB."""


def check_type(name: str, dtype: str) -> None:
    """Refuse a tensor whose values no GGUF holds as they are, but for one that is left out.

    Raises:
        UserError: ``dtype`` is none of ``DTYPES``, or of ``ANY_DTYPES`` where it is left out.
    """
    if dtype not in (ANY_DTYPES if name.endswith(SKIPPED) else DTYPES):
        reason = f"tensor {name} has type {dtype}; only BF16, F16 and F32 can be converted exactly"
        raise UserError(reason, "name a checkpoint of one of these types, as it was before it was quantized or cast")


@dataclass(frozen=True, slots=True)
class SourceTensor(ABC):
    """A tensor in a file. ``dtype`` is safetensors' name, a key of ``ANY_DTYPES``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path

    @property
    def n_bytes(self) -> int:
        return math.prod(self.shape) * np.dtype(ANY_DTYPES[self.dtype]).itemsize

    @abstractmethod
    def read(self) -> Bits:
        """All values as raw bits, in the tensor's shape, in memory of their own."""

    @abstractmethod
    def chunks(self) -> Iterator[Bits]:
        """The values as raw bits, flat and in row-major order, at most ``CHUNK_VALUES`` at a time."""

    def sha256(self) -> str:
        """Digest of the tensor's values in row-major order, little-endian: of safetensors' bytes."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk.data)
        return digest.hexdigest()
