"""Runs killed between any two writes: whatever state is left, the run begins anew or goes on, and ends complete."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from eval.report.facts import describe
from eval.report.section import task_report
from eval.runs import writer as writing
from eval.runs.meter import Meter
from eval.runs.part import TaskCost
from eval.runs.prediction import ROUNDING
from eval.runs.resume import read_earlier
from eval.runs.run import PAGE, RUN_CONFIG, Run, read_report
from eval.runs.writer import RunWriter
from orin_runner.errors import UserError
from orin_runner.files import append_bytes, write_whole
from orin_runner.machine.sensors import Reading, Sensors
from tests.support.killed import killed_at
from tests.support.predictions import NO_TOKENS, prediction

HEADER: dict[str, Any] = {
    "engine": "x",
    "time": "now",
    "model": {"sha256": "m", "proof": "verified", "proof_detail": None},
    "settings": {"limit": None},
}
ITEMS = [prediction(i) for i in range(3)]
FILES = {"run.json", "predictions.jsonl", "samples.jsonl", "parts.json", "report.json", "report.html"}


class NoSensors(Sensors):
    def __init__(self) -> None:
        self.power_source = None

    def read(self) -> Reading:
        return Reading(host_mib=1.0)

    def close(self) -> None:
        pass


def run(folder: Path, *, resume: bool) -> None:
    """All that a run writes, in its order."""
    with RunWriter(folder, HEADER, resume=resume) as writer:
        answered = 0
        with Meter(folder / "samples.jsonl", NoSensors(), interval=1e6) as meter:
            meter.begin("mmlu")
            for item in ITEMS:
                if (item.task, item.id) not in writer.known:
                    writer.write(item)
                    answered += 1
                writer.spent("mmlu", TaskCost(answered), last=True)
        writer.report({"tasks": {"mmlu": task_report(ITEMS, NO_TOKENS, {})}, "measured": meter.measured()})
    write_whole(folder / PAGE, "page")  # as write_page does


def half_lines(count: Callable[[], None]) -> None:
    """A kill may leave half of what is appended."""

    def append(file: BinaryIO, content: bytes) -> None:
        append_bytes(file, content[: len(content) // 2])
        count()
        append_bytes(file, content[len(content) // 2 :])

    writing.append_bytes = append  # type: ignore[attr-defined]


def begun(folder: Path, *, resume: bool) -> bool:
    """Whether the folder lets a run begin; nothing of it is changed where it does not."""
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*")}
    try:
        run(folder, resume=resume)
    except UserError:
        after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("*")}
        assert after == before
        return False
    return True


def complete(folder: Path) -> None:
    """All items once, a report of all of them and nothing half-written."""
    lines = (folder / "predictions.jsonl").read_bytes().splitlines()
    assert len(lines) == len(ITEMS)
    assert {p.id for p in Run.open(folder).predictions.values()} == {item.id for item in ITEMS}
    assert read_earlier(folder, HEADER).is_complete({"mmlu": len(ITEMS)})
    assert {path.name for path in folder.iterdir()} == FILES


def goes_on(state: Path, scratch: Path) -> None:
    """From ``state`` one of the two ways leads to a complete run; without a ``run.json`` the fresh one does."""
    ways = []
    for resume in (False, True):
        folder = scratch / f"resume-{resume}"
        shutil.rmtree(folder, ignore_errors=True)
        if state.exists():
            shutil.copytree(state, folder)
        if begun(folder, resume=resume):
            complete(folder)
            ways.append(resume)
    assert ways, sorted(path.name for path in state.iterdir())
    if (state / "run.json").exists():
        assert ways == [True]
    else:
        assert ways == ([False, True] if (state / "predictions.jsonl").exists() else [False])


def test_killed_before_each_write(tmp_path: Path) -> None:
    """Of a run from its beginning to its page."""
    point = 0
    while killed_at(point, partial(run, tmp_path / f"{point}", resume=False), half_lines):
        goes_on(tmp_path / f"{point}", tmp_path / "scratch")
        point += 1
    assert point > 30, "so many writes such a run has"


def test_killed_before_each_write_of_a_resume(tmp_path: Path) -> None:
    """Of a run that had lost its second answer's end."""
    with RunWriter(tmp_path / "first", HEADER) as writer:
        for item in ITEMS[:2]:
            writer.write(item)
    path = tmp_path / "first" / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    point = 0
    while True:
        folder = Path(shutil.copytree(tmp_path / "first", tmp_path / f"{point}"))
        if not killed_at(point, partial(run, folder, resume=True), half_lines):
            break
        goes_on(folder, tmp_path / "scratch")
        point += 1
    assert point > 25


@pytest.mark.parametrize("kept", ["run.json", "predictions.jsonl", "both"])
def test_one_of_the_two_files_alone(tmp_path: Path, kept: str) -> None:
    """``run.json`` alone is resumed, an empty ``predictions.jsonl`` begun anew; answers of who knows what are kept."""
    with RunWriter(tmp_path / "r", HEADER) as writer:
        if kept != "both":
            writer.write(ITEMS[0])
    for name in {"run.json", "predictions.jsonl"} - {kept}:
        if kept != "both":
            (tmp_path / "r" / name).unlink()
    if kept == "predictions.jsonl":
        for resume in (False, True):
            with pytest.raises(UserError, match=r"has answers, but run\.json, which says of which model"):
                RunWriter(tmp_path / "r", HEADER, resume=resume)
        (tmp_path / "r" / "predictions.jsonl").write_bytes(b"")
    goes_on(tmp_path / "r", tmp_path)


def test_leftovers_of_another_run_are_not_mixed_in(tmp_path: Path) -> None:
    """A report or samples whose run is gone: a new run would be shown with them."""
    for name in ("report.json", "samples.jsonl", "parts.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(UserError, match="already holds a run"):
            RunWriter(folder, HEADER)


def test_an_answer_of_another_task_is_none_of_this_one(tmp_path: Path) -> None:
    """As many answers as questions, one of them of a task that is not asked: one is left to ask."""
    run(tmp_path / "r", resume=False)
    assert read_earlier(tmp_path / "r", HEADER).is_complete({"mmlu": len(ITEMS)})
    path = tmp_path / "r" / "predictions.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"mmlu"', b'"exam"', 1))
    assert not read_earlier(tmp_path / "r", HEADER).is_complete({"mmlu": len(ITEMS)})


def test_a_report_of_other_answers_is_no_end(tmp_path: Path) -> None:
    """The answers count; a resumed run writes its report from them, and the page says so until then."""
    folder = tmp_path / "r"
    run(folder, resume=False)
    path = folder / "report.json"
    section = json.loads(path.read_text())
    right = section["tasks"]["mmlu"]["accuracy"]
    assert describe(Run.open(folder), "r")["warnings"] == []
    section["tasks"]["mmlu"]["accuracy"] = right - 0.01
    path.write_text(json.dumps(section))
    assert not read_earlier(folder, HEADER).is_complete({"mmlu": len(ITEMS)})
    (said,) = describe(Run.open(folder), "r")["warnings"]
    assert f"says an accuracy of {right - 0.01:.2%}, the answers in predictions.jsonl have {right:.2%}" in said
    run(folder, resume=True)
    assert json.loads(path.read_text())["tasks"]["mmlu"]["accuracy"] == right
    complete(folder)


@pytest.mark.parametrize("target", ["{}", "../r/{}/x", "nowhere/x", "../chain/0", "x" * 300])
@pytest.mark.parametrize("name", sorted(FILES | {"run.toml"}))
def test_a_link_to_itself_is_refused_before_anything_is_asked(tmp_path: Path, name: str, target: str) -> None:
    folder = tmp_path / "r"
    run(folder, resume=False)
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target.format(name))
    (tmp_path / "chain").mkdir()
    for n in range(45):  # the kernel follows 40
        (tmp_path / "chain" / str(n)).symlink_to(str(n + 1))
    for resume in (False, True):
        with pytest.raises(UserError, match=f"{name} is a link that leads back to itself"):
            RunWriter(folder, HEADER, resume=resume)


@pytest.mark.parametrize("name", [PAGE, RUN_CONFIG])
def test_what_cannot_be_replaced_at_the_end_is_refused_at_the_start(tmp_path: Path, name: str) -> None:
    (tmp_path / "r" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"{name} is no regular file"):
        RunWriter(tmp_path / "r", HEADER)


@pytest.mark.parametrize("score", [1 + ROUNDING, -ROUNDING])
def test_what_is_taken_of_an_item_is_taken_of_a_report(tmp_path: Path, score: float) -> None:
    """A score that rounding leaves outside 0 to 1: the report of three such items is read again."""
    items = [replace(item, scores={"acc": score}) for item in ITEMS]
    with RunWriter(tmp_path / "r", HEADER) as writer:
        for item in items:
            writer.write(item)
        writer.report({"tasks": {"mmlu": task_report(items, NO_TOKENS, {})}})
    assert read_report(tmp_path / "r")["tasks"]["mmlu"]["accuracy"] == pytest.approx(score)
    assert len(Run.open(tmp_path / "r").predictions) == len(items)


def test_a_stale_report_is_no_end(tmp_path: Path) -> None:
    """Interrupted with a report, resumed, and killed when the last answer was written: the report is of fewer items."""
    with RunWriter(tmp_path / "r", HEADER) as writer:
        writer.write(ITEMS[0])
        section = task_report(ITEMS[:1], NO_TOKENS, {})
        writer.report({"tasks": {"mmlu": {**section, "unanswered": 2}}})
    with RunWriter(tmp_path / "r", HEADER, resume=True) as writer:
        for item in ITEMS[1:]:
            writer.write(item)
    assert not read_earlier(tmp_path / "r", HEADER).is_complete({"mmlu": 3})
    run(tmp_path / "r", resume=True)
    complete(tmp_path / "r")
