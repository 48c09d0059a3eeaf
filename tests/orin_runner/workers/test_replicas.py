"""Several workers share a run: every request once, what it cost, and what becomes of those that are lost."""

from __future__ import annotations

import random
import signal
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from orin_runner.engine.noise import SCORE_PATHS_ENOUGH
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.machine.memory_plan import Needs
from orin_runner.requests import Failed, GenerateRequest, Request, Result, Scored, ScoreRequest, context_tokens
from orin_runner.runner import DecodeStats, Progress, RunStats
from orin_runner.workers.death import Death
from orin_runner.workers.messages import Job
from orin_runner.workers.process import Function, WorkerProcess
from orin_runner.workers.replicas import Replica, Replicas
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor
from orin_runner.workers.verdict import WorkerDiedError
from tests.support.engine_cases import answers, generate_requests, log_softmax, score_requests
from tests.support.fake_llama import reference
from tests.support.fake_worker import (
    N_VOCAB,
    dies_at_once,
    dies_twice,
    finds_less_memory,
    finds_no_memory,
    fits_nothing,
    fits_short_ones,
    loads_for_ever,
    loads_once,
    never_loads,
    serve,
    waits_to_be_asked,
)
from tests.support.waiting import until


def replicas(
    serves: Sequence[Function],
    notes: list[str],
    log: Path = Path("unused"),
    spawns: Mapping[int, type[WorkerProcess]] | None = None,
) -> Replicas:
    job = Job(log, Needs(100), (), None, 1.0, 1, draft=True)
    found = []
    for k, function in enumerate(serves):
        spawn = (spawns or {}).get(k, WorkerProcess)
        found.append(Replica(f"worker {k}", Supervisor(job, notes.append, serve=function, spawn=spawn)))
    return Replicas(found, notes.append)


def check(requests: Sequence[Request], found: dict[int, Result]) -> None:
    """The results are those of one request after the other."""
    for i, request in enumerate(requests):
        result = found[i]
        if isinstance(request, GenerateRequest):
            continue
        assert isinstance(result, Scored)
        row = reference([*request.prompt.tolist()], N_VOCAB)
        assert result.logprobs[0][0] == pytest.approx(log_softmax(row)[request.continuations[0][0]], abs=1e-5)


@pytest.mark.parametrize("n", [1, 3])
def test_answers_and_costs_are_those_of_one(n: int) -> None:
    """Scores and texts; sent and unique tokens of the whole, though each worker knows its pieces only."""
    rng = random.Random(4)
    requests: list[Request] = [*score_requests(rng, 60), *generate_requests(rng, 30, 0)]
    rng.shuffle(requests)
    notes: list[str] = []
    with replicas([serve], notes) as one:
        one.start()
        alone = answers(one, requests)
        whole = one.stats
    progress: list[Progress] = []
    with replicas([serve] * n, notes) as several:
        several.start()
        found = dict(several.run(requests, progress.append))
        stats = several.stats
    assert notes == []
    check(requests, found)
    for i, request in enumerate(requests):
        if isinstance(request, GenerateRequest):
            assert found[i].tokens.tolist() == alone[i].tokens.tolist()
    assert stats.sent == whole.sent
    assert whole.unique <= stats.unique <= 1.02 * whole.unique  # texts in several pieces may share tokens
    assert stats.unique <= stats.computed
    assert [p.computed for p in progress] == sorted(p.computed for p in progress)
    assert progress[-1].computed == stats.computed == sum(replica.total.computed for replica in several.replicas)
    assert sum(replica.items for replica in several.replicas) == len(requests)
    assert all(replica.items for replica in several.replicas)


def test_unique_tokens_of_scores_do_not_depend_on_the_number() -> None:
    """They are counted once, however the tree is cut."""
    requests = score_requests(random.Random(5), 80)
    counts = set()
    for n in (1, 4):
        with replicas([serve] * n, []) as several:
            several.start()
            assert len(dict(several.run(requests))) == 80
            counts.add((several.stats.unique, several.stats.sent))
            # All together measure the noise on eight paths of at most 44 tokens.
            assert 0 < several.stats.checked <= 8 * 44
    assert len(counts) == 1


def test_what_one_has_not_begun_is_handed_on() -> None:
    """One of two waits behind its first batch until it is asked; its counts and the noise are those of all pieces."""
    rng = random.Random(5)
    prompts = [np.array([rng.randrange(N_VOCAB) for _ in range(20)], dtype=np.int32) for _ in range(400)]
    requests = [ScoreRequest(prompt, (prompt[:1],)) for prompt in prompts]
    with replicas([waits_to_be_asked, serve], []) as several:
        several.start()
        found = list(several.run(requests))
        stats, (slow, fast) = several.stats, several.replicas
    assert sorted(i for i, _ in found) == list(range(400))
    check(requests, dict(found))
    assert fast.items > slow.items > 0
    # What is given back is counted by the one that computes it; at each cut a prefix is computed twice.
    assert stats.unique <= stats.computed <= 1.05 * stats.unique
    assert stats.computed == slow.total.computed + fast.total.computed
    assert stats.checked == SCORE_PATHS_ENOUGH * 20


def test_a_worker_that_is_lost_is_restarted(tmp_path: Path) -> None:
    """Two deaths in one replica cost no answer, and no other replica."""
    notes: list[str] = []
    requests = score_requests(random.Random(3), 120)
    with replicas([dies_twice, serve], notes, tmp_path / "log") as several:
        several.start()
        found = list(several.run(requests))
        assert several.deaths == 2
    assert sorted(i for i, _ in found) == list(range(120))
    check(requests, dict(found))
    assert len(notes) == 2


def test_the_others_go_on_where_one_is_lost_for_good(tmp_path: Path) -> None:
    """It gives up after four workers in a row; what it was at goes to the others, though they had come to the end."""
    notes: list[str] = []
    requests = score_requests(random.Random(3), 60)
    with replicas([serve, dies_at_once, serve], notes, tmp_path / "log") as several:
        several.start()
        found = list(several.run(requests))
    assert sorted(i for i, _ in found) == list(range(60))
    check(requests, dict(found))
    assert notes[-1].startswith("worker 1: the engine died 4 times in a row")
    assert "the others go on" in notes[-1]


class OnALostNode(WorkerProcess):
    """A process whose machine goes with it."""

    def death(self, said: str | None, patience_s: float) -> Death:
        super().death(said, patience_s)
        return Death("lost", "the node is gone", final=True)


def test_nothing_is_started_again_on_a_lost_node(tmp_path: Path) -> None:
    """One death, one line, and the others answer what it leaves."""
    notes: list[str] = []
    requests = score_requests(random.Random(3), 120)
    with replicas([serve, dies_twice], notes, tmp_path / "log", {1: OnALostNode}) as several:
        several.start()
        found = list(several.run(requests))
        assert several.deaths == 1
    assert sorted(i for i, _ in found) == list(range(120))
    check(requests, dict(found))
    assert len(notes) == 1
    assert notes[0].startswith("worker 1: the node is gone, with ")


def test_a_node_that_is_lost_while_loading() -> None:
    """The run begins without it."""
    notes: list[str] = []
    with replicas([never_loads, serve], notes, spawns={0: OnALostNode}) as several:
        several.start()
        assert [replica.name for replica in several.replicas] == ["worker 1"]
    assert notes == ["worker 0: the node is gone, while it was loading: the run goes on without it"]


def test_none_is_left(tmp_path: Path) -> None:
    """The run ends with what the last one said."""
    with replicas([dies_at_once, dies_at_once], [], tmp_path / "log") as several:
        several.start()
        with pytest.raises(WorkerDiedError, match="4 times in a row"):
            list(several.run(score_requests(random.Random(3), 20)))


@pytest.mark.parametrize(
    ("serves", "said"),
    [
        ([serve, never_loads], "the run goes on without it"),
        ([serve, fits_nothing], "the run goes on without it"),
        ([fits_short_ones, serve], "requests of 20 tokens only, others for 100"),
    ],
)
def test_one_that_cannot_start_is_left_out(serves: list[Function], said: str) -> None:
    """Aborts while loading, has no memory, or has memory for short requests only."""
    notes: list[str] = []
    requests = score_requests(random.Random(3), 30)
    with replicas(serves, notes) as several:
        several.start()
        assert [replica.name for replica in several.replicas] == [f"worker {serves.index(serve)}"]
        assert several.max_context == 100
        assert len(dict(several.run(requests))) == 30
    assert said in notes[-1]


def test_none_can_start() -> None:
    """As with one worker: the plan says why."""
    with replicas([fits_nothing, fits_nothing], []) as several, pytest.raises(DoesNotFitError):
        several.start()


@pytest.mark.parametrize("after", [0, 25])
def test_a_run_that_is_left_early_leaves_nothing_behind(after: int) -> None:
    """No thread, no process, whether it is left by an error or not read on."""
    before = threading.active_count()
    with replicas([serve, serve], []) as several:
        several.start()
        run = several.run(score_requests(random.Random(3), 4000))
        for _ in range(after):
            next(run)
        run.close()
    assert threading.active_count() == before


def test_a_run_that_is_left_by_an_error_leaves_nothing_behind() -> None:
    """The same where what is made of an answer fails."""
    before = threading.active_count()
    several = replicas([serve, serve], [])
    several.start()

    def fails() -> None:
        with several:
            for i, _ in several.run(score_requests(random.Random(3), 4000)):
                raise KeyError(i)

    with pytest.raises(KeyError):
        fails()
    assert threading.active_count() == before


def test_one_whose_memory_shrinks() -> None:
    """What no longer fits it is answered by one that has room, in this run and in the next."""
    requests = score_requests(random.Random(3), 120)
    notes: list[str] = []
    with replicas([finds_less_memory, finds_no_memory, serve], notes) as several:
        several.start()
        for _ in range(2):
            found = list(several.run(requests))
            assert sorted(i for i, _ in found) == list(range(120))
            check(requests, dict(found))
            assert several.max_context == 100
    assert any("worker 0: memory has become too short for requests beyond 20 tokens" in note for note in notes)


def test_all_have_less_memory() -> None:
    """Where nobody has room left, it has failed, in as many words; the others are answered."""
    requests = score_requests(random.Random(3), 120)
    with replicas([finds_less_memory, finds_less_memory], []) as several:
        several.start()
        found = dict(several.run(requests))
    assert sorted(found) == list(range(120))
    for i, request in enumerate(requests):
        if context_tokens(request) <= 20:
            assert isinstance(found[i], Scored)
        elif isinstance(found[i], Failed):
            assert "memory now allows 20" in found[i].reason
    assert any(isinstance(result, Failed) for result in found.values())


def test_one_whose_device_is_gone(tmp_path: Path) -> None:
    """It says so when it is started again: no mistake of the user's, and the others go on."""
    notes: list[str] = []
    requests = score_requests(random.Random(3), 60)
    with replicas([serve, loads_once], notes, tmp_path / "log") as several:
        several.start()
        found = dict(several.run(requests))
        check(requests, found)
        assert len(found) == 60
    assert "CUDA error: no device" in notes[-1]
    assert notes[-1].endswith("the others go on with what it leaves")


def test_flawed_requests_fail_alone() -> None:
    """No prompt, no choices, a token that the model has not: as with one worker."""
    token, none = np.array([5], dtype=np.int32), np.empty(0, dtype=np.int32)
    flawed = [ScoreRequest(none, (token,)), ScoreRequest(token, ()), ScoreRequest(token + N_VOCAB, (token,))]
    requests = [flawed[0], *score_requests(random.Random(3), 20), *flawed[1:]]
    with replicas([serve, serve], []) as several:
        several.start()
        found = dict(several.run(requests))
    assert sorted(found) == list(range(23))
    assert [i for i in found if isinstance(found[i], Failed)] == [0, 21, 22]


def test_ctrl_c_while_they_load() -> None:
    """Their threads end with it, so that nothing is closed twice, and no worker is left."""
    before = threading.active_count()
    several = replicas([loads_for_ever, loads_for_ever], [])
    timer = threading.Timer(1.0, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        several.start()
    timer.join()
    until(lambda: threading.active_count() == before)
    several.close()


def test_what_two_cost_that_computed_at_once() -> None:
    """Counts are those of both, seconds those of the one that worked longer: a clock is not summed."""
    short = RunStats(
        10, 8, 9, 1, settle_s=0.5, clocks={"plan": 1.0, "prefill": 2.0}, device=DecodeStats(9, 2, 3, 4, 1.0)
    )
    long = RunStats(
        100, 80, 90, 2, settle_s=0.1, clocks={"plan": 0.5, "prefill": 4.0}, device=DecodeStats(90, 7, 5, 6, 3.0)
    )
    for both in (short.beside(long), long.beside(short)):
        assert (both.sent, both.unique, both.computed, both.checked) == (110, 88, 99, 3)
        assert (both.clocks, both.settle_s) == (long.clocks, 0.1)
        assert both.device == DecodeStats(99, 9, 8, 10, 3.0)


class Rated:
    """A supervisor that has measured its rate."""

    def __init__(self, rate: PromptRate | None) -> None:
        self._rate = rate

    def prompt_rate(self) -> PromptRate | None:
        return self._rate


def test_the_rate_is_that_of_all() -> None:
    """The sum, whatever time each has measured for; unknown where one is lost."""
    rates = [PromptRate(1000, 2.0, 4), PromptRate(4500, 3.0, 5)]
    together = Replicas([Replica("", cast("Supervisor", Rated(rate))) for rate in rates], print).prompt_rate()
    assert together is not None
    assert together.tokens_per_s == pytest.approx(500 + 1500)
    assert together.calls == 9
    gone = [Replica("", cast("Supervisor", Rated(rate))) for rate in (rates[0], None)]
    assert Replicas(gone, print).prompt_rate() is None
