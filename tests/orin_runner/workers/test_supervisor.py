"""Workers that die: nothing is lost, nothing is asked twice of those who answer, and it is said."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import Needs
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Failed, Scored, context_tokens
from orin_runner.workers.supervisor import MAX_DEATHS_WITHOUT_PROGRESS, Supervisor, WorkerDiedError
from orin_runner.workers.worker import Job
from tests.support.commands import orin_run, orin_run_begun
from tests.support.engine_cases import log_softmax, score_requests
from tests.support.fake_llama import reference
from tests.support.fake_worker import (
    N_BATCH,
    N_VOCAB,
    dies_at_once,
    dies_behind_the_last_answer,
    dies_twice,
    dies_when_measured,
    dies_while_loading,
    finds_less_memory,
    finds_no_memory,
    loads_once,
    never_loads,
    refuses,
    serve,
)


def job(model: Path) -> Job:
    return Job(model, Needs(100), (), None, 1.0, 1, draft=True)


def run(target: Callable[[Connection, Job], None], notes: list[str]) -> tuple[Supervisor, list[tuple[int, Scored]]]:
    """Ask forty requests of ``target``'s workers."""
    requests = score_requests(random.Random(3), 40)
    answers = []
    supervisor = Supervisor(job(Path("unused")), notes.append, serve=target)
    with supervisor:
        supervisor.start()
        for i, result in supervisor.run(requests):
            assert isinstance(result, Scored)
            answers.append((i, result))
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
    with Supervisor(job(Path("unused")), lambda _: None, serve=serve) as supervisor:
        supervisor.start()
        left = supervisor.run(requests)
        next(left)
        left.close()
        for part in (requests[:3], requests[3:6]):
            answers = dict(supervisor.run(part))
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
    supervisor = Supervisor(job(log), lambda _: None, serve=dies_at_once)
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
    with Supervisor(job(Path("unused")), lambda _: None, serve=finds_less_memory) as supervisor:
        supervisor.start()
        found = dict(supervisor.run(requests))
    assert sorted(found) == list(range(40))
    unfit = {i for i, result in found.items() if isinstance(result, Failed)}
    assert unfit
    assert all(context_tokens(requests[i]) > 20 for i in unfit)
    assert sum(context_tokens(request) > 20 for request in requests) - len(unfit) <= 20  # answered before the death
    with Supervisor(job(Path("unused")), lambda _: None, serve=finds_no_memory) as supervisor:
        supervisor.start()
        with pytest.raises(WorkerDiedError, match=r"memory has become too short .* answers are kept: .* --resume"):
            list(supervisor.run(requests))


@pytest.mark.parametrize("how", [signal.SIGABRT, signal.SIGKILL])
def test_the_real_worker_killed_in_mid_run(tmp_path: Path, tiny: Path, how: signal.Signals) -> None:
    """``orin-run eval`` on llama.cpp: same answers as an undisturbed run, every item once."""
    model = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), model, Options())
    arguments = ("eval", "exam", "--model", model)
    quiet = orin_run(*arguments, "--out", tmp_path / "quiet")
    assert quiet.returncode == 0, quiet.stderr
    assert "died" not in quiet.stderr
    predictions = tmp_path / "run" / "predictions.jsonl"
    disturbed = orin_run_begun(*arguments, "--out", tmp_path / "run")
    while not predictions.exists() or predictions.stat().st_size == 0:
        assert disturbed.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{disturbed.pid}/task/{disturbed.pid}/children").read_text().split()
    commands = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children}
    (worker,) = [pid for pid, line in commands.items() if b"orin_runner.workers.worker" in line]
    os.kill(worker, how)
    _, stderr = disturbed.communicate(timeout=300)
    assert disturbed.returncode == 0, stderr
    assert f"the engine died ({how.name}" in stderr
    rows = [json.loads(line) for line in predictions.read_text().splitlines()]
    assert len(rows) == len({row["id"] for row in rows}) == 480
    calm, again = Run.open(tmp_path / "quiet"), Run.open(tmp_path / "run")
    for key, prediction in calm.predictions.items():
        assert again.predictions[key].prediction == prediction.prediction
    assert again.report["restarts"] == 1


def test_a_worker_measures_and_goes_on() -> None:
    """After a run, on its context; the next run's answers are complete."""
    requests = score_requests(random.Random(3), 12)
    with Supervisor(job(Path("unused")), lambda _: None, serve=serve) as supervisor:
        supervisor.start()
        for _ in range(2):
            answers = list(supervisor.run(requests))
            assert sorted(i for i, _ in answers) == list(range(12))
            rate = supervisor.prompt_rate()
            assert rate is not None
            assert rate.tokens == rate.calls * N_BATCH
            assert rate.calls >= 3
        left = supervisor.run(requests)
        next(left)
        left.close()
        assert supervisor.prompt_rate() is not None
        assert len(list(supervisor.run(requests))) == 12


def test_a_worker_that_dies_of_it_costs_no_answer() -> None:
    """None is known then, and nobody is started for it."""
    with Supervisor(job(Path("unused")), lambda _: None, serve=dies_when_measured) as supervisor:
        supervisor.start()
        answers = list(supervisor.run(score_requests(random.Random(3), 5)))
        assert len(answers) == 5
        assert supervisor.prompt_rate() is None
        assert supervisor.prompt_rate() is None
        assert supervisor.deaths == 0


def test_memory_that_others_took_before_the_next_run() -> None:
    """The worker that lives has less than the first one had: what does not fit has failed, and nothing else."""
    requests = score_requests(random.Random(3), 40)
    with Supervisor(job(Path("unused")), lambda _: None, serve=finds_less_memory) as supervisor:
        supervisor.start()
        for _ in range(2):
            found = dict(supervisor.run(requests))
            assert sorted(found) == list(range(40))
        short = [context_tokens(request) <= 20 for request in requests]
        assert [isinstance(found[i], Scored) for i in range(40)] == short


def test_a_device_that_is_gone_is_no_mistake(tmp_path: Path) -> None:
    """The model had been loaded before: the run ends as one whose workers die, and can go on."""
    with Supervisor(job(tmp_path / "log"), lambda _: None, serve=loads_once) as supervisor:
        supervisor.start()
        with pytest.raises(WorkerDiedError, match=r"CUDA error: no device.*go on with --resume"):
            list(supervisor.run(score_requests(random.Random(3), 40)))


def test_what_an_early_worker_refuses_is_told(tmp_path: Path) -> None:
    """Though it has ended before anybody listened."""
    with Supervisor(job(tmp_path / "log"), lambda _: None, serve=refuses) as supervisor:
        supervisor.begin()
        supervisor._process._process.wait()
        with pytest.raises(UserError, match="this is no model"):
            supervisor.start()


@pytest.mark.parametrize("dies", [False, True])
def test_a_worker_that_was_begun_early(tiny_gguf: Path, *, dies: bool) -> None:
    """It has the model before it knows what is asked; one that dies meanwhile is followed by another."""
    file, notes = GGUFFile.open(tiny_gguf), []
    requests = [request for request in score_requests(random.Random(3), 30) if len(request.prompt)]
    with Supervisor(Job.of(file, []), notes.append) as supervisor:
        supervisor.begin()
        if dies:
            supervisor._process.kill()
        supervisor.plan_for(Job.of(file, requests))
        supervisor.start()
        assert supervisor.deaths == len(notes) == dies
        assert supervisor.max_context >= max(context_tokens(request) for request in requests)
        assert sorted(i for i, _ in supervisor.run(requests)) == list(range(len(requests)))


def test_a_file_that_is_replaced_during_the_run_is_refused(tiny_gguf: Path, tmp_path: Path) -> None:
    """The answers of the worker that follows would be another file's."""
    model = Path(shutil.copy(tiny_gguf, tmp_path / "m.gguf"))
    requests = [request for request in score_requests(random.Random(3), 30) if len(request.prompt)]
    with Supervisor(Job.of(GGUFFile.open(model), requests), lambda _: None) as supervisor:
        supervisor.start()
        supervisor._process.kill()
        Path(shutil.copy(tiny_gguf, tmp_path / "other")).replace(model)
        with pytest.raises(WorkerDiedError, match="replaced or changed"):
            list(supervisor.run(requests))
