"""The bytes before a GGUF's tensor data: keys and tensor table. It knows no key's meaning but the alignment's.

A damaged file is refused by llama.cpp's own rules (``gguf_init_from_reader`` of ggml, read in 2026) before llama.cpp
sees it: some of them end the process there. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orin_runner.errors import UserError
from orin_runner.files import open_regular
from orin_runner.model import gguf_keys
from orin_runner.schema import shown

MAGIC = b"GGUF"
VERSIONS = (2, 3)
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""``struct`` codes by the number of a GGUF type; strings and arrays have none."""
UINT32, STRING, ARRAY = 4, 8, 9
FLOATS = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 30: ("BF16", 1, 2)}
"""Name, values and bytes of a block of the ggml types that are not quantized."""
MAX_HEADER = 1 << 28
"""Bytes. The largest vocabularies make headers of some 60 MiB."""
MAX_VALUES = 1 << 22
"""In all arrays together; the largest vocabularies have 1.3 million with their merges."""
MAX_ROWS = 1 << 16
"""Of keys, and of tensors; models of a thousand layers and experts have a tenth of that."""
MAX_DIMENSIONS, MAX_NAME, MAX_BYTES = 4, 64, 1 << 63
ALIGNMENT = 32
REDO = "convert it again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A row of the tensor table.

    Attributes:
        shape: as in the file, the dimension that is contiguous first.
        type: name of the ggml type.
        offset: bytes from the beginning of the file to its data.
        n_bytes: of its data.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    offset: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """Keys and tensor table of a file whose data is all there.

    Attributes:
        metadata: every key's value; arrays as lists.
        tensors: in the file's order, in which their data follows.
        key_sha256: of each key's type and value as they lie in the file. GGUF has one form for each value.
        table_sha256: of the tensor table as it lies in the file: names, shapes, types and places of the data.
    """

    metadata: dict[str, Any]
    tensors: tuple[TensorInfo, ...]
    key_sha256: dict[str, str]
    table_sha256: str


def read_header(path: Path) -> Header:
    """Read what stands before the data.

    Raises:
        UserError: missing, no regular file, not a GGUF, truncated, damaged, or big-endian.
        OSError: it cannot be read.
    """
    try:
        file = open_regular(path)
    except (FileNotFoundError, ValueError) as error:  # no system takes a name with a null byte: ValueError
        raise UserError(f"{path} does not exist", "make convert MODEL=... writes a GGUF") from error
    with file:
        if file.read(len(MAGIC)) != MAGIC:
            raise UserError(f"{path} is not a GGUF file", "make convert MODEL=... writes one")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _Reader(data).header()
            except _DamageError as error:
                raise UserError(f"{path} {error}", error.hint) from error


class _DamageError(Exception):
    """What is wrong with the file, to follow its name."""

    def __init__(self, message: str, hint: str = REDO) -> None:
        super().__init__(message)
        self.hint = hint


class _Reader:
    """A position in the header of a GGUF; nothing is read or reserved that its bytes do not back."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at, self._end = data, len(MAGIC), min(len(data), MAX_HEADER)
        self._values_left = MAX_VALUES

    def header(self) -> Header:
        version = self._scalar("I")
        if version & 0xFFFF == 0:
            raise _DamageError("is big-endian", "convert the checkpoint on a machine like this one")
        if version not in VERSIONS:
            raise _DamageError(f"is of GGUF version {version}, and this tool reads 2 and 3")
        n_tensors, n_keys = self._count(), self._count()
        metadata: dict[str, Any] = {}
        key_sha256: dict[str, str] = {}
        for _ in range(n_keys):
            name = self._string()
            start = self._at
            if name in metadata:
                raise _damaged(f"the key {shown(name)} stands in it twice")
            kind = self._scalar("I")
            metadata[name] = self._value(kind)
            key_sha256[name] = self._sha256(start)
            if name == gguf_keys.ALIGNMENT and (kind != UINT32 or metadata[name].bit_count() != 1):
                raise _damaged(f"{name} is no power of two in 32 bits")
        alignment = metadata.get(gguf_keys.ALIGNMENT, ALIGNMENT)
        start = self._at
        rows = [self._tensor() for _ in range(n_tensors)]
        table_sha256 = self._sha256(start)
        return Header(metadata, self._placed(rows, alignment), key_sha256, table_sha256)

    def _placed(self, rows: list[tuple[TensorInfo, int]], alignment: int) -> tuple[TensorInfo, ...]:
        """The table with offsets in the file. The data follows in the table's order, without gap or overlap."""
        start = expected = _padded(self._at, alignment)
        placed: dict[str, TensorInfo] = {}
        for row, offset in rows:
            if row.name in placed:
                raise _damaged(f"the tensor {row.name!r} stands in it twice")
            if start + offset != expected:
                raise _damaged(f"the tensor {row.name!r} does not begin where the one before it ends")
            if expected + row.n_bytes > len(self._data):
                raise _DamageError(
                    f"is truncated: the tensor {row.name!r} ends at byte {expected + row.n_bytes}, "
                    f"the file has {len(self._data)}"
                )
            placed[row.name] = TensorInfo(row.name, row.shape, row.type, expected, row.n_bytes)
            expected = _padded(expected + row.n_bytes, alignment)
        return tuple(placed.values())

    def _tensor(self) -> tuple[TensorInfo, int]:
        """A row of the table, still without its place, and its offset from the beginning of the data."""
        name = self._string()
        if len(name.encode()) >= MAX_NAME:
            raise _damaged(f"the tensor name {shown(name)} is too long")
        n_dimensions = self._scalar("I")
        if not 1 <= n_dimensions <= MAX_DIMENSIONS:
            raise _damaged(f"the tensor {name!r} has {n_dimensions} dimensions")
        shape = tuple(self._scalar("Q") for _ in range(n_dimensions))
        kind, offset = self._scalar("I"), self._scalar("Q")
        found = FLOATS.get(kind) or _quantized(kind)
        if found is None:
            hint = "it was made for another llama.cpp than this tool's"
            raise _DamageError(f"has a tensor {name!r} of the unknown type {kind}", hint)
        type_name, block, size = found
        n_bytes = math.prod(shape) // block * size
        if shape[0] % block or not 0 < n_bytes < MAX_BYTES:
            raise _damaged(f"the tensor {name!r} has the shape {list(shape)}")
        return TensorInfo(name, shape, type_name, 0, n_bytes), offset

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind in SCALARS:
            return self._scalar(SCALARS[kind])
        if kind != ARRAY:
            raise _damaged(f"it has a value of the type {kind}, which does not exist")
        kind, n = self._scalar("I"), self._scalar("Q")
        if n > self._values_left:
            raise _damaged(f"an array in it has {n} values")
        self._values_left -= n
        if kind == STRING:
            return [self._string() for _ in range(n)]
        if kind not in SCALARS:
            raise _damaged(f"an array in it has values of the type {kind}")
        return list(self._scalars(f"<{n}{SCALARS[kind]}"))

    def _count(self) -> int:
        """A number of keys or tensors."""
        count: int = self._scalar("Q")
        if count > MAX_ROWS:
            raise _damaged(f"impossible counts: {count} keys or tensors")
        return count

    def _string(self) -> str:
        n = self._scalar("Q")
        at = self._advance(n)
        try:
            return self._data[at : at + n].decode()
        except UnicodeDecodeError as error:
            raise _damaged("a text in it is not UTF-8") from error

    def _scalar(self, code: str) -> Any:
        return self._scalars(f"<{code}")[0]

    def _scalars(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack_from(layout, self._data, self._advance(struct.calcsize(layout)))

    def _sha256(self, start: int) -> str:
        """Of the bytes from ``start`` to here."""
        return hashlib.sha256(self._data[start : self._at]).hexdigest()

    def _advance(self, n: int) -> int:
        """Step over ``n`` bytes and return where they begin."""
        at, self._at = self._at, self._at + n
        if self._at > self._end:
            raise _damaged(f"its header does not end within {self._end} bytes")
        return at


def _damaged(reason: str) -> _DamageError:
    return _DamageError(f"is truncated or damaged ({reason})")


def _padded(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment


def _quantized(kind: int) -> tuple[str, int, int] | None:
    """Of a ggml type what ``FLOATS`` says of its own; None where there is no such type."""
    # gguf takes a third of a second to load, and only files of other types need it.
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType  # noqa: PLC0415

    if kind not in set(GGMLQuantizationType):
        return None
    found = GGMLQuantizationType(kind)
    return (found.name, *GGML_QUANT_SIZES[found])
