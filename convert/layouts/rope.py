"""Rotary embeddings: what ``config.json`` says of them, and the factor tensors by which llama.cpp divides frequencies.

The formulas are transformers' (``modeling_rope_utils.py``). A kind that a family does not name is refused; none is
taken for another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from convert.schemas import DAMAGED, ELSEWHERE
from orin_runner.errors import UserError
from orin_runner.model.gguf_keys import ORIGINAL_CONTEXT

DEFAULT, LLAMA3, LONGROPE = "default", "llama3", "longrope"
ALIASES = {"su": LONGROPE}
"""Names of kinds in older checkpoints."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embeddings of a checkpoint.

    Attributes:
        theta: base of the frequencies.
        n_rot: dimensions of a head that are rotated, the first ones.
        factors: divisors of the frequencies by the name of llama.cpp's tensor, ``n_rot / 2`` each.
        original_context: of long-rope, the most tokens for which the short factors are; None for other kinds.
        attention_factor: factor on the rotated queries and keys.
    """

    theta: float
    n_rot: int
    factors: dict[str, tuple[float, ...]]
    original_context: int | None = None
    attention_factor: float = 1.0

    @classmethod
    def of(cls, config: dict[str, Any], head_dim: int, n_ctx: int, kinds: tuple[str, ...], *, partial: bool) -> Rope:
        """What a parsed ``config.json`` says.

        Args:
            config: the parsed file, of any version of transformers.
            head_dim: size of a head.
            n_ctx: positions the model was made for.
            kinds: that the layout can express.
            partial: whether it can rotate a part of a head.

        Raises:
            UserError: the kind is another, or one of its numbers is missing or makes no sense.
        """
        settings = {
            **{key: config.get(key) for key in ("partial_rotary_factor", "original_max_position_embeddings")},
            **(config.get("rope_scaling") or {}),
            **(config.get("rope_parameters") or {}),
        }
        theta = float(settings.get("rope_theta") or config.get("rope_theta") or 10000.0)
        kind = settings.get("rope_type") or settings.get("type") or DEFAULT
        kind = ALIASES.get(kind, kind)
        if kind not in kinds:
            raise UserError(
                f"rope scaling of type {kind!r} is not supported for {(config.get('architectures') or ['this'])[0]}",
                f"supported there: {', '.join(kinds)}",
            )
        share = settings.get("partial_rotary_factor") or 1.0
        n_rot = int(head_dim * share)
        if (n_rot != head_dim and not partial) or not 0 < n_rot <= head_dim or n_rot % 2:
            rotated = f"it rotates {n_rot} of {head_dim} dimensions of a head"
            raise UserError(f"partial_rotary_factor {share} is not supported: {rotated}", ELSEWHERE)
        if kind == LLAMA3:
            return cls(theta, n_rot, {"rope_freqs.weight": _llama3(settings, theta, n_rot)})
        return _longrope(settings, theta, n_rot, n_ctx) if kind == LONGROPE else cls(theta, n_rot, {})

    def metadata(self) -> dict[str, int | float]:
        """The keys of llama.cpp, without the architecture prefix."""
        keys: dict[str, int | float] = {"rope.dimension_count": self.n_rot, "rope.freq_base": self.theta}
        if self.original_context is not None:
            keys |= {ORIGINAL_CONTEXT: self.original_context, "rope.scaling.attn_factor": self.attention_factor}
        return keys


def _number(settings: dict[str, Any], key: str) -> float:
    value = settings.get(key)
    if not isinstance(value, int | float) or value <= 0:
        reason = f"config.json has {key} {value!r} for the rotary embeddings, which is no positive number"
        raise UserError(reason, DAMAGED)
    return float(value)


def _llama3(settings: dict[str, Any], theta: float, n_rot: int) -> tuple[float, ...]:
    """Unscaled over scaled frequencies, in float32 as ``_compute_llama3_parameters`` has them."""
    factor, low, high = (_number(settings, key) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    context = _number(settings, "original_max_position_embeddings")
    exponents = np.arange(0, n_rot, 2, dtype=np.float32) / np.float32(n_rot)
    frequencies: npt.NDArray[np.float32] = 1 / np.float32(theta) ** exponents
    wavelengths = np.float32(2 * math.pi) / frequencies
    if high <= low:
        raise UserError(f"config.json has high_freq_factor {high}, which is not above low_freq_factor {low}", DAMAGED)
    share = (np.float32(context) / wavelengths - np.float32(low)) / np.float32(high - low)
    smooth = (1 - share) * frequencies / np.float32(factor) + share * frequencies
    scaled = np.where(wavelengths > context / low, frequencies / np.float32(factor), frequencies)
    scaled = np.where((wavelengths <= context / low) & (wavelengths >= context / high), smooth, scaled)
    return tuple((frequencies / scaled).tolist())


def _longrope(settings: dict[str, Any], theta: float, n_rot: int, n_ctx: int) -> Rope:
    """As ``_compute_longrope_parameters`` has it."""
    context = int(_number(settings, "original_max_position_embeddings"))
    factors = {}
    for key in ("short_factor", "long_factor"):
        values = settings.get(key)
        if not isinstance(values, list) or len(values) != n_rot // 2 or not all(value > 0 for value in values):
            raise UserError(f"config.json has no {key} of {n_rot // 2} positive numbers", "download it again")
        factors[f"rope_factors_{key.removesuffix('_factor')}.weight"] = tuple(
            np.array(values, dtype=np.float32).tolist()
        )
    ratio = settings.get("factor") or n_ctx / context
    if settings.get("attention_factor") is not None:
        attention = _number(settings, "attention_factor")
    else:
        attention = math.sqrt(1 + math.log(ratio) / math.log(context)) if ratio > 1 else 1.0
    return Rope(theta, n_rot, factors, context, attention)
