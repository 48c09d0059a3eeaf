"""Keeps a run going when its worker dies: the unanswered requests go on in a new one.

A worker that died of a lack of memory, or without a word, is followed by one with half of it. One that said another
reason is followed by its like; if that dies of the same, the requests are divided until the one to blame is alone.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from types import TracebackType

from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.errors import RunError, UserError
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.requests import Failed, Request, Result, context_tokens, flaws
from orin_runner.runner import OnProgress, RunStats, no_progress
from orin_runner.workers import worker
from orin_runner.workers.costs import Costs
from orin_runner.workers.death import Death, LastWords
from orin_runner.workers.messages import (
    Answers,
    Done,
    FromWorker,
    GiveBack,
    GivenBack,
    Job,
    Loaded,
    Loading,
    MeasurePromptRate,
    Note,
    Opening,
    Planned,
    Questions,
    Refused,
)
from orin_runner.workers.packed_requests import pack
from orin_runner.workers.process import DEBUG, Function, Process, WorkerProcess
from orin_runner.workers.verdict import MAX_DEATHS_WITHOUT_PROGRESS, Verdict, Verdicts, WorkerDiedError, died_in_vain

CLOSE_S = 10
"""Seconds a worker has to end by itself."""


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
        spawn: starts a process that calls it.

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
        serve: Function = worker.serve,
        spawn: Callable[[Function], Process] = WorkerProcess,
    ) -> None:
        self._job = job
        self._on_note = on_note
        self._on_loading = on_loading
        self._serve, self._spawn = serve, spawn
        self._process: Process | None = None
        self._sending = threading.Lock()  # ``ask_back`` is called from other threads
        self._said: str | None = None  # by the worker, of its end
        self._owed = False  # the worker has more to say about requests it was sent
        self._killed = False
        self._begun = False  # a worker is there that waits for its job
        self._most = 0  # tokens of context that there have been
        self.stats = RunStats()
        self.deaths = 0
        self.plan: MemoryPlan
        self.max_context: int
        self.loaded: Loaded
        self._file: tuple[int, int, int] | None = None

    def _same_file(self, loaded: Loaded) -> None:
        """Refuse a file that is another than the one whose answers there are.

        Raises:
            UserError: it was replaced while a worker was started anew.
        """
        if self._file not in {None, loaded.file}:
            raise UserError(
                f"{self._job.model} was replaced or changed during the run", "run again, into another folder"
            )
        self._file = loaded.file

    def begin(self) -> None:
        """Start a worker that loads the weights while nothing is known yet of what will be asked."""
        self._process = self._spawn(self._serve)
        self._begun = True
        with suppress(BrokenPipeError):  # ``start`` finds what it died of
            self._process.connection.send(Opening(self._job.model, self._job.device_bytes))

    def plan_for(self, job: Job) -> None:
        """What is asked by ``job``, before ``start``; where it is asked stays as it is."""
        ours = self._job
        self._job = replace(job, model=ours.model, device_bytes=ours.device_bytes, n_threads=ours.n_threads)

    def start(self) -> None:
        """Start a worker and wait until its model is loaded; another one with half the memory if it dies of that.

        Raises:
            UserError: it dies of something else: llama.cpp cannot run this file.
            WorkerDiedError: one after another dies.
        """
        for deaths in itertools.count(1):
            death = self._started()
            if death is None:
                return
            if death.final:
                raise WorkerDiedError(f"{death}, while it was loading")
            if not death.may_be_memory:
                raise UserError(
                    f"the engine died of {self._job.model} while it was loading ({death})",
                    f"convert the checkpoint again; {DEBUG}=1 shows all that it said",
                )
            if deaths >= MAX_DEATHS_WITHOUT_PROGRESS:
                raise died_in_vain(deaths, death, "while it was loading")
            self._halve_memory(death, "while it was loading: trying again with")

    def _started(self) -> Death | None:
        """Start one worker; what it died of if that was before its model was loaded."""
        self._said, self._owed = None, False
        if self._process is None or not self._begun:
            self._process = self._spawn(self._serve)
        self._begun = False
        if self._killed:  # meanwhile
            self._process.kill()
        try:
            with suppress(BrokenPipeError):  # what it has said before its end is still to be read
                self._process.connection.send(self._job)
            for message in self._messages():
                if isinstance(message, Planned):
                    self.plan, self.max_context = message.plan, message.max_context
                    self._most = max(self._most, self.max_context)
                    if not message.max_context:
                        raise DoesNotFitError(message.plan)
                    if not self._job.load:
                        break
                elif isinstance(message, Loading):
                    self._on_loading(message.share)
                elif isinstance(message, Loaded):
                    self._same_file(message)
                    self.loaded = message
                    break
        except (_WorkerLostError, BrokenPipeError):
            return self._buried()
        except BaseException:
            self._process.kill()
            self.close()
            raise
        return None

    def kill(self) -> None:
        """End the worker at once, and let no other follow it; from any thread. What runs raises ``KilledError``."""
        self._killed = True
        process = self._process
        if process is not None:
            process.kill()

    def dismiss(self) -> None:
        """Let the worker end, for nothing more is asked; ``close`` waits for it. A model takes a second to be freed."""
        if self._process is not None:
            self._process.dismiss()

    def close(self) -> None:
        """End the worker."""
        if self._process is not None:
            self._process.close(CLOSE_S)
            self._process = None

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None and self._process is not None:
            self._process.kill()
        self.close()

    def run(
        self,
        requests: Sequence[Request],
        on_progress: OnProgress = no_progress,
        *,
        goes_on: bool = False,
        n_engines: int = 1,
        on_given: Callable[[list[int]], None] = lambda _: None,
    ) -> Iterator[tuple[int, Result | Failed]]:
        """Answer every request exactly once, whatever happens to the workers.

        A run that is not read to its end is computed to its end all the same before the next one begins. ``Failed``
        come back: a request that no model can answer; one that no longer fits after a worker's death, because others
        have taken the memory; one that workers die of.

        Args:
            requests: what is asked.
            on_progress: called after each decode call.
            goes_on, n_engines: as ``Engine.run`` takes them.
            on_given: called with the requests that will not be answered, for each ``ask_back``; with none where the
                worker that was asked has died, or has been asked too late.

        Raises:
            WorkerDiedError: workers keep dying without answering anything, or nothing at all fits any more.
        """
        self.stats = RunStats()
        open_requests = dict(enumerate(requests))
        for i, why in flaws(requests, self.loaded.n_vocab).items():
            del open_requests[i]
            yield i, Failed(why)
        if self.max_context < self._most:
            yield from self._too_long(open_requests)
        costs, verdicts = Costs(), Verdicts()
        parts = [list(open_requests)]
        while parts:
            part = parts.pop()
            n_open = len(open_requests)
            try:
                if self._process is None:
                    self._start_again(len(requests) - n_open, len(requests))
                    yield from self._too_long(open_requests)
                part = [i for i in part if i in open_requests]
                questions = Questions(pack([open_requests[i] for i in part]), goes_on, n_engines)
                yield from self._ask(part, questions, open_requests, costs, on_progress, on_given)
            except (_WorkerLostError, BrokenPipeError):
                death = self._buried()
                on_given([])
                left = [i for i in part if i in open_requests]
                when = f"with {len(open_requests)} of {len(requests)} requests unanswered"
                verdict = verdicts.on(death, len(left), when, progress=len(open_requests) < n_open)
                if verdict is Verdict.BLAME:
                    self._on_note(f"the engine died of one request ({death}): it has failed, the others go on")
                    del open_requests[left[0]]
                    yield left[0], Failed(f"the engine dies of it ({death})")
                elif verdict is Verdict.DIVIDE:
                    self._on_note(f"the engine died again ({death}) {when}: asking half of {len(left)} at a time")
                    parts += [left[len(left) // 2 :], left[: len(left) // 2]]
                else:
                    parts.append(left)
                    going_on = f"{when}: going on with these in a new one"
                    if verdict is Verdict.HALVE_MEMORY:
                        self._halve_memory(death, f"{going_on} and")
                    elif self._job.prompt_cache is not None:  # a state may be to blame, whatever was said
                        self._job = replace(self._job, prompt_cache=None)
                        self._on_note(f"the engine died ({death}) {going_on}, without the prompt cache")
                    else:
                        self._on_note(f"the engine died ({death}) {going_on}")
            costs.part_is_over()

    def _start_again(self, answered: int, total: int) -> None:
        try:
            self.start()
        except DoesNotFitError as error:
            raise WorkerDiedError(
                f"memory has become too short for any request ({error.plan.advice}); {answered} of {total} answers are "
                f"kept: free memory and go on with --resume"
            ) from error
        except UserError as error:  # it has been loaded before: what is wrong has come since
            raise WorkerDiedError(
                f"{error.message}; {answered} of {total} answers are kept: go on with --resume"
            ) from error

    def _too_long(self, open_requests: dict[int, Request]) -> Iterator[tuple[int, Failed]]:
        """Take out the requests for which memory has become too short."""
        needed = {i: context_tokens(request) for i, request in open_requests.items()}
        for i in [i for i, n in needed.items() if n > self.max_context]:
            del open_requests[i]
            yield i, Failed(f"needs {needed[i]} tokens of context, memory now allows {self.max_context}")

    def _ask(
        self,
        part: Sequence[int],
        questions: Questions,
        open_requests: dict[int, Request],
        costs: Costs,
        on_progress: OnProgress,
        on_given: Callable[[list[int]], None],
    ) -> Iterator[tuple[int, Result | Failed]]:
        """Send the requests of ``part`` to the worker; takes out those that it answers or gives back."""
        if not part:
            return
        assert self._process is not None
        if self._owed:  # the last run was not read to its end
            next(message for message in self._messages() if isinstance(message, Done))
        with self._sending:
            self._process.connection.send(questions)
        self._owed = True
        for message in self._messages():
            if isinstance(message, Answers):
                for k, result in message.results:
                    del open_requests[part[k]]
                    yield part[k], result
                if message.progress is not None:
                    progress = costs.update(message.progress, part)
                    self.stats = costs.into(message.stats)
                    on_progress(progress)
            elif isinstance(message, GivenBack):
                given = [part[k] for k in message.requests]
                for i in given:
                    del open_requests[i]
                on_given(given)
            elif isinstance(message, Done):
                self._owed = False
                costs.update(message.stats.progress, part)
                self.stats = costs.into(message.stats)
                break

    def ask_back(self, share: float) -> None:
        """Ask the worker for requests of the run that goes on; from any thread. ``run``'s ``on_given`` has the answer.

        Args:
            share: about how much of what it has not begun.
        """
        process = self._process
        if process is not None:
            with self._sending, suppress(OSError):  # what has become of it is found by ``run``
                process.connection.send(GiveBack(share))

    def prompt_rate(self) -> PromptRate | None:
        """The rate of plain prompt processing on the context that computed the run; None if the worker has died.

        No other one is started for it: its context would be another.
        """
        if self._process is None:
            return None
        try:
            self._process.connection.send(MeasurePromptRate())
            rate = next(found for found in self._messages() if isinstance(found, PromptRate))
        except (_WorkerLostError, BrokenPipeError):
            return None
        self._owed = False  # it has been read past
        return rate

    def _messages(self) -> Iterator[FromWorker]:
        assert self._process is not None
        while True:
            try:
                message = self._process.connection.recv()
            except (EOFError, OSError) as error:  # also amid a message
                raise _WorkerLostError from error
            if isinstance(message, Refused):
                raise UserError(message.message, message.hint)
            if isinstance(message, LastWords):
                self._said = message.text
            elif isinstance(message, Note):
                self._on_note(message.text)
            else:
                yield message

    def _buried(self) -> Death:
        """What the worker died of; there is none any more."""
        assert self._process is not None
        death = self._process.death(self._said, CLOSE_S)
        if self._killed:
            self.close()
            raise KilledError
        if os.environ.get(DEBUG):
            self._on_note(f"the engine died, and this is what it said:\n{self._process.output}")
        self.close()
        self.deaths += 1
        return death

    def _halve_memory(self, death: Death, what_next: str) -> None:
        """Make the next worker do with half the memory, and say so."""
        self._job = replace(self._job, share=self._job.share / 2)
        self._on_note(f"the engine died ({death}) {what_next} half the memory for cache and buffers")


def planned(
    job: Job, on_note: Callable[[str], None], spawn: Callable[[Function], Process] = WorkerProcess
) -> tuple[MemoryPlan, int]:
    """The plan that a worker would make, made in a process of its own: llama.cpp may abort on a file.

    Args:
        job: what it would be asked.
        on_note: receives what it has to say.
        spawn: starts the process, as ``Supervisor`` takes it.

    Returns:
        (the plan, the longest request it is for); the length is 0 where nothing fits.

    Raises:
        UserError: llama.cpp cannot load the file that it is to simulate.
    """
    with Supervisor(replace(job, load=False), on_note, spawn=spawn) as supervisor:
        try:
            supervisor.start()
        except DoesNotFitError as error:
            return error.plan, 0
        return supervisor.plan, supervisor.max_context


class KilledError(Exception):
    """``Supervisor.kill`` has ended what was running."""


class _WorkerLostError(Exception):
    """The worker closed its end of the pipe without a word."""
