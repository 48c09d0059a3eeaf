"""A run whose worker is killed, that is interrupted and resumed, says what one that was left alone says.

Its seconds are those of all its parts, as they were seen from outside.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.commands import orin_run, orin_run_begun
from tests.support.recomputed import json_lines, near_s
from tests.support.small_data import small_data
from tests.support.waiting import until

TASKS = ("hellaswag", "exam", "winogrande")
ITEMS = 64
"""Of the exam; the others have fewer."""
PATIENCE_S = 120


@dataclass
class Part:
    """One process of a run, from outside.

    ``wall_s``: from its start to its end; ``last_answer_s``: to the last line of predictions.jsonl. ``seen``: seconds
    at which something was done to it.
    """

    wall_s: float
    last_answer_s: float
    seen: list[float] = field(default_factory=list)


@dataclass
class Outcome:
    """A whole run: its folder, and its parts from outside."""

    folder: Path
    parts: list[Part]

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "report.json").read_text(encoding="utf-8"))
        return found

    @property
    def records(self) -> list[dict[str, Any]]:
        """``parts.json``."""
        found: list[dict[str, Any]] = json.loads((self.folder / "parts.json").read_text(encoding="utf-8"))
        return found

    def answers(self) -> dict[tuple[str, str], dict[str, Any]]:
        lines = json_lines(self.folder / "predictions.jsonl")
        found = {(line["task"], line["id"]): line for line in lines}
        assert len(found) == len(lines), "an item stands there twice"
        return found


def answered(folder: Path, task: str) -> int:
    """Lines of a task so far."""
    path = folder / "predictions.jsonl"
    return path.read_text(encoding="utf-8").count(f'"task": "{task}"') if path.exists() else 0


def workers(pid: int) -> list[int]:
    """The workers that a process has started; a chat template has a process, too."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"orin_runner.workers" in line]


class Disturber:
    """Runs the same command in one folder, part after part."""

    def __init__(self, folder: Path, model: Path, data: Path) -> None:
        self.outcome = Outcome(folder, [])
        self._command = ["eval", *TASKS, "--model", model, "--data", data, "--limit", str(ITEMS), "--out", folder]

    def part(self, *options: str, does: Callable[[int], list[float]] | None = None, status: int = 0) -> str:
        """Run once, with something done to the process; what it printed on both streams."""
        folder = self.outcome.folder
        began, before = time.time(), time.perf_counter()
        process = orin_run_begun(*self._command, *options)
        try:
            seen = [] if does is None else [at - before for at in does(process.pid)]
            printed = "".join(process.communicate(timeout=PATIENCE_S))
        except BaseException:
            process.kill()
            process.communicate()
            raise
        assert process.returncode == status, printed
        wall = time.perf_counter() - before
        last = (folder / "predictions.jsonl").stat().st_mtime - began
        self.outcome.parts.append(Part(wall, last, seen))
        return printed

    def kill_worker_then_interrupt(self, pid: int) -> list[float]:
        """Both in the exam, the latter when a new worker has answered some more."""
        return [*self._when_some_are_answered(self._kill_worker, pid), *self.interrupt(pid)]

    def interrupt(self, pid: int) -> list[float]:
        return self._when_some_are_answered(lambda pid: os.kill(pid, signal.SIGINT), pid)

    def _kill_worker(self, pid: int) -> None:
        (worker,) = workers(pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: set(workers(pid)) - {worker} != set(), PATIENCE_S)

    def _when_some_are_answered(self, what: Callable[[int], None], pid: int) -> list[float]:
        known = answered(self.outcome.folder, "exam")
        until(lambda: answered(self.outcome.folder, "exam") > known, PATIENCE_S)
        what(pid)
        return [time.perf_counter()]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> tuple[Outcome, Outcome]:
    """One run left alone, and one that was not: a worker killed, interrupted twice, resumed until nothing is left."""
    folder = tmp_path_factory.mktemp("disturbed")
    model, data = folder / "tiny.gguf", small_data(folder / "data")
    convert(Checkpoint.open(tiny), model, Options())
    alone, disturbed = (Disturber(folder / name, model, data) for name in ("alone", "disturbed"))
    alone.part()
    printed = disturbed.part(does=disturbed.kill_worker_then_interrupt, status=130)
    assert "the engine died" in printed
    disturbed.part("--resume", does=disturbed.interrupt, status=130)
    printed = disturbed.part("--resume")
    assert "answers of" in printed
    return alone.outcome, disturbed.outcome


def test_answers_are_the_same(both: tuple[Outcome, Outcome]) -> None:
    """Every item once; texts to the letter, log-probabilities but for rounding."""
    alone, disturbed = (outcome.answers() for outcome in both)
    assert alone.keys() == disturbed.keys()
    same = ("prediction", "text", "target", "correct", "scores", "n_tokens", "n_context", "n_generated", "failed")
    for key, line in alone.items():
        other = disturbed[key]
        assert [line[name] for name in same] == [other[name] for name in same], key
        if line["logprobs"] is not None:
            assert other["logprobs"] == pytest.approx(line["logprobs"], abs=0.5)


@pytest.mark.parametrize("task", TASKS)
def test_items_and_tokens_are_the_same(both: tuple[Outcome, Outcome], task: str) -> None:
    """Only what was lost on the way has been computed beside, and only in the task that was disturbed."""
    alone, disturbed = (outcome.report["tasks"][task] for outcome in both)
    for name in ("accuracy", "stderr", "items", "failed", "metrics", "groups", "split", "rows"):
        assert alone[name] == disturbed[name], name
    assert (disturbed["without_record"], "unanswered" in disturbed) == (0, False)
    assert {name: disturbed["tokens"][name] for name in ("sent", "unique")} == {
        name: alone["tokens"][name] for name in ("sent", "unique")
    }
    assert disturbed["tokens"]["computed"] >= alone["tokens"]["computed"]
    if task != "exam":
        assert disturbed["tokens"]["computed"] == alone["tokens"]["computed"]
    assert disturbed["device"]["answer_tokens"] == disturbed["tokens"]["computed"]


def test_every_item_is_answered_in_one_part(both: tuple[Outcome, Outcome]) -> None:
    """The parts' items add up, and the last part knows how many stood there before."""
    _, disturbed = both
    count = Counter[str]()
    for record in disturbed.records:
        count.update({task: cost["items"] for task, cost in record.items()})
    report = disturbed.report
    for task in TASKS:
        assert count[task] == report["tasks"][task]["items"]
    assert len(disturbed.records) == 3
    last = disturbed.records[-1]
    assert report["tasks"]["exam"]["resumed"] == count["exam"] - last["exam"]["items"] > 0
    assert last["exam"]["items"] > 0
    assert report["tasks"]["hellaswag"]["resumed"] == count["hellaswag"]


@pytest.mark.parametrize("task", TASKS)
def test_near_ties_are_those_of_all_items(both: tuple[Outcome, Outcome], task: str) -> None:
    """By the noise of all that any part has compared."""
    for outcome in both:
        section = outcome.report["tasks"][task]
        stats = [record[task]["stats"] for record in outcome.records if task in record]
        for kind, name in (("scores", "score_noise"), ("texts", "text_noise")):
            found, parts = section["noise"][kind], [part[name] for part in stats]
            if not sum(part["n"] for part in parts):
                assert found is None
                continue
            assert found["compared"] == sum(part["n"] for part in parts)
            assert found["rms"] ** 2 * found["compared"] == pytest.approx(sum(p["n"] * p["rms"] ** 2 for p in parts))
            for limit in ("largest", "near_tie"):
                assert found[limit] == max(part[limit] for part in parts)
        lines = [line for (name, _), line in outcome.answers().items() if name == task]
        kinds = [section["noise"]["scores" if line["text"] is None else "texts"] for line in lines]
        if None in kinds:  # whoever answered was gone before it measured its noise
            assert section["near_ties"] is None
            continue
        turned = (
            line["margin"] < kind["near_tie"] * line["margin_scale"] for line, kind in zip(lines, kinds, strict=True)
        )
        assert section["near_ties"] == sum(turned)
    alone, disturbed = (outcome.report["tasks"][task] for outcome in both)
    if task == "exam":
        assert disturbed["near_ties"] in {alone["near_ties"], None}


def test_greedy_figures_are_those_of_all_texts(both: tuple[Outcome, Outcome]) -> None:
    """Part by part decided as at once."""
    alone, disturbed = (outcome.report["tasks"]["exam"]["greedy"] for outcome in both)
    assert alone["texts"] == disturbed["texts"] == ITEMS * 3 // 4
    lines = [line for line in both[1].answers().values() if line["text"] is not None]
    assert disturbed["decode_steps_per_text"] == pytest.approx(sum(line["decode_steps"] for line in lines) / len(lines))


@pytest.mark.parametrize("task", TASKS)
def test_seconds_are_the_sum_of_the_parts(both: tuple[Outcome, Outcome], task: str) -> None:
    """Of every clock, and the rates are of these."""
    for outcome in both:
        section = outcome.report["tasks"][task]
        clocks: Counter[str] = Counter()
        for record in outcome.records:
            clocks.update(record.get(task, {"clocks": {}})["clocks"])
        for name, seconds in clocks.items():
            shown = "challenge 2023" if name == "process" else name
            assert section["clocks"][shown] == pytest.approx(seconds, abs=1e-4), name
        rate = section["items"] / (clocks["tokenize"] + clocks["inference"])
        assert section["items_per_s"] == pytest.approx(rate, rel=1e-6)
        bare, data = section["clocks"]["challenge 2024 without data"], clocks["data"] + clocks["tokenize"]
        assert bare == pytest.approx(clocks["inference"], abs=1e-4)
        assert section["clocks"]["challenge 2024"] == pytest.approx(bare + data, abs=1e-3)


def test_seconds_of_a_part_are_those_that_passed(both: tuple[Outcome, Outcome]) -> None:
    """From the start of the process to its last answer or interruption, a worker's death in between included."""
    for outcome in both:
        for record, part in zip(outcome.records, outcome.parts, strict=True):
            last = [*record][-1]
            elsewhere = sum(
                record[task]["clocks"][name]
                for task in record
                if task != last
                for name in ("data", "tokenize", "inference")
            )
            process = record[last]["clocks"]["process"] + elsewhere
            checked = record[last]["clocks"].get("check", 0.0)
            end = max([part.last_answer_s, *part.seen]) if last == "exam" else part.last_answer_s
            assert end - near_s() <= process + untouched(record, outcome) <= min(part.wall_s, end + checked + 1.0)
    first = both[1].parts[0]
    killed, interrupted = first.seen
    clocks = both[1].records[0]["exam"]["clocks"]
    assert clocks["inference"] >= interrupted - killed
    assert sum(clocks.get(stage, 0.0) for stage in ("plan", "prefill", "check", "decode")) <= clocks["inference"]


def untouched(record: dict[str, Any], outcome: Outcome) -> float:
    """Seconds of reading tasks that an interrupted part did not come to: its tasks' clocks are without them."""
    others = [task for task in TASKS if task not in record]
    return sum(outcome.records[-1][task]["clocks"][name] for task in others for name in ("data", "tokenize"))


def test_a_run_that_is_complete_stays_as_it_is(both: tuple[Outcome, Outcome], tmp_path: Path, tiny: Path) -> None:
    """Resumed once more: the same numbers, printed again."""
    _, disturbed = both
    folder = disturbed.folder
    names = ("run.json", "predictions.jsonl", "parts.json", "report.json", "samples.jsonl")
    before = {name: (folder / name).read_bytes() for name in names}
    model, data = folder.parent / "tiny.gguf", folder.parent / "data"
    command = ("eval", *TASKS, "--model", model, "--data", data, "--limit", str(ITEMS), "--out", folder)
    done = orin_run(*command, "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["tasks"] == disturbed.report["tasks"]
    assert {name: (folder / name).read_bytes() for name in names} == before
