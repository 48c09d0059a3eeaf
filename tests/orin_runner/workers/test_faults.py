"""Failures that are no lack of memory: said in a line, not tried again with less of it, and laid to one request."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import Needs
from orin_runner.requests import Failed, GenerateRequest, Request, Result, Scored, ScoreRequest
from orin_runner.workers import verdict
from orin_runner.workers.messages import Job
from orin_runner.workers.process import Function
from orin_runner.workers.supervisor import Supervisor
from orin_runner.workers.verdict import WorkerDiedError
from tests.support.engine_cases import score_requests
from tests.support.fake_worker import (
    ASSERT,
    N_VOCAB,
    POISON,
    asserts_always,
    asserts_on_poison,
    asserts_once,
    asserts_while_loading,
    asserts_with_a_cache,
    raises_on_poison,
    runs_out_of_memory,
    serve,
)


def clean_requests(n: int) -> list[Request]:
    """Requests without poison."""
    made = score_requests(random.Random(3), n)
    return [ScoreRequest(np.minimum(request.prompt, POISON - 1), request.continuations) for request in made]


def poison() -> ScoreRequest:
    """A request that the workers die of."""
    return ScoreRequest(np.array([1, POISON, 3], np.int32), (np.array([4], np.int32),))


def ask(
    target: Function, requests: list[Request], model: Path = Path("unused")
) -> tuple[Supervisor, dict[int, Result | Failed], list[str]]:
    """What comes of ``requests``; each index once."""
    notes: list[str] = []
    with Supervisor(Job(model, Needs(100), (), None, 1.0, 1, draft=True), notes.append, serve=target) as supervisor:
        supervisor.start()
        answers = list(supervisor.run(requests))
    found = dict(answers)
    assert len(found) == len(answers)
    return supervisor, found, notes


@pytest.mark.parametrize(("how", "bad"), [("assert", {0, 5}), ("exception", {7})])
def test_requests_that_workers_die_of_fail_alone(how: str, bad: set[int]) -> None:
    """All others are answered as if nothing had been, memory stays what it is, and the reason is the worker's own."""
    clean = clean_requests(8)
    requests = [poison() if i in bad else request for i, request in enumerate(clean)]
    supervisor, found, notes = ask(asserts_on_poison if how == "assert" else raises_on_poison, requests)
    _, expected, _ = ask(serve, clean)
    assert sorted(found) == list(range(8))
    assert {i for i, result in found.items() if isinstance(result, Failed)} == bad
    for i in set(range(8)) - bad:
        result, other = found[i], expected[i]
        assert isinstance(result, Scored)
        assert isinstance(other, Scored)
        assert result.logprobs[0] == pytest.approx(other.logprobs[0])
    why = ASSERT if how == "assert" else "IndexError: list index out of range (fake_worker.py:"
    for i in bad:
        result = found[i]
        assert isinstance(result, Failed)
        assert why in result.reason
        assert "/build" not in result.reason
    assert all(why in note for note in notes)
    assert not any("memory" in note for note in notes)
    # Once, once more, and then half of them at a time.
    assert supervisor.deaths <= 1 + len(bad) * (2 + len(requests).bit_length())


def test_tokens_of_a_divided_run_are_those_of_its_requests() -> None:
    """What a request costs is counted where it is answered, once."""
    clean = clean_requests(4)
    supervisor, _, _ = ask(asserts_on_poison, [*clean, poison()])
    whole, _, _ = ask(serve, clean)
    assert supervisor.stats.sent == whole.stats.sent
    assert supervisor.stats.computed >= whole.stats.computed


def test_a_failure_that_does_not_come_again_costs_nothing(tmp_path: Path) -> None:
    """The next worker has the same memory, and all that is left."""
    supervisor, found, notes = ask(asserts_once, [*clean_requests(10), poison()], tmp_path / "first")
    assert all(isinstance(result, Scored) for result in found.values())
    assert len(found) == 11
    assert supervisor.deaths == 1
    assert notes[0].startswith("the engine died (SIGABRT: ggml.c:")
    assert notes[0].endswith(f"{ASSERT}) with 11 of 11 requests unanswered: going on with these in a new one")


def test_a_state_that_workers_die_of_costs_the_cache(tmp_path: Path) -> None:
    """The next worker has none, whatever the words were, and no request is blamed."""
    notes: list[str] = []
    cache = PromptCacheOptions(tmp_path, 1 << 20, "model")
    job = Job(Path("unused"), Needs(100), (), None, 1.0, 1, draft=True, prompt_cache=cache)
    requests = clean_requests(4)
    with Supervisor(job, notes.append, serve=asserts_with_a_cache) as supervisor:
        supervisor.start()
        found = dict(supervisor.run(requests))
    assert all(isinstance(found[i], Scored) for i in range(4))
    (note,) = notes
    assert note.endswith("going on with these in a new one, without the prompt cache")


def test_all_that_a_dead_worker_wrote_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The traceback of a bug, beside its line."""
    _, _, quiet = ask(raises_on_poison, [poison()])
    monkeypatch.setenv("ORIN_DEBUG", "1")
    _, _, notes = ask(raises_on_poison, [poison()])
    assert not any("Traceback" in note for note in quiet)
    assert sum("Traceback (most recent call last)" in note for note in notes) == 2


def test_workers_that_die_of_everything_are_not_started_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No request is to blame then."""
    log = tmp_path / "starts"
    monkeypatch.setattr(verdict, "MAX_BLAMED_IN_A_ROW", 2)
    with pytest.raises(WorkerDiedError, match="died of 2 requests in a row, each alone"):
        ask(asserts_always, clean_requests(8), log)
    # All, all again, and then the first half, quarter and eighth, and the second eighth.
    assert len(log.read_text().splitlines()) == 6


def test_a_lack_of_memory_is_halved_as_often_as_it_is_said() -> None:
    """CUDA's own words for it come again and again, and nobody is blamed."""
    supervisor, found, notes = ask(runs_out_of_memory, [*clean_requests(10), poison()])
    assert all(isinstance(result, Scored) for result in found.values())
    assert supervisor.deaths == 2
    assert all("CUDA error: out of memory" in note and "half the memory" in note for note in notes)


def test_a_file_that_llama_cpp_aborts_on_is_refused_at_once(tmp_path: Path) -> None:
    """One start, one line."""
    log = tmp_path / "starts"
    with pytest.raises(
        UserError, match=r"the engine died of .* while it was loading \(SIGABRT: .*GGML_ASSERT"
    ) as caught:
        ask(asserts_while_loading, [], log)
    assert "memory" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(log.read_text().splitlines()) == 1


EMPTY = np.empty(0, np.int32)
ONE = np.array([1], np.int32)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (ScoreRequest(EMPTY, (ONE,)), "its context has no token"),
        (ScoreRequest(EMPTY, (np.array([1, 2], np.int32), ONE), (1, 1)), "its context has no token"),
        (ScoreRequest(ONE, ()), "it does not say what is to be scored"),
        (ScoreRequest(ONE, (ONE, EMPTY)), "0 tokens of a continuation of 0 cannot be scored"),
        (ScoreRequest(ONE, (ONE,), (2,)), "2 tokens of a continuation of 1 cannot be scored"),
        (ScoreRequest(ONE, (ONE,), (1, 1)), "it does not say what is to be scored"),
        (ScoreRequest(np.array([1, N_VOCAB], np.int32), (ONE,)), "token id 32 is not among the model's 32"),
        (ScoreRequest(ONE, (np.array([-1], np.int32),)), "token id -1 is not among the model's 32"),
        (GenerateRequest(EMPTY, frozenset(), 4), "its prompt has no token"),
        (GenerateRequest(np.array([99], np.int32), frozenset(), 4), "token id 99 is not among the model's 32"),
        (GenerateRequest(ONE, frozenset(), 4, (np.array([99], np.int32),)), "token id 99 is not among the model's 32"),
    ],
)
def test_what_no_model_can_answer_never_reaches_it(request_: Request, why: str) -> None:
    """It fails alone, and no worker dies."""
    clean = clean_requests(3)
    supervisor, found, notes = ask(serve, [*clean, request_])
    assert found.pop(3) == Failed(why)
    assert all(isinstance(result, Scored) for result in found.values())
    assert supervisor.deaths == 0
    assert notes == []


def test_a_context_in_the_continuation_is_one() -> None:
    """The tokens before those that are scored."""
    _, found, _ = ask(serve, [ScoreRequest(EMPTY, (np.array([1, 2], np.int32), np.array([1, 3], np.int32)), (1, 1))])
    assert isinstance(found[0], Scored)
