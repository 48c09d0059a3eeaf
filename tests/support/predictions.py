"""Predictions made by hand, and runs of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.writer import RunWriter


def prediction(i: int, answer: str = "A", **changes: Any) -> Prediction:
    """An item whose right answer is A."""
    base = Prediction(
        task="mmlu",
        id=f"x/{i}",
        group="even" if i % 2 == 0 else "odd",
        prediction=answer,
        target="A",
        correct=answer == "A",
        logprobs=(-0.5, -1.0),
        text=None,
        margin=0.5,
        n_tokens=100 * (i + 1),
        tokens_sha256="0" * 64,
        margin_scale=1.0,
    )
    return replace(base, **changes)


NO_TOKENS = {"sent": 0, "unique": 0, "computed": 0, "checked": 0}
"""``tokens`` of a section where nothing was computed."""


def noise(near_tie: float | None) -> dict[str, Any] | None:
    """``noise`` of a section whose scores have been measured; None: nothing was."""
    if near_tie is None:
        return None
    return {"scores": {"compared": 4, "rms": near_tie / 4, "largest": near_tie / 2, "near_tie": near_tie}}


def write(directory: Path, predictions: list[Prediction], **model: Any) -> Run:
    """A run with a header of ``model``."""
    with RunWriter(directory, {"model": model}) as writer:
        for item in predictions:
            writer.write(item)
        writer.report({"tasks": {}})
    return Run.open(directory)
