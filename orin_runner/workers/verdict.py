"""How to go on after a worker's death, by what it died of and what others died of before it."""

from __future__ import annotations

import enum

from orin_runner.errors import RunError
from orin_runner.workers.death import Death

MAX_DEATHS_WITHOUT_PROGRESS = 4
"""After so many workers in a row that answered nothing, the cause is not the budget."""
MAX_BLAMED_IN_A_ROW = 16
"""After so many requests in a row that a worker died of, no request in particular is to blame."""


class WorkerDiedError(RunError):
    """Workers keep dying without answering anything."""


def died_in_vain(deaths: int, last: Death, when: str) -> WorkerDiedError:
    """The error after so many deaths in a row."""
    return WorkerDiedError(f"the engine died {deaths} times in a row without an answer (last: {last}, {when})")


class Verdict(enum.Enum):
    """What becomes of the requests that a dead worker has left."""

    HALVE_MEMORY = enum.auto()
    """All of them go to a worker with half the memory."""
    AGAIN = enum.auto()
    """All of them go to a worker like this one."""
    DIVIDE = enum.auto()
    """Half of them go to a worker like this one, then the other half."""
    BLAME = enum.auto()
    """There is one, and it has failed."""


class Verdicts:
    """The verdicts of one run.

    A death that may be for lack of memory halves it. Any other is given a second chance, because it may never come
    again; if it does, the requests are divided, and the one that is left at last is to blame.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._in_vain = 0  # deaths in a row without an answer and without a division
        self._blamed = 0  # requests in a row, without an answer

    def on(self, death: Death, n_left: int, when: str, *, progress: bool) -> Verdict:
        """What to do about ``death``.

        Args:
            death: of the worker.
            n_left: requests that it was sent and has not answered.
            when: the same in words.
            progress: whether it has answered any.

        Raises:
            WorkerDiedError: there is nothing left to try.
        """
        if death.final:
            raise WorkerDiedError(f"{death}, {when}")
        if progress:
            self._in_vain = self._blamed = 0
        else:
            self._in_vain += 1
        if death.may_be_memory:
            if self._in_vain >= MAX_DEATHS_WITHOUT_PROGRESS:
                raise died_in_vain(self._in_vain, death, when)
            return Verdict.HALVE_MEMORY
        # Words that are others at each death say nothing about the place.
        known = death.signature in self._seen or self._in_vain >= MAX_DEATHS_WITHOUT_PROGRESS
        self._seen.add(death.signature)
        if not known or not n_left:
            return Verdict.AGAIN
        self._in_vain = 0
        if n_left > 1:
            return Verdict.DIVIDE
        self._blamed += 1
        if self._blamed >= MAX_BLAMED_IN_A_ROW:
            raise WorkerDiedError(f"the engine died of {self._blamed} requests in a row, each alone ({death}, {when})")
        return Verdict.BLAME
