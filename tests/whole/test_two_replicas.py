"""Two replicas on a processor give the answers of one, whatever becomes of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.runs.run import Run
from tests.support.commands import orin_run, orin_run_begun
from tests.support.waiting import runs, until

LIMIT = 60


@pytest.fixture(scope="module", autouse=True)
def two_cpus() -> Iterator[None]:
    """This test's processes may run on two CPUs, though others have been given one each."""
    before = os.sched_getaffinity(0)
    if (os.cpu_count() or 1) < 2:
        pytest.skip("two replicas need two CPUs")
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    yield
    os.sched_setaffinity(0, before)


def arguments(model: Path, out: Path, *more: str) -> list[str]:
    return ["eval", "exam", "--limit", str(LIMIT), "--model", str(model), "--out", str(out), *more]


@pytest.fixture(scope="module")
def alone(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The run with one worker."""
    out = tmp_path_factory.mktemp("alone") / "run"
    done = orin_run(*arguments(tiny_gguf, out))
    assert done.returncode == 0, done.stderr
    return Run.open(out)


def begun(model: Path, out: Path, *more: str, n_answers: int = 1) -> tuple[subprocess.Popen[str], list[int]]:
    """A run of two replicas in the middle, and its workers."""
    process = orin_run_begun(*arguments(model, out, "--replicas", "2", *more))
    predictions = out / "predictions.jsonl"
    until(lambda: predictions.exists() and predictions.read_bytes().count(b"\n") >= n_answers, 120)
    # Both were started by threads, whose children /proc lists under them.
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    children = [pid for task in tasks for pid in (task / "children").read_text().split()]
    lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    workers = [pid for pid, line in lines.items() if b"orin_runner.workers.worker" in line]
    assert len(workers) == 2
    return process, workers


def check_same(run: Run, alone: Run) -> None:
    """Every item once, with its answer; little is computed twice."""
    lines = (run.directory / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == len({json.loads(line)["id"] for line in lines}) == LIMIT
    for key, prediction in alone.predictions.items():
        other = run.predictions[key]
        assert (other.prediction, other.text, other.tokens_sha256) == (
            prediction.prediction,
            prediction.text,
            prediction.tokens_sha256,
        )


def test_the_answers_are_those_of_one(tiny_gguf: Path, tmp_path: Path, alone: Run) -> None:
    """Both take part; tokens and accuracy are those of one run."""
    done = orin_run(*arguments(tiny_gguf, tmp_path / "run", "--replicas", "2"))
    assert done.returncode == 0, done.stderr
    assert f"2 replicas on {os.cpu_count()} CPUs" in done.stderr
    run = Run.open(tmp_path / "run")
    check_same(run, alone)
    one, two = (each.report["tasks"]["exam"] for each in (alone, run))
    assert one["tokens"]["sent"] == two["tokens"]["sent"]
    assert one["tokens"]["unique"] == two["tokens"]["unique"]
    assert one["accuracy"] == two["accuracy"]
    assert sum(each["items"] for each in two["replicas"]) == LIMIT
    assert all(each["items"] for each in two["replicas"])
    assert sum(each["computed"] for each in two["replicas"]) == two["tokens"]["computed"]
    # Its clock is the wall's, not the sum of two.
    assert two["clocks"]["prefill"] + two["clocks"]["decode"] <= two["clocks"]["inference"]
    assert run.header["replicas"] == [each["name"] for each in two["replicas"]]


def test_one_is_killed(tiny_gguf: Path, tmp_path: Path, alone: Run) -> None:
    """Another takes its place, and the run says so."""
    process, workers = begun(tiny_gguf, tmp_path / "run")
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    assert "the engine died (SIGKILL)" in said
    run = Run.open(tmp_path / "run")
    check_same(run, alone)
    assert run.report["restarts"] == 1


def test_the_run_is_killed_and_resumed(tiny_gguf: Path, tmp_path: Path, alone: Run) -> None:
    """Its workers end with it; another run goes on, with one replica as well as with two."""
    process, workers = begun(tiny_gguf, tmp_path / "run", n_answers=20)
    process.kill()
    process.communicate()
    until(lambda: not any(map(runs, workers)))
    done = orin_run(*arguments(tiny_gguf, tmp_path / "run", "--resume"))
    assert done.returncode == 0, done.stderr
    check_same(Run.open(tmp_path / "run"), alone)


def test_ctrl_c(tiny_gguf: Path, tmp_path: Path, alone: Run) -> None:
    """The report is of what is answered; no worker is left; --resume goes on."""
    process, workers = begun(tiny_gguf, tmp_path / "run", n_answers=20)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert not any(map(runs, workers))
    section = Run.open(tmp_path / "run").report["tasks"]["exam"]
    assert section["items"] + section["unanswered"] == LIMIT
    done = orin_run(*arguments(tiny_gguf, tmp_path / "run", "--replicas", "2", "--resume"))
    assert done.returncode == 0, done.stderr
    check_same(Run.open(tmp_path / "run"), alone)
