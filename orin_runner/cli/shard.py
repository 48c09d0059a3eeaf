"""``--shard I/N``: one of N parts of a run, each of which another machine may compute; ``merge`` puts them together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import typer

from eval.evaluate import Prepared
from orin_runner.batching.shares import Work
from orin_runner.errors import UserError

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Ask the I-th of N parts only, cut where little is shared; see orin-run merge."),
]
MOST = 10_000
"""Of shards."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One of ``of`` parts, ``index`` from 1 on."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """The shard that ``I/N`` names.

        Raises:
            UserError: it names none.
        """
        found = re.fullmatch(r"([0-9]{1,5})/([0-9]{1,5})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST:
            raise UserError(f"--shard {text} is not one of several parts", "1/3, 2/3 and 3/3, each in a run of its own")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def of_tasks(self, prepared: Sequence[Prepared]) -> tuple[list[Prepared], dict[str, Any]]:
        """This part of each task, and what ``run.json`` says of it.

        A task is cut along the prefix tree of its prompts, into parts of about equal tokens.

        Raises:
            UserError: nothing is left for it.
        """
        parts, shared = [], {}
        for item in prepared:
            work = Work([question.request for question in item.questions])
            first, end = work.stretches(self.of)[self.index - 1]
            own = sorted(work.order[first:end].tolist())
            shared[item.task.name] = int(work.shared[first]) if first < end else 0
            parts.append(
                replace(
                    item,
                    questions=[item.questions[i] for i in own],
                    skipped=item.skipped[self.index - 1 :: self.of],
                )
            )
        if not any(item.questions for item in parts):
            raise UserError(f"--shard {self}: so many parts leave nothing for this one", "use fewer")
        said = {
            "index": self.index,
            "of": self.of,
            "items": {item.task.name: item.n_items for item in prepared},
            "questions": {item.task.name: _digest(item) for item in prepared},
            "shared": shared,
        }
        return parts, said


def _digest(item: Prepared) -> str:
    """SHA-256 over the questions of a task, skipped ones too: ids, targets and token ids of the prompts."""
    questions = [*item.questions, *(question for question, _ in item.skipped)]
    lines = sorted(f"{question.doc.id}\0{question.doc.target}\0{question.digest}" for question in questions)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
