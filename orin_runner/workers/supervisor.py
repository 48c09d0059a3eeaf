"""Keeps a run going when its worker dies: the unanswered requests go on in a new one, with half the memory."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from types import TracebackType

from orin_runner.engine.noise import near_tie
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.errors import RunError, UserError
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.requests import Request, Result, Unfit, context_tokens
from orin_runner.runner import OnProgress, Progress, RunStats, no_progress
from orin_runner.workers import worker
from orin_runner.workers.messages import (
    Answers,
    Done,
    FromWorker,
    Job,
    Loaded,
    Loading,
    MeasurePromptRate,
    Note,
    Planned,
    Refused,
)

MAX_DEATHS_WITHOUT_PROGRESS = 4
"""After so many workers in a row that answered nothing, the cause is not the budget."""
CLOSE_S = 10
"""Seconds a worker has to end by itself."""
NOTHING = Progress(0, 0, 0)


class WorkerDiedError(RunError):
    """Workers keep dying without answering anything."""


class DoesNotFitError(RunError):
    """Not even the shortest request fits into memory. ``plan`` says by how much."""

    def __init__(self, plan: MemoryPlan) -> None:
        super().__init__(plan.advice)
        self.plan = plan


class Supervisor:
    """Runs requests in a worker process (``orin_runner.runner.Runner``).

    Args:
        job: what the worker is started with.
        on_note: called with a line when a worker died and another one takes over.
        on_loading: called with the share of the weights that is loaded.
        serve: the worker's own function, at the top level of its module; tests put another in its place.

    Attributes:
        plan: the memory plan in force.
        max_context: tokens of context; requests that need more have to be left out.
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
        serve: worker.Serve = worker.serve,
    ) -> None:
        self._job = job
        self._on_note = on_note
        self._on_loading = on_loading
        self._serve = serve
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self._owed = False  # the worker has more to say about requests it was sent
        self.stats = RunStats()
        self.deaths = 0
        self.plan: MemoryPlan
        self.max_context: int
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
        self._process, self._connection = worker.start(self._job, self._serve)
        try:
            for message in self._messages():
                if isinstance(message, Planned):
                    self.plan, self.max_context = message.plan, message.max_context
                    if not message.max_context:
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
                self._process.wait(timeout=CLOSE_S)
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

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Unfit]]:
        """Answer every request exactly once, whatever happens to the workers.

        A run that is not read to its end is computed to its end all the same before the next one begins. A request
        that no longer fits after a worker's death, because others have taken the memory, comes back ``Unfit``.

        Raises:
            WorkerDiedError: workers keep dying without answering anything, or nothing at all fits any more.
        """
        self.stats = RunStats(near_tie=near_tie(0.0))
        open_requests = dict(enumerate(requests))
        costs = _Costs()
        in_vain = 0  # deaths in a row without an answer
        while open_requests:
            n_open = len(open_requests)
            try:
                if self._process is None:
                    self._start_again(len(requests) - n_open, len(requests))
                    yield from self._unfit(open_requests)
                yield from self._ask(open_requests, costs, on_progress)
            except (_WorkerLostError, BrokenPipeError):
                costs.worker_lost()
                in_vain = 0 if len(open_requests) < n_open else in_vain + 1
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

    def _unfit(self, open_requests: dict[int, Request]) -> Iterator[tuple[int, Unfit]]:
        """Take out the requests for which memory has become too short."""
        needed = {i: context_tokens(request) for i, request in open_requests.items()}
        for i in [i for i, n in needed.items() if n > self.max_context]:
            del open_requests[i]
            yield i, Unfit(f"needs {needed[i]} tokens of context, memory now allows {self.max_context}")

    def _ask(
        self, open_requests: dict[int, Request], costs: _Costs, on_progress: OnProgress
    ) -> Iterator[tuple[int, Result]]:
        """Send all open requests to the worker; takes out those that it answers."""
        assert self._connection is not None
        if self._owed:  # the last run was not read to its end
            next(message for message in self._messages() if isinstance(message, Done))
        order = list(open_requests)
        self._connection.send([open_requests[i] for i in order])
        self._owed = True
        for message in self._messages():
            if isinstance(message, Answers):
                for k, result in message.results:
                    del open_requests[order[k]]
                    yield order[k], result
                if message.progress is not None:
                    progress = costs.update(message.progress)
                    self.stats = costs.into(message.stats)
                    on_progress(progress)
            elif isinstance(message, Done):
                self._owed = False
                costs.update(Progress(message.stats.computed, message.stats.unique, message.stats.sent))
                self.stats = costs.into(message.stats)
                break

    def prompt_rate(self) -> PromptRate | None:
        """The rate of plain prompt processing on the context that computed the run; None if the worker has died.

        No other one is started for it: its context would be another.
        """
        if self._process is None:
            return None
        assert self._connection is not None
        try:
            self._connection.send(MeasurePromptRate())
            rate = next(found for found in self._messages() if isinstance(found, PromptRate))
        except (_WorkerLostError, BrokenPipeError):
            return None
        self._owed = False  # it has been read past
        return rate

    def _messages(self) -> Iterator[FromWorker]:
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


@dataclass(slots=True)
class _Costs:
    """What a run costs over all its workers, each of which knows only the requests it was sent.

    Attributes:
        asked: the tokens of all requests, nothing computed; None until the first worker has counted them.
        lost: by workers that died: tokens computed, and what their texts added to the others.
        begun: the first that the worker at work has said.
        own: by the worker at work, since then.
        lost_stats, own_stats: what else workers that died have cost, and the one at work.
    """

    asked: Progress | None = None
    lost: Progress = NOTHING
    begun: Progress | None = None
    own: Progress = NOTHING
    lost_stats: RunStats = field(default_factory=RunStats)
    own_stats: RunStats = field(default_factory=RunStats)

    def update(self, now: Progress) -> Progress:
        """The worker is so far; how far the run is."""
        self.begun = self.begun or now
        self.asked = self.asked or replace(self.begun, computed=0)
        self.own = Progress(now.computed, now.unique - self.begun.unique, now.sent - self.begun.sent)
        return _sum(self.asked, self.lost, self.own)

    def worker_lost(self) -> None:
        """Another worker goes on."""
        self.lost = _sum(self.lost, self.own)
        self.lost_stats = self.lost_stats.together(self.own_stats)
        self.begun, self.own, self.own_stats = None, NOTHING, RunStats()

    def into(self, stats: RunStats) -> RunStats:
        """What the whole run has cost, where ``stats`` are the worker's own."""
        self.own_stats = stats
        assert self.asked is not None
        total = _sum(self.asked, self.lost, self.own)
        together = self.lost_stats.together(stats)
        return replace(together, computed=total.computed, unique=total.unique, sent=total.sent)


def _sum(*parts: Progress) -> Progress:
    return Progress(*(sum(getattr(part, name) for part in parts) for name in ("computed", "unique", "sent")))


class _WorkerLostError(Exception):
    """The worker closed its end of the pipe without a word."""
