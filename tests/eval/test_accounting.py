"""Figures of a run that was disturbed are those of the whole run: by death, by Ctrl-C, by being resumed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.encoding import Question
from eval.evaluate import Prepared, evaluate
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.process_clock import process_started
from orin_runner.requests import Failed, Request, Result, Scored, ScoreRequest
from orin_runner.runner import Noise, OnProgress, Progress, RunStats, no_progress

SECONDS = 0.03
"""What each answer takes."""
HEADER = {"engine": "x", "time": "now"}


class Slow:
    """Answers with a lead of 0.1 times the request's number, ten tokens each; may be interrupted before one of them."""

    max_context = 64

    def __init__(self, noise: float, stops_before: int | None = None) -> None:
        self.stats = RunStats()
        self._noise, self._stops = noise, stops_before

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        noise, n = Noise(1, self._noise, self._noise, 3 * self._noise), len(requests)  # prompts of a token each
        self.stats = RunStats(score_noise=noise, sent=n, unique=n)
        for i, request in enumerate(requests):
            if i == self._stops:
                raise KeyboardInterrupt
            time.sleep(SECONDS)
            lead = 0.1 * int(request.prompt[0])
            yield i, Scored((np.array([-1.0]), np.array([-1.0 - lead])), (True, False))
            stats = self.stats
            stats.computed, stats.checked = stats.computed + 10, stats.checked + 1
            stats.clocks["prefill"] = stats.clocks.get("prefill", 0.0) + SECONDS
            on_progress(Progress(stats.computed, stats.unique, stats.sent))


def questions(n: int) -> list[Question]:
    choices = tuple(np.array([k], np.int32) for k in range(2))
    return [
        Question(Doc(str(i), "g", "?", "choose", ("A", "B"), ("A", "B"), "A"), ScoreRequest(np.array([i]), choices))
        for i in range(n)
    ]


def part(folder: Path, runner: Slow, *, resume: bool = False, n: int = 10) -> dict[str, Any]:
    """One part of a run; its section of the report."""
    prepared = Prepared(get_task("winogrande"), questions(n), {"data": 0.5, "tokenize": 0.25})
    with RunWriter(folder, HEADER, resume=resume) as writer:
        section = evaluate(prepared, None, runner, writer, {}, lambda _: None)  # type: ignore[arg-type]
        writer.report({"tasks": {"winogrande": section}})
    return section


def test_an_interrupted_run_says_what_passed(tmp_path: Path) -> None:
    """Four answers took four times as long as one; nothing is said of the others."""
    before = time.perf_counter()
    section = part(tmp_path, Slow(0.1, stops_before=4))
    passed = time.perf_counter() - before
    assert (section["items"], section["unanswered"]) == (4, 6)
    assert section["tokens"] == {"sent": 4, "unique": 4, "computed": 40, "checked": 4}, "six are asked again"
    assert 4 * SECONDS <= section["clocks"]["inference"] <= passed
    assert section["items_per_s"] == pytest.approx(4 / (section["clocks"]["inference"] + 0.25), rel=1e-3)
    assert section["clocks"]["challenge 2024"] == pytest.approx(section["clocks"]["inference"] + 0.75, abs=1e-3)


def test_a_resumed_run_says_what_all_its_parts_took(tmp_path: Path) -> None:
    """Interrupted twice and resumed twice: items, tokens, seconds, noise and near-ties as of one run."""
    seconds = [part(tmp_path, Slow(0.11, stops_before=4))["clocks"]["inference"]]
    seconds.append(part(tmp_path, Slow(0.04, stops_before=3), resume=True)["clocks"]["inference"])
    section = part(tmp_path, Slow(0.02), resume=True)
    assert (section["items"], section["resumed"], section["without_record"]) == (10, 7, 0)
    assert section["tokens"]["computed"] == 100
    assert (section["tokens"]["sent"], section["tokens"]["unique"]) == (10, 10), "as if all had been asked once"
    assert section["tokens"]["checked"] == 10
    noise = section["noise"]["scores"]
    assert (noise["compared"], noise["largest"]) == (3, 0.11), "of all parts"
    assert noise["rms"] == pytest.approx(((0.11**2 + 0.04**2 + 0.02**2) / 3) ** 0.5)
    assert noise["near_tie"] == pytest.approx(0.33)
    assert section["near_ties"] == 5, "leads of 0 to 0.4: two choices of one token move by 0.33 times the root of 2"
    assert section["clocks"]["inference"] > seconds[1] > seconds[0]
    assert section["clocks"]["inference"] >= 10 * SECONDS
    assert section["clocks"]["data"] == pytest.approx(1.5), "read three times"
    assert section["items_per_s"] == pytest.approx(10 / (section["clocks"]["inference"] + 0.75), rel=1e-3)


def test_a_part_that_was_killed_has_left_what_it_took(tmp_path: Path) -> None:
    """Its folder as it was in mid-run: no report. A run from before there were records says what it does not know."""
    part(tmp_path / "killed", Slow(0.1, stops_before=4))
    (tmp_path / "killed" / "report.json").unlink()
    section = part(tmp_path / "killed", Slow(0.0), resume=True)
    assert (section["tokens"]["computed"], section["near_ties"], section["without_record"]) == (100, 5, 0)
    part(tmp_path / "old", Slow(0.1, stops_before=4))
    (tmp_path / "old" / "parts.json").unlink()
    section = part(tmp_path / "old", Slow(0.0), resume=True)
    assert (section["items"], section["resumed"], section["without_record"]) == (10, 4, 4)
    assert section["tokens"]["computed"] == 60
    assert section["items_per_s"] == pytest.approx(6 / (section["clocks"]["inference"] + 0.25), rel=1e-3)


class NoMemory(Slow):
    """Denies the first request."""

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        yield 0, Failed("needs 9 tokens of context, memory now allows 8")
        for i, result in super().run(requests[1:], on_progress):
            yield i + 1, result


def test_what_memory_denied_is_asked_again_and_was_not_answered_before(tmp_path: Path) -> None:
    """Items left out for memory are no resumed ones, and a run that is taken up tries them."""
    section = part(tmp_path, NoMemory(0.1))
    assert (section["failed"], section["resumed"]) == (1, 0)
    short = Slow(0.1)
    short.max_context = 0
    section = part(tmp_path, short, resume=True)
    assert (section["failed"], section["resumed"], section["without_record"]) == (1, 9, 0)
    section = part(tmp_path, Slow(0.1), resume=True)
    assert (section["failed"], section["resumed"], section["items"]) == (0, 9, 10)
    assert len(Run.open(tmp_path).predictions) == 10


def test_two_workers_cost_what_both_cost() -> None:
    """Sums, and both samples of the noise as one."""
    one = RunStats(computed=5, checked=2, score_noise=Noise(3, 0.2, 0.3, 0.9), clocks={"prefill": 1.0, "plan": 0.5})
    other = RunStats(computed=7, checked=1, score_noise=Noise(1, 0.4, 0.4, 0.5), clocks={"prefill": 2.0})
    one.device.tokens, other.device.idle_s = 5, 0.25
    both = one.together(other)
    assert (both.computed, both.checked, both.text_noise) == (12, 3, Noise())
    noise = both.score_noise
    assert (noise.n, noise.rms, noise.largest, noise.near_tie) == (4, pytest.approx(0.07**0.5), 0.4, 0.9)
    assert both.clocks == {"prefill": 3.0, "plan": 0.5}
    assert (both.device.tokens, both.device.idle_s) == (5, 0.25)


def test_the_process_begins_where_the_kernel_says_it_does() -> None:
    """Before its first line: a child's age is what has passed since it was started, imports included."""
    code = (
        "import time; time.sleep(0.3); from orin_runner.process_clock import process_started as started; "
        "print(time.perf_counter() - started())"
    )
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    passed = time.perf_counter() - before
    assert 0.3 <= float(done.stdout) <= passed + 0.02
    assert process_started() < time.perf_counter()
