"""Which type the values of a tensor are stored as: the one asked for, or the smallest that holds them exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from convert.exactness import Loss, loss
from convert.source_tensor import Bits, SourceTensor
from orin_runner.errors import UserError

BY_PREFERENCE = ("F16", "BF16", "F32")
"""Safetensors names; F32 holds the values of all of them, and of a 16-bit one times any power of two that is used."""


@dataclass(frozen=True, slots=True)
class Use:
    """A checkpoint tensor that is written, but for its first ``omitted`` rows, times two to the power ``exponent``."""

    source: SourceTensor
    exponent: int = 0
    omitted: int = 0

    def loss(self, target: str, *, stop_at_first: bool = False) -> Loss:
        """What storing it as ``target`` alters."""
        return loss(self._values(), self.source.dtype, target, exponent=self.exponent, stop_at_first=stop_at_first)

    def _values(self) -> Iterator[Bits]:
        return iter([self.source.read()[self.omitted :]]) if self.omitted else self.source.chunks()


def pick_type(uses: Sequence[Use], outtype: str, *, allow_rounding: bool) -> tuple[str, int]:
    """The type to store all ``uses`` as, and how many values that alters.

    Args:
        uses: tensors of the same number of dimensions.
        outtype: ``"auto"``, or the type for matrices.
        allow_rounding: whether values may be altered.

    Returns:
        (safetensors name, number of values).

    Raises:
        UserError: values do not survive ``outtype``, and may not be altered or would become infinite.
    """
    if len(uses[0].source.shape) == 1:
        return "F32", 0  # llama.cpp wants vectors in F32; widening is exact
    if outtype == "auto":
        return next(
            name for name in BY_PREFERENCE if not any(use.loss(name, stop_at_first=True).changed for use in uses)
        ), 0
    total = 0
    for use in uses:
        found, name = use.loss(outtype.upper()), use.source.name
        if math.isinf(found.largest_error):
            raise UserError(
                f"tensor {name} has values that are too large for {outtype}: they would become infinite",
                "use --outtype auto",
            )
        if found.changed and not allow_rounding:
            raise UserError(
                f"tensor {name}: {found.changed:,} of {math.prod(use.source.shape):,} values do not survive {outtype} "
                f"(largest error {found.largest_error:.3g})",
                "use --outtype auto, or --allow-rounding to round them",
            )
        total += found.changed
    return outtype.upper(), total
