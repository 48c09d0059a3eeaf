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
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.commands import ORIN_RUN

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
SURVIVAL_S = 1.0
"""A worker may outlive its parent by so much."""


class Runs:
    """One run after another in folders of their own, each killed until it comes to its end.

    Attributes:
        finished: runs that came to their end.
    """

    def __init__(self, folder: Path, model: Path, expected: dict[str, str]) -> None:
        self._folder, self._model, self._expected = folder, model, expected
        self.finished = 0

    @property
    def _out(self) -> Path:
        return self._folder / f"run-{self.finished}"

    def begin(self) -> subprocess.Popen[str]:
        """Start the run at hand, or go on with it."""
        words = ["eval", "exam", "--model", str(self._model), "--limit", str(ITEMS), "--out", str(self._out)]
        resume = ["--resume"] if (self._out / "run.json").exists() else []
        return subprocess.Popen(
            [*ORIN_RUN, *words, *resume],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def kill_once(self, rng: random.Random, who: str, how: signal.Signals) -> None:
        """Start, kill at a random moment, and look at what is left."""
        process = self.begin()
        self._wait_for_a_moment(rng, process)
        workers = workers_of(process.pid)
        with suppress(ProcessLookupError):  # it has ended meanwhile
            if who == "group":
                os.killpg(process.pid, how)
            elif who == "program":
                process.send_signal(how)
            elif workers:
                os.kill(workers[0], how)
        output, errors = process.communicate(timeout=300)
        assert "Traceback" not in errors, errors
        if who != "worker":
            time.sleep(SURVIVAL_S)
            assert not [pid for pid in workers if is_worker(pid)], "a worker outlived its parent"
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
        assert answers(self._out) == self._expected
        assert "run written to" in output
        report = json.loads((self._out / "report.json").read_text(encoding="utf-8"))
        section = report["tasks"]["exam"]
        assert (section["items"], section["failed"]) == (ITEMS, 0)
        assert not list(self._out.glob("*.partial"))

    def _wait_for_a_moment(self, rng: random.Random, process: subprocess.Popen[str]) -> None:
        name = rng.choice([None, *FILES])
        if name is None:
            time.sleep(rng.uniform(0.0, 4.0))
            return
        # Files of the run to go on with are there already: then it is the time at which this one is written again.
        path, before = self._out / name, self._written(name)
        while process.poll() is None and (not path.exists() or self._written(name) == before):
            time.sleep(0.001)
        time.sleep(rng.uniform(0.0, 0.02))

    def _written(self, name: str) -> int:
        path = self._out / name
        return path.stat().st_mtime_ns if path.exists() else 0


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
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, str]:
    """Answers of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("run") / "run"
    words = ["eval", "exam", "--model", model, "--limit", str(ITEMS), "--out", out]
    subprocess.run([sys.executable, "-m", "orin_runner", *map(str, words)], check=True, capture_output=True)
    return answers(out)


@pytest.mark.parametrize(
    ("seed", "kills"), [(0, 8), *(pytest.param(seed, 50, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))]
)
def test_a_killed_run_comes_to_its_end(
    tmp_path: Path, model: Path, undisturbed: dict[str, str], seed: int, kills: int
) -> None:
    """The slow ones are 200 kills in all."""
    rng, file = random.Random(seed), model.read_bytes()
    runs = Runs(tmp_path, model, undisturbed)
    for number in range(kills):
        runs.kill_once(rng, *KINDS[number % len(KINDS)])
    runs.finish()
    assert model.read_bytes() == file
