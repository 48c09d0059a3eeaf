"""A run's folder taken up again: torn lines, other runs, two processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner.errors import UserError

HEADER: dict[str, Any] = {"engine": "x", "time": "now", "model": {"sha256": "m"}, "settings": {"limit": None}}


def prediction(i: int) -> Prediction:
    return Prediction("t", str(i), "g", "A", "A", correct=True, logprobs=(0.0,), text=None, margin=1.0, n_tokens=1,
                      tokens_sha256="0")  # fmt: skip


def begin(folder: Path, n: int) -> None:
    with RunWriter(folder, HEADER) as writer:
        for i in range(n):
            writer.write(prediction(i))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    """Whatever part of it had reached the disk."""
    begin(tmp_path, 3)
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with RunWriter(tmp_path, HEADER, resume=True) as writer:
        assert writer.torn
        assert set(writer.known) == {("t", "0"), ("t", "1")}
        writer.write(prediction(2))
    assert len(Run.open(tmp_path).predictions) == 3


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    """No run, another model, other settings, a line in the middle that is not whole: nothing is written."""
    with pytest.raises(UserError, match="does not hold a run to resume"):
        RunWriter(tmp_path / "none", HEADER, resume=True)
    assert not (tmp_path / "none").exists()
    begin(tmp_path / "run", 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for other in ({"model": {"sha256": "other"}}, {"settings": {"limit": 3}}, {"engine": "y"}):
        with pytest.raises(UserError, match=r"holds a run with .*, not "):
            RunWriter(tmp_path / "run", {**HEADER, **other}, resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    lines = before["predictions.jsonl"].splitlines(keepends=True)
    (tmp_path / "run" / "predictions.jsonl").write_bytes(lines[0] + b"{\n" + lines[2])
    with pytest.raises(UserError, match="line 2"):
        RunWriter(tmp_path / "run", HEADER, resume=True)


def test_two_processes_on_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one, for as long as the first writes."""
    begin(tmp_path, 1)
    with RunWriter(tmp_path, HEADER, resume=True):
        code = (
            "import sys; from pathlib import Path; from eval.runs.writer import RunWriter\n"
            f"RunWriter(Path({str(tmp_path)!r}), {HEADER!r}, resume=True)"
        )
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is writing" in second.stderr
    with RunWriter(tmp_path, HEADER, resume=True):
        pass
