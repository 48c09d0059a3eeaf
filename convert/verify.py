"""Reopens a written GGUF, undoes every transform and compares every value with the checkpoint, bit for bit."""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader
from gguf.gguf_reader import ReaderTensor

from convert.checkpoint import DTYPES, Bits
from convert.conversion import Conversion, Report
from convert.exactness import compare
from convert.layouts.layout import OutputTensor
from convert.manifest import TensorRecord
from orin_runner.errors import RunError


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found.

    Attributes:
        source_sha256: digest of every checkpoint tensor's bytes.
        tensors: a record of every GGUF tensor that comes from the checkpoint, in file order.
    """

    source_sha256: dict[str, str]
    tensors: list[TensorRecord]


def verify(path: Path, conversion: Conversion, report: Report) -> Verified:
    """Compare the GGUF at ``path`` with the checkpoint.

    Raises:
        UserError: a shard ends within a tensor.
        RunError: the file does not hold the tensors and values it should.
    """
    layout, types = conversion.layout, conversion.types
    entries = {tensor.name: tensor for tensor in GGUFReader(path).tensors}
    if set(entries) != {t.name for t in layout.tensors} | {added.name for added in layout.added}:
        raise RunError(f"{path} does not hold the tensors it should")
    source_sha256: dict[str, str] = {}
    records: dict[str, TensorRecord] = {}
    with ThreadPoolExecutor(max_workers=2) as pool:  # hashing releases the interpreter lock
        for name, parts in layout.by_source().items():
            source = conversion.checkpoint.tensors[name]
            original = source.read()
            source_digest = pool.submit(_sha256, original)
            covered = np.zeros(source.shape[0], dtype=np.int64)
            for tensor in parts:
                stored = _read_back(path, entries[tensor.name], tensor, types[name])
                digest = pool.submit(_sha256, stored)
                rows = np.arange(source.shape[0]) if tensor.rows is None else tensor.rows
                covered[rows] += 1
                # Undo: the file's row r is row rows[r] of the checkpoint tensor. A layout takes contiguous row ranges.
                first = int(rows.min())
                undone = np.empty_like(stored)
                undone[rows - first] = stored
                found = compare(undone, types[name], original[first : first + len(rows)], source.dtype)
                records[tensor.name] = TensorRecord(
                    name=tensor.name,
                    type=types[name],
                    shape=tensor.shape,
                    sha256=digest.result(),
                    source=name,
                    source_dtype=source.dtype,
                    transform=tensor.transform,
                    changed=found.changed,
                    largest_error=found.largest_error,
                )
                report("verify", tensor.name, stored.nbytes)
            source_sha256[name] = source_digest.result()
            if not np.all(covered == 1):
                raise RunError(f"rows of {name} are lost or stand in {path} twice")
    for added in layout.added:
        values = entries[added.name].data
        if not np.array_equal(values, np.full(added.shape, added.value, dtype=np.float32)):
            raise RunError(f"{path}: added tensor {added.name} is not what it should be")
    changed = sum(record.changed for record in records.values())
    if changed != conversion.altered:
        raise RunError(f"{changed} values of {path} differ from the checkpoint's, not {conversion.altered}")
    return Verified(source_sha256, [records[tensor.name] for tensor in layout.tensors])


def _read_back(path: Path, entry: ReaderTensor, tensor: OutputTensor, type_name: str) -> Bits:
    """The raw values of a tensor of the written file, in the layout's shape."""
    shape = tuple(reversed([int(n) for n in entry.shape]))
    if entry.tensor_type != GGMLQuantizationType[type_name] or shape != tensor.shape:
        raise RunError(f"{path}: tensor {tensor.name} has type {entry.tensor_type.name}, shape {shape}")
    values: Bits = np.fromfile(path, DTYPES[type_name], math.prod(shape), offset=int(entry.data_offset))
    return values.reshape(shape)


def _sha256(values: Bits) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
