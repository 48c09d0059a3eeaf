"""Numbers of a task's figures: intervals of accuracies, calibration, margins."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from eval.intervals import wilson_interval
from eval.near_ties import NearTies
from eval.runs.prediction import Prediction

CONFIDENCE_BINS, MARGIN_BINS = 10, 24


def wilson(mean: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share; all there is where nothing was asked.

    For scores between 0 and 1 it is wider than need be: no such score varies more than right and wrong do.
    """
    return wilson_interval(mean * n, n) if n else (0.0, 1.0)


def calibration(predictions: Sequence[Prediction]) -> dict[str, Any] | None:
    """How often the favoured choice is right, by the probability that the choices' log-probabilities give it.

    The confidence is the largest softmax over the choices' summed log-probabilities. Where a task compares something
    else first, right means right by the sums (``acc``). Probability masses over several true choices have no single
    favourite and are left out.

    Returns:
        ``bins`` of equal width (``items``, their mean ``confidence`` and ``accuracy``, and the 95 % ``interval`` of the
        latter) without empty ones; ``ece``, the expected calibration error (Naeini et al. 2015): the mean of
        |accuracy - confidence|, weighted by items. None without an item to count.
    """
    bins: list[list[tuple[float, float]]] = [[] for _ in range(CONFIDENCE_BINS)]
    for prediction in predictions:
        logprobs = prediction.logprobs
        if logprobs is None or len(logprobs) < 2 or "mc2" in prediction.scores:
            continue
        best = max(logprobs)
        if not math.isfinite(best) or any(map(math.isnan, logprobs)):
            continue
        confidence = 1.0 / sum(math.exp(value - best) for value in logprobs)
        right = prediction.scores.get("acc", float(prediction.correct))
        bins[min(int(confidence * CONFIDENCE_BINS), CONFIDENCE_BINS - 1)].append((confidence, right))
    items = sum(map(len, bins))
    if not items:
        return None
    found = []
    for number, members in enumerate(bins):
        if members:
            confidence, right = (sum(column) / len(members) for column in zip(*members, strict=True))
            low = number / CONFIDENCE_BINS
            found.append(
                {
                    "from": low,
                    "items": len(members),
                    "confidence": confidence,
                    "accuracy": right,
                    "interval": wilson(right, len(members)),
                }
            )
    ece = sum(row["items"] / items * abs(row["accuracy"] - row["confidence"]) for row in found)
    return {"items": items, "ece": ece, "bins": found}


def margins(predictions: Sequence[Prediction], near_ties: NearTies) -> dict[str, Any] | None:
    """Items right and wrong by margin, in bins of equal width from 0; None without a margin.

    Args:
        near_ties: which margins rounding may turn. Where that is the same for all items it is ``near_tie``.
    """
    found = [(p.margin, p.correct) for p in predictions if p.margin is not None]
    if not found:
        return None
    top = max(margin for margin, _ in found) or 1.0
    right, wrong = [0] * MARGIN_BINS, [0] * MARGIN_BINS
    for margin, correct in found:
        at = min(max(int(margin / top * MARGIN_BINS), 0), MARGIN_BINS - 1)
        (right if correct else wrong)[at] += 1
    bounds = {bound for p in predictions if (bound := near_ties.bound(p)) is not None}
    below = near_ties.count(predictions)
    near_tie = bounds.pop() if len(bounds) == 1 else None
    return {"top": top, "right": right, "wrong": wrong, "near_tie": near_tie, "below": below}


def scale(entries: Sequence[dict[str, Any] | None]) -> dict[str, Any]:
    """The axis of a task's intervals: whole tenths around all of them, marked at its ends and in the middle."""
    parts = [part for entry in entries if entry for part in (entry, entry["truncated"], *entry["groups"].values())]
    shown = [part["interval"] for part in parts if part]
    low = math.floor(10 * min(low for low, _ in shown) + 1e-9)
    high = max(math.ceil(10 * max(high for _, high in shown) - 1e-9), low + 1)
    if (high - low) % 2:
        low, high = (low - 1, high) if low else (low, high + 1)
    return {"low": low / 10, "high": high / 10, "marks": [low / 10, (low + high) / 20, high / 10]}
