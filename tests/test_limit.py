"""The limit that a run is held against: what is measured, that nothing is lost by it, and what share is claimed."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_llama import FakeContext
from fake_worker import N_BATCH, dies_when_measured, serve
from test_engine import score_requests
from test_supervisor import job

from eval.evaluate import device_section
from eval.report.section import share_of_limit
from orin_runner.batching.batch import Batch
from orin_runner.cli.report import add_limit
from orin_runner.console import Notes
from orin_runner.engine.engine import Progress, RunStats
from orin_runner.engine.executor import DecodeStats
from orin_runner.engine.prompt_rate import PromptRate, prompt_rate
from orin_runner.workers.supervisor import Supervisor


class Timed(FakeContext):
    """A device beside a host: the first call takes 100 s, any other ``seconds``; clearing takes the host 0.07 s.

    A call is taken when the one before is done, as llama.cpp takes it, and returns before it is done itself.
    """

    def __init__(self, seconds: float, n: int) -> None:
        super().__init__(n_cells=n, n_batch=n, n_outputs=1)
        self.now = self.ready = 0.0
        self.seconds = seconds
        self.batches: list[Batch] = []

    def clear(self) -> None:
        super().clear()
        self.now += 0.07

    def submit(self, batch: Batch) -> None:
        assert self.used() == 0, "an empty cache"
        super().submit(batch)
        self.now = max(self.now, self.ready)
        self.ready = self.now + (self.seconds if self.batches else 100.0)
        self.batches.append(batch)

    def logits(self, n: int) -> np.ndarray:
        self.now = max(self.now, self.ready)
        return super().logits(n)


@pytest.mark.parametrize(("seconds", "calls"), [(1.0, 4), (0.5, 7), (0.4, 9), (20.0, 3)])
def test_full_batches_until_both_minimums_are_reached(seconds: float, calls: int) -> None:
    """At least three seconds and three calls; the warm-up is not in it, nor what the host does meanwhile."""
    context = Timed(seconds, 48)
    rate = prompt_rate(context, 48, clock=lambda: context.now)
    assert (rate.calls, rate.tokens) == (calls, 48 * calls)
    assert rate.seconds == pytest.approx(0.07 + calls * seconds)
    assert rate.tokens_per_s == pytest.approx(48 * calls / (0.07 + calls * seconds))
    assert rate.to_json()["tokens_per_call"] == 48
    assert context.decodes == calls + 1
    assert context.used() == 0, "what comes next finds an empty cache"
    for batch in context.batches:
        assert batch.positions.tolist() == list(range(48))
        assert set(batch.seq_ids.tolist()) == {0}
        assert batch.outputs.tolist() == [0] * 47 + [1]
        assert batch.tokens.tolist() == context.batches[0].tokens.tolist()
        assert len(set(batch.tokens.tolist())) > 8


def test_a_worker_measures_and_goes_on() -> None:
    """After a run, on its context; the next run's answers are complete."""
    requests = score_requests(random.Random(3), 12)
    with Supervisor(job(Path("unused")), lambda _: None, target=serve) as supervisor:
        supervisor.start()
        for _ in range(2):
            answers = [event for event in supervisor.run(requests) if not isinstance(event, Progress)]
            assert sorted(i for i, _ in answers) == list(range(12))
            rate = supervisor.measure_limit()
            assert rate is not None
            assert rate.tokens == rate.calls * N_BATCH
            assert rate.calls >= 3
        left = supervisor.run(requests)
        next(left)
        left.close()
        assert supervisor.measure_limit() is not None
        assert len([event for event in supervisor.run(requests) if not isinstance(event, Progress)]) == 12


def test_a_worker_that_dies_of_it_costs_no_answer() -> None:
    """None is known then, and nobody is started for it."""
    with Supervisor(job(Path("unused")), lambda _: None, target=dies_when_measured) as supervisor:
        supervisor.start()
        answers = [e for e in supervisor.run(score_requests(random.Random(3), 5)) if not isinstance(e, Progress)]
        assert len(answers) == 5
        assert supervisor.measure_limit() is None
        assert supervisor.measure_limit() is None
        assert supervisor.deaths == 0


def test_the_share_is_of_what_is_computed_for_the_answers() -> None:
    """900 tokens in 2 s, checks and near-ties apart, are 450 a second; of 500 that is 0.9."""
    clocks = {"prefill": 0.5, "check": 3.0, "decode": 6.5}
    stats = RunStats(clocks=clocks, settle_s=5.0, device=DecodeStats(tokens=900), checked=5000)
    section = {"device": device_section(stats)}
    assert share_of_limit(section, 500.0) == pytest.approx(0.9)
    assert share_of_limit({"device": device_section(RunStats())}, 500.0) is None
    assert share_of_limit({}, 500.0) is None, "a run of the reference"


def test_a_limit_that_was_not_measured_is_not_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted or dead: the report stays as it was, and it is said."""

    def interrupted() -> PromptRate | None:
        raise KeyboardInterrupt

    for measure in (interrupted, lambda: None):
        report: dict[str, Any] = {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        add_limit(report, measure, Notes())
        assert report == {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        assert "was not measured" in capsys.readouterr().err
    add_limit(report, lambda: PromptRate(1500, 3.0, 3), Notes())
    assert report["tasks"]["t"]["share_of_prompt_rate"] == pytest.approx(0.9)
    assert report["prompt_rate"]["tokens_per_s"] == 500
