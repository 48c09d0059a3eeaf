"""Keeps a run going when its worker dies: the unanswered requests go on in a new one, with half the memory."""

from __future__ import annotations

import multiprocessing
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from types import TracebackType

from orin_runner.engine.engine import Progress, RunStats
from orin_runner.engine.prompt_rate import MeasureLimit, PromptRate
from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.requests import Request, Result, Unfit, context_tokens
from orin_runner.workers.worker import Answers, Done, Job, Loaded, Loading, Message, Note, Planned, Refused, serve

MAX_DEATHS_WITHOUT_PROGRESS = 4
"""After so many workers in a row that answered nothing, the cause is not the budget."""


class WorkerDiedError(RuntimeError):
    """Workers keep dying without answering anything."""


class DoesNotFitError(Exception):
    """Not even the shortest request fits into memory. ``plan`` says by how much."""

    def __init__(self, plan: MemoryPlan) -> None:
        super().__init__(plan.advice)
        self.plan = plan


_NOTHING = Progress(0, 0, 0)


def _sum(*parts: Progress) -> Progress:
    return Progress(*(sum(getattr(part, name) for part in parts) for name in ("computed", "unique", "sent")))


def _since(begun: Progress, now: Progress) -> Progress:
    """What a worker has computed, and what its texts have added since it began to the tokens of all that was asked."""
    return Progress(now.computed, now.unique - begun.unique, now.sent - begun.sent)


class Supervisor:
    """Runs requests in a worker process (a drop-in for ``Engine.run``).

    Args:
        job: what the worker is started with.
        on_note: called with a line when a worker died and another one takes over.
        on_loading: called with the share of the weights that is loaded.
        target: the worker's main function, at the top of its module; tests put another in its place.

    Attributes:
        plan: the memory plan in force.
        limit: requests that need more tokens than this have to be left out.
        loaded: what the worker runs on.
        stats: what the last run cost, over all its workers.
        deaths: workers lost so far.

    Raises:
        DoesNotFitError, UserError: by ``start``.
    """

    def __init__(
        self,
        job: Job,
        on_note: Callable[[str], None],
        on_loading: Callable[[float], None] = lambda _: None,
        target: Callable[[Connection, Job], None] = serve,
    ) -> None:
        self._job = job
        self._on_note = on_note
        self._on_loading = on_loading
        self._target = target
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._owed = False  # the worker has more to say about requests it was sent
        self.stats = RunStats()
        self.deaths = 0
        self.plan: MemoryPlan
        self.limit: int
        self.loaded: Loaded

    def start(self) -> None:
        """Start a worker and wait until its model is loaded; another one with half the memory if it dies of that.

        Raises:
            WorkerDiedError: one after another dies.
        """
        deaths = 0
        while not self._started():
            deaths += 1
            self._bury(deaths, "while it was loading", "trying again with")

    def _started(self) -> bool:
        """Start one worker; False if it died before its model was loaded."""
        # Not multiprocessing.Process: that would import the caller's own script again, and run it if nothing guards it.
        ours, theirs = multiprocessing.Pipe()
        target = self._target
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; from multiprocessing.connection import Connection; "
            f"from {target.__module__} import {target.__name__} as serve; "
            f"connection = Connection({theirs.fileno()}); serve(connection, connection.recv())"
        )
        self._process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[theirs.fileno()])
        theirs.close()
        self._connection = ours
        ours.send(self._job)
        try:
            for message in self._messages():
                if isinstance(message, Planned):
                    self.plan, self.limit = message.plan, message.limit
                    if not message.limit:
                        raise DoesNotFitError(message.plan)
                elif isinstance(message, Loading):
                    self._on_loading(message.share)
                elif isinstance(message, Loaded):
                    self.loaded = message
                    break
        except _WorkerLostError:
            return False
        return True

    def close(self) -> None:
        """End the worker."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and self._process is not None:
            self._process.kill()
        self.close()

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result | Unfit] | Progress]:
        """Answer every request exactly once, whatever happens to the workers.

        A run that is not read to its end is computed to its end all the same before the next one begins. A request
        that no longer fits after a worker's death, because others have taken the memory, comes back ``Unfit``.

        Raises:
            WorkerDiedError: workers keep dying without answering anything, or nothing at all fits any more.
        """
        self.stats = RunStats()
        open_requests = dict(enumerate(requests))
        asked: Progress | None = None  # the tokens of all requests, nothing computed
        lost = _NOTHING  # by workers that died
        in_vain = 0  # deaths in a row without an answer
        while open_requests:
            order = list(open_requests)
            own = _NOTHING  # by this worker
            begun: Progress | None = None
            try:
                if self._process is None:
                    self._start_again(len(requests) - len(open_requests), len(requests))
                    for i in [i for i in order if context_tokens(open_requests[i]) > self.limit]:
                        needed = context_tokens(open_requests.pop(i))
                        yield i, Unfit(f"needs {needed} tokens of context, memory now allows {self.limit}")
                    order = list(open_requests)
                assert self._connection is not None
                if self._owed:  # the last run was not read to its end
                    next(message for message in self._messages() if isinstance(message, Done))
                self._connection.send([open_requests[i] for i in order])
                self._owed = True
                for message in self._messages():
                    if isinstance(message, Answers):
                        for k, result in message.results:
                            del open_requests[order[k]]
                            yield order[k], result
                        if message.progress is not None:
                            begun = begun or message.progress
                            asked = asked or replace(begun, computed=0)
                            own = _since(begun, message.progress)
                            yield _sum(asked, lost, own)
                    elif isinstance(message, Done):
                        self._owed = False
                        stats = message.stats
                        last = Progress(stats.computed, stats.unique, stats.sent)
                        if asked and begun:
                            last = _sum(asked, lost, _since(begun, last))
                        self.stats = replace(stats, computed=last.computed, unique=last.unique, sent=last.sent)
                        break
            except (_WorkerLostError, BrokenPipeError):
                lost = _sum(lost, own)
                if asked:
                    last = _sum(asked, lost)
                    self.stats = RunStats(computed=last.computed, unique=last.unique, sent=last.sent)
                in_vain = 0 if len(open_requests) < len(order) else in_vain + 1
                left = f"with {len(open_requests)} of {len(requests)} requests unanswered"
                self._bury(in_vain, left, "going on with these in a new one and")

    def _start_again(self, answered: int, total: int) -> None:
        try:
            self.start()
        except DoesNotFitError as error:
            raise WorkerDiedError(
                f"memory has become too short for any request ({error.plan.advice}); {answered} of {total} answers are "
                f"kept: free memory and go on with --resume"
            ) from error

    def measure_limit(self) -> PromptRate | None:
        """The rate of plain prompt processing on the context that computed the run; None if the worker has died.

        No other one is started for it: its context would be another.
        """
        if self._process is None:
            return None
        assert self._connection is not None
        try:
            self._connection.send(MeasureLimit())
            rate = next(found for found in self._messages() if isinstance(found, PromptRate))
        except (_WorkerLostError, BrokenPipeError):
            return None
        self._owed = False  # it has been read past
        return rate

    def _messages(self) -> Iterator[Message]:
        assert self._connection is not None
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, ConnectionResetError) as error:
                raise _WorkerLostError from error
            if isinstance(message, Refused):
                raise UserError(message.message, message.hint)
            if isinstance(message, Note):
                self._on_note(message.text)
            else:
                yield message

    def _bury(self, in_vain: int, when: str, what_next: str) -> None:
        """Note a worker's death, and halve the memory for the next one."""
        assert self._process is not None
        code = self._process.wait()
        how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        self._process = None
        self._owed = False
        self.deaths += 1
        if in_vain >= MAX_DEATHS_WITHOUT_PROGRESS:
            raise WorkerDiedError(f"the engine died {in_vain} times in a row without an answer (last: {how}, {when})")
        self._job = replace(self._job, share=self._job.share / 2)
        self._on_note(f"the engine died ({how}) {when}: {what_next} half the memory for cache and buffers")


class _WorkerLostError(Exception):
    """The worker closed its end of the pipe without a word."""
