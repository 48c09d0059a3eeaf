"""Kills at random moments: the program, its worker or both, by every signal; a run always comes to its end.

The moment is a time, or when a file of the run appears. What was killed is gone on with, and begun anew in another
folder when it is done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.commands import ORIN_RUN, orin_run
from tests.support.moments import heeds_signals, started, wait_for_a_moment
from tests.support.waiting import until

ITEMS = 48
KINDS = (
    ("program", signal.SIGKILL),
    ("group", signal.SIGKILL),
    ("worker", signal.SIGKILL),
    ("worker", signal.SIGABRT),
    ("program", signal.SIGTERM),
    ("program", signal.SIGHUP),
    ("group", signal.SIGINT),
)
FILES = ("predictions.jsonl", "run.json", "samples.jsonl", "parts.json", "report.json", "report.html")
LANDED = 0.7
"""Share of the kills that must end something."""
SURVIVAL_S = 1.0
"""A worker may outlive its parent by so much."""


@dataclass(frozen=True)
class Undisturbed:
    """Answers by id of a run that nobody disturbs, and the seconds that it took."""

    answers: dict[str, str]
    seconds: float


class Runs:
    """One run after another in folders of their own, each killed until it comes to its end.

    Attributes:
        finished: runs that came to their end.
        landed: kills that found alive what they were to end.
    """

    def __init__(self, folder: Path, model: Path, expected: Undisturbed) -> None:
        self._folder, self._model, self._expected = folder, model, expected
        self.finished = self.landed = 0

    @property
    def _out(self) -> Path:
        return self._folder / f"run-{self.finished}"

    def begin(self) -> subprocess.Popen[str]:
        """Start the run at hand, or go on with it."""
        words = ["eval", "exam", "--model", str(self._model), "--limit", str(ITEMS), "--out", str(self._out)]
        resume = ["--resume"] if (self._out / "run.json").exists() else []
        return started([*ORIN_RUN, *words, *resume])

    def kill_once(self, rng: random.Random, who: str, how: signal.Signals) -> None:
        """Start, kill at a random moment, and look at what is left."""
        process = self.begin()
        if how == signal.SIGINT:
            until(partial(heeds_signals, process))
        while who == "worker" and process.poll() is None and not workers_of(process.pid):
            time.sleep(0.001)
        names = FILES[:-1] if who == "worker" else FILES  # there is none when the page is written
        wait_for_a_moment(process, rng, [self._out / name for name in names], self._expected.seconds)
        workers = workers_of(process.pid)
        with suppress(ProcessLookupError):
            if who == "group":
                os.killpg(process.pid, how)
            elif who == "program":
                process.send_signal(how)
            elif workers:
                os.kill(workers[0], how)
                self.landed += 1
        output, errors = process.communicate(timeout=300)
        assert "Traceback" not in errors, errors
        if who != "worker":
            time.sleep(SURVIVAL_S)
            assert not [pid for pid in workers if is_worker(pid)], "a worker outlived its parent"
        self.landed += who != "worker" and process.returncode in {-how, 128 + how}
        if process.returncode == 0:
            self.check(output)
            self.finished += 1

    def finish(self) -> None:
        """Go on with what is left, undisturbed."""
        process = self.begin()
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        self.check(output)

    def check(self, output: str) -> None:
        """Every item once, and the answers of a run that nobody disturbed."""
        assert answers(self._out) == self._expected.answers
        assert "run written to" in output
        report = json.loads((self._out / "report.json").read_text(encoding="utf-8"))
        section = report["tasks"]["exam"]
        assert (section["items"], section["failed"]) == (ITEMS, 0)
        assert not list(self._out.glob("*.partial"))


def answers(out: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    found = {line["id"]: line["prediction"] for line in lines}
    assert len(found) == len(lines), "an item stands there twice"
    return found


def is_worker(pid: int) -> bool:
    try:
        return b"orin_runner.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def workers_of(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(child) for child in children if is_worker(int(child))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Undisturbed:
    out, began = tmp_path_factory.mktemp("run") / "run", time.monotonic()
    orin_run("eval", "exam", "--model", model, "--limit", str(ITEMS), "--out", out).check_returncode()
    return Undisturbed(answers(out), time.monotonic() - began)


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 8), *(pytest.param(seed, 50, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_a_killed_run_comes_to_its_end(
    tmp_path: Path, model: Path, undisturbed: Undisturbed, seed: int, kills: int
) -> None:
    """The slow ones are 200 kills in all. One that comes when all is done ends nothing, and is counted as such."""
    rng, file = random.Random(seed), model.read_bytes()
    runs = Runs(tmp_path, model, undisturbed)
    for number in range(kills):
        runs.kill_once(rng, *KINDS[number % len(KINDS)])
    runs.finish()
    assert runs.landed >= int(LANDED * kills)
    assert model.read_bytes() == file
