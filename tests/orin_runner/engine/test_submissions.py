"""Decode calls on a thread of their own: the caller goes on, bookkeeping waits, errors arrive."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from orin_runner.batching.batch import Batch, BatchBuilder, Copy, Cut
from orin_runner.engine.device_clock import DeviceClock
from orin_runner.engine.executor import Executor
from orin_runner.model.llama import DecodeError
from orin_runner.runner import DecodeStats
from tests.support.fake_llama import FakeContext

PATIENCE_S = 20.0


class Gate(FakeContext):
    """Submits when it is let, and notes which calls came in which order."""

    def __init__(self) -> None:
        super().__init__(32)
        self.entered, self.let = threading.Event(), threading.Event()
        self.calls: list[str] = []
        self.fails = False

    def submit(self, batch: Batch) -> None:
        self.entered.set()
        assert self.let.wait(PATIENCE_S)
        if self.fails:
            raise DecodeError("llama_decode returned -3")
        super().submit(batch)
        self.calls.append("submit")

    def copy(self, src: int, dst: int, end: int) -> None:
        super().copy(src, dst, end)
        self.calls.append("copy")

    def cut(self, seq: int, start: int) -> None:
        super().cut(seq, start)
        self.calls.append("cut")


def tokens(*ids: int, start: int = 0, seq: int = 0) -> BatchBuilder:
    """A batch of one sequence's tokens, a row after the last."""
    builder = BatchBuilder()
    builder.add(np.array(ids, dtype=np.int32), start, seq)
    builder.flag(np.array([len(ids) - 1]))
    return builder


def branch() -> Batch:
    """A token of sequence 1 behind the first two of sequence 0."""
    builder = tokens(7, start=2, seq=1)
    builder.copies.append(Copy(0, 1, 2))
    return builder.build()


def test_submit_returns_before_the_backend_does_and_copies_wait_for_it() -> None:
    """What prepares the next batch must not change cells while ``llama_decode`` looks for them."""
    gate = Gate()
    executor = Executor(gate, own_thread=True)
    first = tokens(1, 2, 3)
    first.cuts.append(Cut(0, 2))
    executor.submit(first.build())
    assert gate.entered.wait(PATIENCE_S)
    assert not gate.calls, "the call has not ended, and its caller has gone on"
    threading.Timer(0.1, gate.let.set).start()
    executor.prepare(branch())
    assert gate.calls == ["submit", "cut", "copy"]
    executor.rest()


def test_calls_of_two_contexts_run_at_once() -> None:
    """The second is in its submission while the first still is."""
    gates = [Gate(), Gate()]
    executors = [Executor(gate, own_thread=True) for gate in gates]
    for executor in executors:
        executor.submit(tokens(1, 2, 3).build())
    assert all(gate.entered.wait(PATIENCE_S) for gate in gates)
    for gate in gates:
        gate.let.set()
    for executor in executors:
        assert executor.rows(1).shape == (1, 32)
        executor.rest()


def test_a_submission_is_counted_once_and_not_as_waiting() -> None:
    """However often it is waited for: by ``prepare`` of the next batch, and by ``rows``."""
    gate, stats = Gate(), DecodeStats()
    executor = Executor(gate, own_thread=True)
    executor.count_into(DeviceClock(stats), DecodeStats())
    executor.submit(tokens(1, 2, 3).build())
    threading.Timer(0.2, gate.let.set).start()
    executor.prepare(branch())
    executor.rows(1)
    assert 0.1 < stats.submit_s < 0.39
    assert stats.wait_s < 0.1
    executor.rest()


def test_rest_waits_for_the_thread() -> None:
    """The context may be freed behind it."""
    gate = Gate()
    executor = Executor(gate, own_thread=True)
    executor.submit(tokens(1, 2, 3).build())
    threading.Timer(0.1, gate.let.set).start()
    executor.rest()
    assert gate.calls == ["submit"]


@pytest.mark.parametrize("asked", ["prepare", "rows", "state"])
def test_a_refused_batch_is_told_by_the_next_call(asked: str) -> None:
    """Whatever comes next; a run that begins afterwards knows nothing of it."""
    gate = Gate()
    gate.fails = True
    gate.let.set()
    executor = Executor(gate, own_thread=True)
    executor.submit(tokens(1, 2, 3).build())
    calls = {
        "prepare": lambda: executor.prepare(branch()),
        "rows": lambda: executor.rows(1),
        "state": lambda: executor.state(0),
    }
    with pytest.raises(DecodeError, match="-3"):
        calls[asked]()
    executor.rest()
    gate.fails = False
    executor.submit(tokens(1, 2, 3).build())
    assert executor.rows(1).shape == (1, 32)
    executor.rest()
