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

from convert.conversion import Conversion, Report
from convert.exactness import compare, non_finite
from convert.layouts.layout import stacked
from convert.manifest import TensorRecord
from convert.source_tensor import DTYPES, Bits
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
    by_name = layout.by_name()
    if set(entries) != {*by_name, *(added.name for added in layout.added)}:
        raise RunError(f"{path} does not hold the tensors it should")
    omitted = {entry.source: entry.rows for entry in layout.omitted}
    source_sha256: dict[str, str] = {}
    records: dict[tuple[str, str], TensorRecord] = {}
    with ThreadPoolExecutor(max_workers=2) as pool:  # hashing and counting release the interpreter lock
        for name, parts in layout.by_source().items():
            source = conversion.checkpoint.tensors[name]
            original = source.read()
            source_digest = pool.submit(_sha256, original)
            covered = np.zeros(source.shape[0], dtype=np.int64)
            covered[: omitted.get(name, 0)] = 1
            for tensor in parts:
                whole = _read_back(path, entries[tensor.name], stacked(by_name[tensor.name]), types[name])
                above = by_name[tensor.name][: by_name[tensor.name].index(tensor)]
                begin = sum(part.shape[0] for part in above)
                stored = whole[begin : begin + tensor.shape[0]]
                digest = pool.submit(_sha256, whole)
                not_finite = pool.submit(non_finite, stored, types[name])
                rows = np.arange(source.shape[0]) if tensor.rows is None else tensor.rows
                covered[rows] += not tensor.repeated
                # Undo: the file's row r is row rows[r] of the checkpoint tensor. A layout takes contiguous row ranges.
                first = int(rows.min())
                undone = np.empty_like(stored)
                undone[rows - first] = stored
                found = compare(undone, types[name], original[first : first + len(rows)], source.dtype, tensor.exponent)
                records[tensor.name, name] = TensorRecord(
                    name=tensor.name,
                    type=types[name],
                    shape=whole.shape,
                    sha256=digest.result(),
                    source=name,
                    source_dtype=source.dtype,
                    transform=tensor.transform,
                    exponent=tensor.exponent,
                    changed=found.changed,
                    largest_error=found.largest_error,
                    non_finite=not_finite.result(),
                )
                report("verify", tensor.name, stored.nbytes)
            source_sha256[name] = source_digest.result()
            if not np.all(covered == 1):
                raise RunError(f"rows of {name} are lost or stand in {path} twice")
    for name in sorted(conversion.checkpoint.tensors.keys() - source_sha256.keys()):  # left out on purpose
        source_sha256[name] = conversion.checkpoint.tensors[name].sha256()
    for added in layout.added:
        values = entries[added.name].data
        if not np.array_equal(values, added.values):
            raise RunError(f"{path}: added tensor {added.name} is not what it should be")
    changed = sum(record.changed for record in records.values())
    if changed != conversion.altered:
        raise RunError(f"{changed} values of {path} differ from the checkpoint's, not {conversion.altered}")
    return Verified(source_sha256, [records[tensor.name, tensor.source] for tensor in layout.tensors])


def _read_back(path: Path, entry: ReaderTensor, expected: tuple[int, ...], type_name: str) -> Bits:
    """The raw values of a tensor of the written file, in the layout's shape."""
    shape = tuple(reversed([int(n) for n in entry.shape]))
    if entry.tensor_type != GGMLQuantizationType[type_name] or shape != expected:
        raise RunError(f"{path}: tensor {entry.name} has type {entry.tensor_type.name}, shape {shape}")
    values: Bits = np.fromfile(path, DTYPES[type_name], math.prod(shape), offset=int(entry.data_offset))
    return values.reshape(shape)


def _sha256(values: Bits) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
