"""Facts of a run, and what differs between runs."""

from __future__ import annotations

from pathlib import Path

from eval.report.page import view
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from tests.support.predictions import prediction

MIB = 2**20


def test_a_memory_plan_is_shown_in_mebibytes(tmp_path: Path) -> None:
    """Its terms, their sum, and what there is."""
    device = {"name": "CPU", "available": 4096 * MIB}
    memory = {"device": device, "terms": {"weights": 256 * MIB, "outputs": MIB // 2}, "total": 257 * MIB}
    with RunWriter(tmp_path, {"engine": "x", "memory": memory}) as writer:
        writer.write(prediction(0))
    shown = view([Run.open(tmp_path)])["runs"][0]["memory"]
    assert shown["terms"] == {"weights": 256.0, "outputs": 0.5}
    assert (shown["total"], shown["available"]) == (257.0, 4096.0)
