"""Workers that die: nothing is lost, nothing is asked twice of those who answer, and it is said."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from fake_llama import reference
from fake_worker import (
    N_VOCAB,
    dies_at_once,
    dies_behind_the_last_answer,
    dies_twice,
    dies_while_loading,
    finds_less_memory,
    finds_no_memory,
    never_loads,
    serve,
)
from shapes import PHI3_MEDIUM, header_only
from test_engine import log_softmax, score_requests

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from orin_runner.engine.engine import Engine, Progress
from orin_runner.machine.memory_plan import Needs
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Generated, Request, Result, Scored, Unfit, context_tokens
from orin_runner.workers.supervisor import MAX_DEATHS_WITHOUT_PROGRESS, Supervisor, WorkerDiedError
from orin_runner.workers.worker import Job, _answer


class DiesWhileDecoding:
    """An engine that ends a text in each of two batches and no more."""

    def run(self, _requests: Sequence[Request]) -> Iterator[tuple[int, Result] | Progress]:
        yield Progress(10, 20, 30)
        for i in range(2):
            yield i, Generated(np.zeros(1, np.int32), True, 1.0, -1.0, 1, 0)
            yield Progress(11 + i, 20, 30)
        raise MemoryError


def job(model: Path) -> Job:
    return Job(model, Needs(100), (), None, 1.0, 1, draft=True)


def run(target: Callable[[Connection, Job], None], notes: list[str]) -> tuple[Supervisor, list[tuple[int, Scored]]]:
    """Ask forty requests of ``target``'s workers."""
    requests = score_requests(random.Random(3), 40)
    answers = []
    supervisor = Supervisor(job(Path("unused")), notes.append, target=target)
    with supervisor:
        supervisor.start()
        for event in supervisor.run(requests):
            if not isinstance(event, Progress):
                assert isinstance(event[1], Scored)
                answers.append((event[0], event[1]))
    for i, result in answers:
        row = reference(requests[i].prompt.tolist(), N_VOCAB)
        expected = log_softmax(row)[requests[i].continuations[0][0]]
        assert result.logprobs[0][0] == pytest.approx(expected, abs=1e-5)
    return supervisor, answers


def test_a_worker_that_dies_behind_its_last_answer() -> None:
    """Nothing is left to do, and what it cost is known."""
    supervisor, answers = run(dies_behind_the_last_answer, [])
    assert sorted(i for i, _ in answers) == list(range(40))
    whole, _ = run(serve, [])
    for name in ("computed", "unique", "sent"):
        assert getattr(supervisor.stats, name) == getattr(whole.stats, name) > 0


def test_an_undisturbed_worker() -> None:
    """Every request answered once, with the engine's statistics."""
    notes: list[str] = []
    supervisor, answers = run(serve, notes)
    assert sorted(i for i, _ in answers) == list(range(40))
    assert notes == []
    assert supervisor.stats.computed == supervisor.stats.unique > 0


def test_a_run_that_is_left_early_does_not_answer_for_the_next() -> None:
    """What the worker still says about the first requests is not taken for answers to the others."""
    requests = score_requests(random.Random(3), 40)
    with Supervisor(job(Path("unused")), lambda _: None, target=serve) as supervisor:
        supervisor.start()
        left = supervisor.run(requests)
        next(event for event in left if not isinstance(event, Progress))
        left.close()
        for part in (requests[:3], requests[3:6]):
            answers = dict(event for event in supervisor.run(part) if not isinstance(event, Progress))
            assert sorted(answers) == [0, 1, 2]
            for i, result in answers.items():
                assert isinstance(result, Scored)
                row = reference(part[i].prompt.tolist(), N_VOCAB)
                expected = log_softmax(row)[part[i].continuations[0][0]]
                assert result.logprobs[0][0] == pytest.approx(expected, abs=1e-5)


def test_two_deaths_lose_and_repeat_nothing() -> None:
    """SIGABRT as llama.cpp dies, SIGKILL as the kernel kills: the rest goes on with half the memory each time."""
    notes: list[str] = []
    supervisor, answers = run(dies_twice, notes)
    assert sorted(i for i, _ in answers) == list(range(40))
    assert supervisor.deaths == 2
    assert "SIGABRT" in notes[0]
    assert "SIGKILL" in notes[1]
    assert all("half the memory" in note for note in notes)
    # What the dead had computed is counted: it was paid for.
    assert supervisor.stats.computed > supervisor.stats.unique


def test_workers_that_never_answer_are_not_started_for_ever(tmp_path: Path) -> None:
    """The cause is then not the budget; what was answered stays answered."""
    log = tmp_path / "starts"
    supervisor = Supervisor(job(log), lambda _: None, target=dies_at_once)
    with supervisor:
        supervisor.start()
        with pytest.raises(WorkerDiedError, match="died 4 times in a row without an answer"):
            list(supervisor.run(score_requests(random.Random(1), 5)))
    assert len(log.read_text().splitlines()) == MAX_DEATHS_WITHOUT_PROGRESS


def test_a_worker_that_dies_while_loading_is_replaced() -> None:
    """As when another process takes the memory between plan and load; the next one plans anew, for half as much."""
    notes: list[str] = []
    supervisor, answers = run(dies_while_loading, notes)
    assert len(answers) == 40
    assert supervisor.deaths == 1
    assert notes == [
        "the engine died (SIGABRT) while it was loading: trying again with half the memory for cache and buffers"
    ]
    with pytest.raises(WorkerDiedError, match="died 4 times in a row"):
        run(never_loads, [])


def test_memory_that_others_took_in_mid_run() -> None:
    """What no longer fits is reported, the rest answered; where nothing fits, the run says so and how to go on."""
    requests = score_requests(random.Random(3), 40)
    with Supervisor(job(Path("unused")), lambda _: None, target=finds_less_memory) as supervisor:
        supervisor.start()
        found = dict(event for event in supervisor.run(requests) if not isinstance(event, Progress))
    assert sorted(found) == list(range(40))
    unfit = {i for i, result in found.items() if isinstance(result, Unfit)}
    assert unfit
    assert all(context_tokens(requests[i]) > 20 for i in unfit)
    assert sum(context_tokens(request) > 20 for request in requests) - len(unfit) <= 20  # answered before the death
    with Supervisor(job(Path("unused")), lambda _: None, target=finds_no_memory) as supervisor:
        supervisor.start()
        with pytest.raises(WorkerDiedError, match=r"memory has become too short .* answers are kept: .* --resume"):
            list(supervisor.run(requests))


LOAD = """
import resource, sys
from pathlib import Path
from orin_runner.model.llama import DecodeError, Model
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    Model(Path(sys.argv[1]))
except DecodeError as error:
    print(error)
"""


def test_a_lack_of_memory_for_the_weights_is_not_taken_for_a_bad_file(tmp_path: Path) -> None:
    """26 GiB of weights, all of them a hole in the file, where 8 GiB may be allocated."""
    model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM)
    file = GGUFFile.open(model)
    os.truncate(model, model.stat().st_size + file.data_bytes)
    done = subprocess.run([sys.executable, "-c", LOAD, str(model)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"no memory for the weights of {model}")


@pytest.mark.parametrize("how", [signal.SIGABRT, signal.SIGKILL])
def test_the_real_worker_killed_in_mid_run(tmp_path: Path, tiny: Path, how: signal.Signals) -> None:
    """``orin-run eval`` on llama.cpp: same answers as an undisturbed run, every item once."""
    model = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), model, Options())
    command = [
        sys.executable,
        "-m",
        "orin_runner",
        "eval",
        "exam",
        "--model",
        str(model),
    ]
    quiet = subprocess.run([*command, "--out", str(tmp_path / "quiet")], capture_output=True, check=True)
    assert b"died" not in quiet.stderr
    predictions = tmp_path / "run" / "predictions.jsonl"
    disturbed = subprocess.Popen([*command, "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True)
    while not predictions.exists() or predictions.stat().st_size == 0:
        assert disturbed.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{disturbed.pid}/task/{disturbed.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    (worker,) = [pid for pid, line in commands.items() if b"orin_runner.workers.worker" in line]
    os.kill(worker, how)
    _, stderr = disturbed.communicate(timeout=300)
    assert disturbed.returncode == 0, stderr
    assert f"the engine died ({how.name})" in stderr
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 480
    calm, again = Run.open(tmp_path / "quiet"), Run.open(tmp_path / "run")
    for key, prediction in calm.predictions.items():
        assert again.predictions[key].prediction == prediction.prediction
    assert again.report["restarts"] == 1


def test_texts_are_handed_over_as_they_end() -> None:
    """Decoding may take hours: what has ended by then is kept."""
    ours, theirs = Pipe()
    with pytest.raises(MemoryError):
        _answer(theirs, cast("Engine", DiesWhileDecoding()), [])
    theirs.close()
    # The prompts' batch, and each text's; a text held back would be the end of the pipe here.
    assert [[i for i, _ in ours.recv().results] for _ in range(3)] == [[], [0], [1]]
