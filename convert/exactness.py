"""Which 16-bit types hold a tensor's values exactly.

A value survives a type if converting it there and back gives the same bits. Of bfloat16's 65,280 finite patterns 8,704
survive float16: those with magnitudes between 2^-17 (exact subnormals included) and 65,504, and the zeros.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from convert.source_tensor import CHUNK_VALUES, DTYPES, Bits

Float32 = npt.NDArray[np.float32]

EXPONENT = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
"""The bits of the exponent, all of which are set in values that are not finite and in no others."""


@dataclass(frozen=True, slots=True)
class Loss:
    """How many values differ, and the largest absolute difference among those where it is a number."""

    changed: int
    largest_error: float


def to_float32(bits: Bits, dtype: str) -> Float32:
    """The values of raw ``bits`` of safetensors type ``dtype``; exact for all three types."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return bits.view(np.float32)


def from_float32(values: Float32, dtype: str) -> Bits:
    """Raw bits of ``values`` in ``dtype``, rounded to nearest even where they do not fit."""
    if dtype == "F32":
        return np.ascontiguousarray(values).view(np.uint32)
    if dtype == "F16":
        with np.errstate(over="ignore", under="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = np.ascontiguousarray(values).view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)
    nan = np.isnan(values)
    rounded[nan] = ((bits[nan] >> 16) | 0x40).astype(np.uint16)
    return rounded


def loss(chunks: Iterable[Bits], source: str, target: str, *, exponent: int = 0, stop_at_first: bool = False) -> Loss:
    """What storing values of type ``source``, times two to the power of ``exponent``, as ``target`` would alter.

    Args:
        chunks: raw values, piece by piece.
        source, target: safetensors type names.
        exponent: of the factor.
        stop_at_first: return at the first chunk with a changed value; its count is then a lower bound.
    """
    total = Loss(0, 0.0)
    if target in (source, "F32") and not exponent:
        return total
    for part in chunks:
        found = compare(recode(part, source, target, exponent), target, part, source, exponent)
        total = Loss(total.changed + found.changed, max(total.largest_error, found.largest_error))
        if total.changed and stop_at_first:
            break
    return total


def non_finite(bits: Bits, dtype: str) -> int:
    """How many of the values of raw ``bits`` of safetensors type ``dtype`` are infinite or not a number."""
    mask, flat, found = bits.dtype.type(EXPONENT[dtype]), bits.reshape(-1), 0
    for start in range(0, len(flat), CHUNK_VALUES):
        found += int(np.count_nonzero((flat[start : start + CHUNK_VALUES] & mask) == mask))
    return found


def recode(bits: Bits, source: str, target: str, exponent: int = 0) -> Bits:
    """``bits`` of type ``source`` as ``target``, of the same shape, rounded to nearest even where they do not fit.

    Every value is multiplied by two to the power of ``exponent`` before it is rounded.
    """
    if source == target and not exponent:
        return bits
    out: Bits = np.empty(bits.shape, dtype=DTYPES[target])
    flat_in, flat_out = bits.reshape(-1), out.reshape(-1)
    for start in range(0, len(flat_in), CHUNK_VALUES):
        part = slice(start, start + CHUNK_VALUES)
        flat_out[part] = from_float32(_scaled(to_float32(flat_in[part], source), exponent), target)
    return out


def compare(a: Bits, a_dtype: str, b: Bits, b_dtype: str, exponent: int = 0) -> Loss:
    """Where the values of ``a`` and ``b``, of the same shape, differ in any bit once both are float32.

    ``a`` holds those of ``b`` times two to the power of ``exponent``; errors are in the unit of ``b``.
    """
    changed, largest = 0, 0.0
    flat_a, flat_b = a.reshape(-1), b.reshape(-1)
    for start in range(0, len(flat_a), CHUNK_VALUES):
        part = slice(start, start + CHUNK_VALUES)
        if a_dtype == b_dtype and not exponent and np.array_equal(flat_a[part], flat_b[part]):
            continue
        x, y = to_float32(flat_a[part], a_dtype), _scaled(to_float32(flat_b[part], b_dtype), exponent)
        differs = x.view(np.uint32) != y.view(np.uint32)
        n = int(np.count_nonzero(differs))
        if n:
            changed += n
            with np.errstate(invalid="ignore", over="ignore"):
                error = np.abs(x[differs].astype(np.float64) - y[differs])
            largest = max(largest, math.ldexp(float(np.nanmax(error, initial=0.0)), -exponent))
    return Loss(changed, largest)


def _scaled(values: Float32, exponent: int) -> Float32:
    return np.ldexp(values, exponent) if exponent else values
