"""Which margins rounding may turn, by the noise that a run has measured and by what each margin is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from eval.runs.prediction import Prediction
from orin_runner.runner import Noise, RunStats


@dataclass(frozen=True, slots=True)
class NearTies:
    """The noise of a run, as far as it was measured.

    Attributes:
        scores: nats that rounding may move a scored token's log-probability by; None where that was not measured.
        texts: nats that it may move the lead of a text's token by; likewise.
    """

    scores: float | None = None
    texts: float | None = None

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> NearTies:
        """What a section of ``report.json`` says; nothing where it says nothing, or only a number, as it once did."""
        noise = section.get("noise")
        if not isinstance(noise, dict):
            return cls()
        return cls(*((noise.get(kind) or {}).get("near_tie") for kind in ("scores", "texts")))

    def bound(self, prediction: Prediction) -> float | None:
        """Rounding may have turned a margin below this, in the margin's unit; None where nobody knows.

        Rounding moves the tokens of a sum independently of one another, so it moves a margin by the root of the sum of
        squares (``Prediction.margin_scale``).
        """
        noise = self.scores if prediction.text is None else self.texts
        scale = prediction.margin_scale
        return None if noise is None or scale is None or prediction.margin is None else noise * scale

    def holds(self, prediction: Prediction) -> bool:
        """Whether rounding may have turned the answer."""
        bound = self.bound(prediction)
        return bound is not None and prediction.margin is not None and prediction.margin < bound

    def count(self, predictions: Iterable[Prediction]) -> int | None:
        """How many answers rounding may have turned; None where that is not known of an answer with a margin."""
        found = list(predictions)
        if any(p.margin is not None and self.bound(p) is None for p in found):
            return None
        return sum(map(self.holds, found))


def noise_section(stats: RunStats) -> dict[str, Any]:
    """``noise`` of a task's section of ``report.json``; None for what was not measured."""
    return {"scores": _noise(stats.score_noise), "texts": _noise(stats.text_noise)}


def _noise(noise: Noise) -> dict[str, Any] | None:
    if not noise.n:
        return None
    return {"compared": noise.n, "rms": noise.rms, "largest": noise.largest, "near_tie": noise.near_tie}
