"""A disk that is full, a folder that disappears, a resume that is refused: named, and nothing is spoilt."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.encoding import Question
from eval.evaluate import Prepared, check_known
from eval.report.page import write_page
from eval.runs.part import TaskCost
from eval.runs.run import PAGE, Run
from eval.runs.writer import RunWriter
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import RunError, UserError, os_error_line
from orin_runner.requests import ScoreRequest
from tests.support.predictions import prediction, write

HEADER: dict[str, Any] = {"engine": "x", "time": "now", "model": {"sha256": "m"}, "settings": {"limit": 3}}


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of every file, and the folder's own time."""
    files = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    return {**files, ".": (b"", folder.stat().st_mtime_ns)}


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


WRITES: list[tuple[str, Callable[[RunWriter], None]]] = [
    ("parts.json", lambda writer: writer.spent("mmlu", TaskCost(), last=True)),
    ("report.json", lambda writer: writer.report({"tasks": {}})),
    ("report.html", lambda writer: write_page([Run.open(writer.directory)], writer.directory / PAGE) and None),
]


@pytest.mark.parametrize(("name", "act"), WRITES, ids=[name for name, _ in WRITES])
def test_a_full_disk_names_the_file_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[RunWriter], None]
) -> None:
    """No half of a new one either, by whatever name."""
    with RunWriter(tmp_path / "r", HEADER) as writer:
        writer.write(prediction(0))
        act(writer)
        before = state(tmp_path / "r")
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left") as error:
            act(writer)
        monkeypatch.undo()
        assert os_error_line(error.value) == f"{tmp_path / 'r' / name}: No space left on device"
        after = state(tmp_path / "r")
        assert {key: value for key, value in after.items() if key != "."} == {
            key: value for key, value in before.items() if key != "."
        }
        act(writer)


def test_a_full_disk_in_the_middle_of_a_line(tmp_path: Path) -> None:
    """``predictions.jsonl`` is named; what had been written of the line is dropped by the next part."""
    with RunWriter(tmp_path / "r", HEADER) as writer:
        writer.write(prediction(0))
        own = writer._predictions

        class Full:
            """Takes a third of what it is given, and then nothing."""

            left = 100
            fileno = own.fileno
            close = own.close

            def write(self, content: memoryview) -> int:
                if not self.left:
                    full()
                taken, self.left = self.left, 0
                return own.write(content[:taken])

        writer._predictions = Full()  # type: ignore[assignment]
        with pytest.raises(OSError, match="No space left") as error:
            writer.write(prediction(1))
    assert os_error_line(error.value) == f"{tmp_path / 'r' / 'predictions.jsonl'}: No space left on device"
    with RunWriter(tmp_path / "r", HEADER, resume=True) as writer:
        assert writer.torn
        writer.write(prediction(1))
    assert len(Run.open(tmp_path / "r").predictions) == 2


def test_the_header_of_a_run_that_finds_no_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder can be begun anew once there is some."""
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"run\.json"):
        RunWriter(tmp_path / "r", HEADER)
    monkeypatch.undo()
    with RunWriter(tmp_path / "r", HEADER):
        pass


ACTS: list[Callable[[RunWriter], None]] = [
    lambda writer: writer.write(prediction(1)),
    lambda writer: writer.spent("mmlu", TaskCost(), last=True),
    lambda writer: writer.report({"tasks": {}}),
]


@pytest.mark.parametrize("act", ACTS, ids=["write", "spent", "report"])
@pytest.mark.parametrize("gone", ["removed", "renamed", "replaced"])
def test_a_folder_that_disappears_ends_the_run(tmp_path: Path, gone: str, act: Callable[[RunWriter], None]) -> None:
    """At the next write, with what is lost; nothing is written elsewhere."""
    folder = tmp_path / "r"
    with RunWriter(folder, HEADER) as writer:
        writer.write(prediction(0))
        if gone == "renamed":
            folder.rename(tmp_path / "moved")
        else:
            shutil.rmtree(folder)
        if gone == "replaced":
            folder.mkdir()
            (folder / "predictions.jsonl").touch()
        said = "where it is now" if gone == "renamed" else "the 1 answers of the run are lost"
        with pytest.raises(RunError, match=f"predictions.jsonl was removed or renamed .*{said}"):
            act(writer)
    assert not folder.exists() or [path.name for path in folder.iterdir()] == ["predictions.jsonl"]


def begin(folder: Path, settings: dict[str, Any]) -> None:
    with RunWriter(folder, {**HEADER, "settings": settings}) as writer:
        writer.write(prediction(0))
        writer.write(prediction(1))


@pytest.mark.parametrize(
    "other",
    [
        {"model": {"sha256": "other"}},
        {"engine": "y"},
        {"settings": {"limit": 4}},
        {"settings": {"limit": 3, "chat": True}},
        {"settings": {"limit": 3, "draft": False}},
        {"settings": {"limit": 3, "tasks": ["mmlu"]}},
    ],
)
@pytest.mark.parametrize("torn", [False, True])
def test_a_refused_resume_changes_nothing(tmp_path: Path, other: dict[str, Any], torn: bool) -> None:
    """Not a byte, not a time, not even a torn line."""
    begin(tmp_path / "r", {"limit": 3})
    path = tmp_path / "r" / "predictions.jsonl"
    if torn:
        path.write_bytes(path.read_bytes()[:-4])
    before = state(tmp_path / "r")
    with pytest.raises(UserError, match=r"holds a run with .*, not "):
        RunWriter(tmp_path / "r", {**HEADER, **other}, resume=True)
    assert state(tmp_path / "r") == before


@pytest.mark.parametrize("name", ["run.json", "predictions.jsonl", "samples.jsonl", "parts.json", "report.json"])
def test_a_resume_of_a_damaged_run_changes_nothing(tmp_path: Path, name: str) -> None:
    """A line in the middle that is none, a pipe where a file was: refused before a torn line is dropped."""
    begin(tmp_path / "r", {"limit": 3})
    path = tmp_path / "r" / "predictions.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[1][:-4]]))
    if name == "predictions.jsonl":
        path.write_bytes(b"{\n" + lines[1][:-4])
    else:
        (tmp_path / "r" / name).unlink(missing_ok=True)
        os.mkfifo(tmp_path / "r" / name)
    files = [each for each in (tmp_path / "r").iterdir() if each.is_file()]
    before = {each: (each.read_bytes(), each.stat().st_mtime_ns) for each in files}
    with pytest.raises(UserError, match=name):
        RunWriter(tmp_path / "r", HEADER, resume=True)
    assert {each: (each.read_bytes(), each.stat().st_mtime_ns) for each in files} == before


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"limit": 3}, {"limit": 3, "draft": True, "shots": None, "chat": False, "prompt_cache": None}),
        ({"limit": 3}, {"limit": 3, "a setting to come": None}),
        ({"limit": 3}, {"limit": 3, "splits": {"mmlu": "test"}}),
        ({"limit": 3, "an old setting": None, "draft": True}, {"limit": 3}),
        ({"limit": 3, "prompt_cache": "r?sum?"}, {"limit": 3, "prompt_cache": "r\udce9sum\udce9"}),
    ],
)
def test_a_setting_that_is_not_named_is_at_its_default(
    tmp_path: Path, before: dict[str, Any], now: dict[str, Any]
) -> None:
    """A newer version's runs go on with an older one's, and a name that is no UTF-8 is compared as it is written."""
    begin(tmp_path / "r", before)
    with RunWriter(tmp_path / "r", {**HEADER, "settings": now}, resume=True) as writer:
        assert len(writer.known) == 2


def test_another_question_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    """Another target, or the same with other tokens."""
    task = get_task("exam")
    question = Question(task.load(LoadOptions()).docs[0], ScoreRequest(np.arange(3, dtype=np.int32), ()))
    run = write(tmp_path / "r", [prediction(0, task="exam", id=question.doc.id, target=question.doc.target)])
    with pytest.raises(UserError, match=f"exam {question.doc.id} is another question than in the run to resume"):
        check_known([Prepared(task, [question], {})], run.predictions)
    same = prediction(0, task="exam", id=question.doc.id, target=question.doc.target, tokens_sha256=question.digest)
    check_known([Prepared(task, [question], {})], {("exam", question.doc.id): same})
