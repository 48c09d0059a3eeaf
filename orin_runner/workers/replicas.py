"""A run on several workers at once, each with the whole model.

Each replica has a ``Supervisor`` of its own, in a thread of its own, and is handed a stretch of the prefix tree, so
that what is shared is computed by one of them. One that has come to its end takes over half of what another has not
begun (``Shares``). One whose workers keep dying leaves what it has not answered to the others.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from types import TracebackType
from typing import Any

from orin_runner.batching.shares import Shares, Work
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.requests import Failed, GenerateRequest, Request, Result, context_tokens, flaws
from orin_runner.runner import OnProgress, Progress, RunStats, no_progress
from orin_runner.workers.messages import Job, Loaded
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor
from orin_runner.workers.verdict import WorkerDiedError

HANDED_ON = 0.5
"""Share of what a replica has not begun that one takes over which has nothing left."""


@dataclass(slots=True, eq=False)
class Replica:
    """One of several that share a run.

    Attributes:
        name: what it runs on, as shown.
        supervisor: its workers.
        items: requests that it has answered in the last run.
        cost: what it has cost; ``sent`` and ``unique`` are what its texts have added.
        ended_s: seconds from the beginning of that run to the end of its last piece.
        piece: of that, what the piece at work has cost.
        begun: what the worker has said first of that piece; None before.
        lost: takes no part any more.
    """

    name: str
    supervisor: Supervisor
    items: int = 0
    ended_s: float = 0.0
    cost: RunStats = field(default_factory=RunStats)
    piece: RunStats = field(default_factory=RunStats)
    begun: Progress | None = None
    lost: bool = False

    def begin(self) -> None:
        """A run begins."""
        self.items, self.ended_s, self.cost, self.piece, self.begun = 0, 0.0, RunStats(), RunStats(), None

    def update(self, progress: Progress | None, stats: RunStats) -> None:
        """Its worker is so far with the piece at work."""
        if self.begun is None:
            self.begun = progress or Progress(0, stats.unique, stats.sent)
        self.piece = replace(stats, sent=stats.sent - self.begun.sent, unique=stats.unique - self.begun.unique)

    def piece_is_over(self) -> None:
        """It goes on with another, or with none."""
        self.cost = self.cost.together(self.piece)
        self.piece, self.begun = RunStats(), None

    @property
    def total(self) -> RunStats:
        """Of all its pieces."""
        return self.cost.together(self.piece)


class Replicas:
    """Runs requests on several supervisors (``orin_runner.runner.Runner``).

    Args:
        replicas: none of them started; at least one.
        on_note: called with a line when something happens to a replica.

    Attributes:
        replicas: those that take part.
        stats: what the last run cost: counts of all replicas, seconds of the one that worked longest.
    """

    def __init__(self, replicas: Sequence[Replica], on_note: Callable[[str], None]) -> None:
        self.replicas = list(replicas)
        self._on_note = on_note
        self._shares = Shares(Work([]), len(self.replicas), lambda _: None)
        self._threads: list[threading.Thread] = []
        self.stats = RunStats()

    @property
    def plan(self) -> MemoryPlan:
        """The memory plan of the first replica; the others have their own."""
        return self.replicas[0].supervisor.plan

    @property
    def loaded(self) -> Loaded:
        """What the first replica runs on, the others on their own devices; ``seconds`` are those of the slowest."""
        every = [replica.supervisor.loaded for replica in self.replicas]
        return replace(every[0], seconds=max(loaded.seconds for loaded in every))

    @property
    def max_context(self) -> int:
        """Tokens of context that every replica has."""
        return min(replica.supervisor.max_context for replica in self.replicas if not replica.lost)

    @property
    def deaths(self) -> int:
        """Workers lost so far."""
        return sum(replica.supervisor.deaths for replica in self.replicas)

    def begin(self) -> None:
        """Start a worker for each that loads the weights while nothing is known yet of what will be asked."""
        for replica in self.replicas:
            replica.supervisor.begin()

    def plan_for(self, job: Job) -> None:
        """What is asked by ``job``, before ``start``."""
        for replica in self.replicas:
            replica.supervisor.plan_for(job)

    def start(self) -> None:
        """Start all replicas at once. One with less memory than the others is left out, or without enough of it.

        Raises:
            DoesNotFitError, UserError, WorkerDiedError: no replica can start; what the first one says.
        """
        errors: dict[int, BaseException] = {}

        def start(k: int) -> None:
            try:
                self.replicas[k].supervisor.start()
            except BaseException as error:  # noqa: BLE001 - whatever it is, our own thread is to raise it
                errors[k] = error

        threads = [threading.Thread(target=start, args=(k,), daemon=True) for k in range(len(self.replicas))]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        except BaseException:
            self.kill()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
            raise
        mendable = (DoesNotFitError, UserError, WorkerDiedError)
        for _, error in sorted(errors.items()):
            if len(errors) == len(self.replicas) or not isinstance(error, mendable):
                self.kill()
                self.close()
                raise error
        for k, error in sorted(errors.items()):
            self._on_note(f"{self.replicas[k].name}: {error}: the run goes on without it")
        started = [replica for k, replica in enumerate(self.replicas) if k not in errors]
        most = max(replica.supervisor.max_context for replica in started)
        self.replicas = [replica for replica in started if replica.supervisor.max_context == most]
        for replica in started:
            if replica not in self.replicas:
                self._on_note(
                    f"{replica.name} has memory for requests of {replica.supervisor.max_context:,} tokens only, others "
                    f"for {most:,}: the run goes on without it"
                )
                replica.supervisor.close()

    def dismiss(self) -> None:
        """Let all workers end, for nothing more is asked; ``close`` waits for them."""
        for replica in self.replicas:
            replica.supervisor.dismiss()

    def close(self) -> None:
        """End all workers; at once where a run has not come to its end."""
        if any(thread.is_alive() for thread in self._threads):
            self.kill()
        self.dismiss()
        for replica in self.replicas:
            replica.supervisor.close()

    def __enter__(self) -> Replicas:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.kill()
        self.close()

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        """Answer every request exactly once, whatever happens to the replicas.

        A run that is not read to its end ends all workers for good.

        Raises:
            UserError: a request does not fit the context.
            WorkerDiedError: no replica is left.
        """
        self.stats = RunStats()
        said: queue.SimpleQueue[tuple[int, _Answer | _Cost | BaseException | None]] = queue.SimpleQueue()
        began, n_vocab = time.perf_counter(), self.loaded.n_vocab
        flawed = flaws(requests, n_vocab)
        yield from ((i, Failed(why)) for i, why in flawed.items())
        sound = [i for i in range(len(requests)) if i not in flawed]
        answerable = [requests[i] for i in sound]
        active = [replica for replica in self.replicas if not replica.lost]
        self._shares = Shares(Work(answerable), len(active), lambda k: active[k].supervisor.ask_back(HANDED_ON))
        self._threads = []
        for k, replica in enumerate(active):
            replica.begin()
            arguments = (k, replica.supervisor, self._shares, answerable, len(active), said.put)
            self._threads.append(threading.Thread(target=_work, args=arguments, daemon=True))
        n_left, at_work, lost = len(sound), len(active), []
        try:
            for thread in self._threads:
                thread.start()
            asked: Progress | None = None
            while at_work:
                k, message = said.get()
                replica = active[k]
                if isinstance(message, _Answer):
                    n_left -= 1
                    replica.items += 1
                    yield sound[message.request], message.result
                elif isinstance(message, _Cost):
                    replica.update(message.progress, message.stats)
                    # Not at the start: the threads that hand out the requests would share Python's lock with it.
                    asked = asked or _asked(answerable)
                    self.stats = self._together(asked)
                    if message.progress is None:
                        replica.piece_is_over()
                        replica.ended_s = time.perf_counter() - began
                    else:
                        on_progress(self.stats.progress)
                elif isinstance(message, WorkerDiedError):
                    at_work -= 1
                    lost.append(message)
                    replica.lost = True
                    replica.supervisor.close()
                    if at_work:
                        self._on_note(f"{replica.name}: {message}: the others go on with what it leaves")
                elif message is not None:
                    raise message
                else:
                    at_work -= 1
        finally:
            if at_work:
                self.kill()
        if n_left:
            raise lost[-1]

    def kill(self) -> None:
        """End all workers at once and for good, and the threads that wait for them."""
        self._shares.close()
        for replica in self.replicas:
            replica.supervisor.kill()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _together(self, asked: Progress) -> RunStats:
        """What all replicas have cost."""
        total = reduce(RunStats.beside, [replica.total for replica in self.replicas])
        return replace(total, sent=asked.sent + total.sent, unique=asked.unique + total.unique)

    def shares(self) -> list[dict[str, Any]]:
        """What each replica had of the last run, for ``report.json``."""
        return [
            {
                "name": replica.name,
                "items": replica.items,
                "computed": replica.total.computed,
                "ended_s": round(replica.ended_s, 3),
                "idle_s": round(replica.total.device.idle_s, 3),
                "restarts": replica.supervisor.deaths,
            }
            for replica in self.replicas
        ]

    def prompt_rate(self) -> PromptRate | None:
        """The rate of plain prompt processing of all replicas at once; None if one of them has died."""
        found: list[PromptRate | None] = [None] * len(self.replicas)

        def measure(k: int) -> None:
            found[k] = self.replicas[k].supervisor.prompt_rate()

        threads = [threading.Thread(target=measure, args=(k,), daemon=True) for k in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        rates = [rate for rate in found if rate is not None]
        if len(rates) < len(found):
            return None
        # Tokens of all in the seconds of one: each has measured a few seconds of its own.
        seconds = rates[0].seconds
        tokens = round(seconds * sum(rate.tokens_per_s for rate in rates))
        return PromptRate(tokens, seconds, sum(rate.calls for rate in rates))


@dataclass(frozen=True, slots=True)
class _Answer:
    """A replica has answered a request."""

    request: int
    result: Result | Failed


@dataclass(frozen=True, slots=True)
class _Cost:
    """A replica is so far with its piece, ``progress`` None where that is over; ``stats`` is what it has cost."""

    progress: Progress | None
    stats: RunStats


def _work(
    replica: int,
    supervisor: Supervisor,
    shares: Shares,
    requests: Sequence[Request],
    n_replicas: int,
    say: Callable[[tuple[int, _Answer | _Cost | BaseException | None]], None],
) -> None:
    """Answer piece after piece, and say what comes; at last None, or the error that it ended with."""
    goes_on = False
    try:
        leaves = False
        while not leaves and (piece := shares.take(replica)):
            left = dict.fromkeys(piece)

            def give(indices: list[int], piece: list[int] = piece, left: dict[int, None] = left) -> None:
                given = [piece[i] for i in indices]
                for i in given:
                    del left[i]
                shares.given(replica, given)

            try:
                for i, result in supervisor.run(
                    [requests[j] for j in piece],
                    lambda progress: say((replica, _Cost(progress, supervisor.stats))),
                    goes_on=goes_on,
                    n_engines=n_replicas,
                    on_given=give,
                ):
                    if isinstance(result, Failed) and context_tokens(requests[piece[i]]) > supervisor.max_context:
                        leaves = leaves or shares.leave()
                        if leaves:  # another has room for it
                            continue
                    del left[piece[i]]
                    shares.answered(replica, piece[i])
                    say((replica, _Answer(piece[i], result)))
            finally:
                say((replica, _Cost(None, supervisor.stats)))
                shares.done(replica, list(left))
            goes_on = True
    except WorkerDiedError as error:
        shares.leave()
        say((replica, error))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the run's own thread is to raise it
        say((replica, error))
    else:
        short = f"memory has become too short for requests beyond {supervisor.max_context:,} tokens"
        say((replica, WorkerDiedError(short) if leaves else None))


def _asked(requests: Sequence[Request]) -> Progress:
    """Tokens of all that is asked, nothing computed."""
    wanted = WantedTokens(requests)
    prompts = [request.prompt for request in requests if isinstance(request, GenerateRequest)]
    paths = [*wanted.paths, *prompts]
    return Progress(0, TokenTree(paths).n_unique, wanted.sent + sum(map(len, prompts)))
