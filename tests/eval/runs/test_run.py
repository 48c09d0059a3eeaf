"""Runs on disk: written, read again, refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner import files
from orin_runner.errors import UserError
from tests.support.predictions import prediction, write


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Predictions, header and report."""
    items = [prediction(0), prediction(1, "B", logprobs=None, text="B\n", margin=None)]
    run = write(tmp_path / "r", items, name="m")
    assert list(run.predictions.values()) == items
    assert run.header == {"model": {"name": "m"}}
    assert run.report == {"tasks": {}}


def test_predictions_are_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    """Flushed one by one: a killed run keeps what it had."""
    with RunWriter(tmp_path / "r", {}) as writer:
        writer.write(prediction(0))
        assert len((tmp_path / "r" / "predictions.jsonl").read_text().splitlines()) == 1


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    """Nothing of it is touched."""
    write(tmp_path / "r", [prediction(0)])
    with pytest.raises(UserError, match="already holds a run; name another folder with --out"):
        RunWriter(tmp_path / "r", {})
    assert len(Run.open(tmp_path / "r").predictions) == 1


def test_answers_larger_than_any_text_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is one line of holes is not read into memory."""
    write(tmp_path / "r", [prediction(0)])
    monkeypatch.setattr(files, "MAX_BYTES", 1 << 20)
    os.truncate(tmp_path / "r" / "predictions.jsonl", 1 << 21)
    with pytest.raises(UserError, match=r"predictions\.jsonl is larger than 1 MiB"):
        Run.open(tmp_path / "r")


def test_a_folder_without_a_run_and_a_damaged_line_are_named(tmp_path: Path) -> None:
    """With the line number."""
    with pytest.raises(UserError, match="does not hold a run"):
        Run.open(tmp_path)
    write(tmp_path / "r", [prediction(0)])
    with (tmp_path / "r" / "predictions.jsonl").open("a") as file:
        file.write('{"task": "mmlu"}\n')
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 2: not a prediction"):
        Run.open(tmp_path / "r")
