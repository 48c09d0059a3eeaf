"""Runs made by hand that ``diff`` compares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.report.section import task_report
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from tests.support.predictions import NO_TOKENS, noise, prediction

OFF = {"window": 200, "window_honoured": False}
ON = {"window": 200, "window_honoured": True}
"""Of a model with a sliding window, what a run says of it."""


def made(
    directory: Path, items: list[Prediction], near_tie: float | None = None, settings: Any = None, **model: Any
) -> Run:
    """A run of ``items``; rounding moves a margin of scale 1 by ``near_tie``."""
    header = {"engine": "made", "settings": settings or {}, "model": {"checkpoint_sha256": "c", **model}}
    with RunWriter(directory, header) as writer:
        for item in items:
            writer.write(item)
        sections = {
            task: {
                **task_report([item for item in items if item.task == task], NO_TOKENS, {}),
                "noise": noise(near_tie),
            }
            for task in dict.fromkeys(item.task for item in items)
        }
        writer.report({"tasks": sections})
    return Run.open(directory)


def answers(right: int, n: int, **changes: Any) -> list[Prediction]:
    """``n`` items, the first ``right`` of them correct."""
    return [prediction(i, "A" if i < right else "B", **changes) for i in range(n)]


def references(folder: Path, dtype: str = "float32") -> tuple[Run, Run]:
    """Ten of ten right with the window, seven without it."""
    return (
        made(folder / "on", answers(10, 10), **ON, dtype="float32"),
        made(folder / "off", answers(7, 10), **OFF, dtype=dtype),
    )
