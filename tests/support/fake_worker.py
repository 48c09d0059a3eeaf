"""Worker processes around the fake backend, some of which die on the way."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.engine.prompt_rate import prompt_rate
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.model.llama import ContextSettings
from orin_runner.requests import context_tokens
from orin_runner.workers import worker
from orin_runner.workers.messages import (
    Answers,
    GiveBack,
    GivenBack,
    Job,
    Loaded,
    MeasurePromptRate,
    Planned,
    Refused,
    ToWorker,
)
from orin_runner.workers.packed_requests import unpack
from tests.support.fake_llama import FakeContext

N_VOCAB = 32
N_BATCH = 64
POISON = N_VOCAB - 1
PATIENCE_S = 60.0
ASSERT = "GGML_ASSERT(n_tokens > 0) failed"


class _Mortal:
    """A worker's end of its pipe; the process dies once so many answers have been sent."""

    def __init__(self, connection: Connection, answers: int, how: int) -> None:
        self._connection, self._left, self._how = connection, answers, how
        self.recv, self.poll = connection.recv, connection.poll

    def send(self, message: Any) -> None:
        self._connection.send(message)
        if isinstance(message, Answers):
            self._left -= len(message.results)
            if self._left <= 0:
                os.kill(os.getpid(), self._how)


class _Patient:
    """A worker's end of its pipe; behind its first batch it waits until something is asked."""

    def __init__(self, connection: Connection) -> None:
        self.recv, self.send, self._poll = connection.recv, connection.send, connection.poll
        self._patience: float | None = PATIENCE_S

    def poll(self) -> bool:
        patience, self._patience = self._patience, 0.0
        return self._poll(patience)


def serve(
    connection: Connection,
    job: Job,
    die_after: int | None = None,
    how: int = signal.SIGABRT,
    measured: str = "lives",
    limit: int | None = None,
    poisoned: Callable[[], None] | None = None,
    patient: bool = False,
) -> None:
    """Answer requests with the fake; with ``die_after``, die once that many answers have been sent.

    ``limit``: context tokens that memory allows, as the plan says; 0 for nothing. ``poisoned``: called where a request
    with the token ``POISON`` is about to be computed.
    """
    settings = ContextSettings(600, max(8, int(N_BATCH * job.share)), 64, 64)
    device = DeviceMemory("fake", 1 << 30, unified=True, cuda=False, present=True, note="")
    plan = MemoryPlan(device, settings, 1, {}, (), (), job.needs.longest, fits=True)
    connection.send(Planned(plan, job.needs.longest if limit is None else limit))
    if limit == 0:
        return
    connection.send(Loaded(0.0, 0, 1, N_VOCAB, (), {}))
    context = FakeContext(600, n_batch=settings.n_batch, n_outputs=64, n_vocab=N_VOCAB)
    engine = Engine([context], Budget(600, settings.n_batch, 256, 64), n_chunk=4, n_positions=600)
    line: object = connection if die_after is None else _Mortal(connection, die_after, how)
    line = _Patient(connection) if patient else line
    later: list[ToWorker] = []
    try:
        while True:
            asked = later.pop(0) if later else connection.recv()
            if die_after == 0 or (measured == "dies" and isinstance(asked, MeasurePromptRate)):
                os.kill(os.getpid(), how)
            if isinstance(asked, MeasurePromptRate):
                connection.send(prompt_rate(context, settings.n_batch, min_seconds=0.0))
                continue
            if isinstance(asked, GiveBack):
                connection.send(GivenBack(()))
                continue
            requests = unpack(asked.requests)
            if limit is not None and any(context_tokens(request) > limit for request in requests):
                connection.send(Refused("a request does not fit the context", "shorten it"))  # as the engine does
                return
            if poisoned is not None and any(POISON in request.prompt for request in requests):
                poisoned()
            later += worker.answer(cast("Connection", line), engine, asked)
    except EOFError:
        pass


def waits_to_be_asked(connection: Connection, job: Job) -> None:
    """Goes on behind its first batch only when it has been asked to give something back."""
    serve(connection, job, patient=True)


def dies_twice(connection: Connection, job: Job) -> None:
    """The first worker aborts, the second is killed, the third lives: told apart by the shrinking share."""
    if job.share > 0.6:
        serve(connection, job, 5, signal.SIGABRT)
    elif job.share > 0.3:
        serve(connection, job, 3, signal.SIGKILL)
    else:
        serve(connection, job)


def dies_behind_the_last_answer(connection: Connection, job: Job) -> None:
    """Answers forty requests, and aborts before it says that it is done."""
    serve(connection, job, 40)


def dies_when_measured(connection: Connection, job: Job) -> None:
    """Answers everything, and aborts when it is asked for its limit."""
    serve(connection, job, measured="dies")


def dies_at_once(connection: Connection, job: Job) -> None:
    """No worker ever answers; each leaves a line in the file that stands for the model."""
    with Path(job.model).open("a", encoding="utf-8") as file:
        file.write("started\n")
    serve(connection, job, 0, signal.SIGABRT)


def dies_while_loading(connection: Connection, job: Job) -> None:
    """The first worker aborts before its model is loaded; the one with half the memory does not."""
    if job.share > 0.6:
        os.kill(os.getpid(), signal.SIGABRT)
    serve(connection, job)


def never_loads(_connection: Connection, _job: Job) -> None:
    """Every worker aborts before its model is loaded."""
    os.kill(os.getpid(), signal.SIGABRT)


def finds_less_memory(connection: Connection, job: Job) -> None:
    """The first worker dies, and for the second there is memory for requests of 20 tokens."""
    serve(connection, job, *((5,) if job.share > 0.6 else ()), limit=None if job.share > 0.6 else 20)


def finds_no_memory(connection: Connection, job: Job) -> None:
    """The first worker dies, and for the second there is no memory at all."""
    serve(connection, job, *((5,) if job.share > 0.6 else ()), limit=None if job.share > 0.6 else 0)


def asserts(message: str = ASSERT) -> None:
    """End as ``ggml_abort`` does."""
    print(f"/build/ggml/src/ggml.c:{os.getpid()}: {message}", file=sys.stderr)
    os.kill(os.getpid(), signal.SIGABRT)


def asserts_on_poison(connection: Connection, job: Job) -> None:
    """Every worker aborts of the requests with poison."""
    serve(connection, job, poisoned=asserts)


def raises_on_poison(connection: Connection, job: Job) -> None:
    """Every worker raises a bug's exception because of them."""
    serve(connection, job, poisoned=lambda: [][len(os.environ)])


def asserts_once(connection: Connection, job: Job) -> None:
    """The first worker aborts after five answers, the others live: the file that stands for the model says which."""
    first = not Path(job.model).exists()
    Path(job.model).touch()
    serve(connection, job, poisoned=asserts if first else None)


def asserts_always(connection: Connection, job: Job) -> None:
    """Every worker aborts of whatever it is asked; each leaves a line in the file that stands for the model."""
    with Path(job.model).open("a", encoding="utf-8") as file:
        file.write("started\n")
    connection.recv = _asserting(connection.recv)  # type: ignore[method-assign]
    serve(connection, job)


def asserts_with_a_cache(connection: Connection, job: Job) -> None:
    """A worker aborts of whatever it is asked, if it has a prompt cache."""
    if job.prompt_cache is not None:
        connection.recv = _asserting(connection.recv)  # type: ignore[method-assign]
    serve(connection, job)


def _asserting(receive: Callable[[], Any]) -> Callable[[], Any]:
    def received() -> Any:
        receive()
        asserts()

    return received


def runs_out_of_memory(connection: Connection, job: Job) -> None:
    """The poison takes more CUDA memory than there is, until a worker has a quarter."""

    def poisoned() -> None:
        print("CUDA error: out of memory\n  in function alloc at ggml-cuda.cu:512", file=sys.stderr)
        asserts("CUDA error")

    serve(connection, job, poisoned=poisoned if job.share > 0.3 else None)


def asserts_while_loading(connection: Connection, job: Job) -> None:
    """llama.cpp aborts on the file."""
    with Path(job.model).open("a", encoding="utf-8") as file:
        file.write("started\n")
    asserts()


def fits_nothing(connection: Connection, job: Job) -> None:
    """Its plan does not fit."""
    serve(connection, job, limit=0)


def fits_short_ones(connection: Connection, job: Job) -> None:
    """Its plan has room for requests of 20 tokens."""
    serve(connection, job, limit=20)


def loads_once(connection: Connection, job: Job) -> None:
    """The first worker dies after five answers, the others of their device: the file that stands for the model says."""
    first = not Path(job.model).exists()
    Path(job.model).touch()
    if not first:
        asserts("CUDA error: no device")
    serve(connection, job, 5)


def refuses(connection: Connection, _first: object) -> None:
    """Says at once what is wrong, and ends."""
    connection.send(Refused("this is no model", "name another"))


def loads_for_ever(_connection: Connection, _job: object) -> None:
    """Never says anything."""
    time.sleep(600)
