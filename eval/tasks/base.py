"""What a task is: where its questions come from, and when an answer is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from eval.docs import Doc


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a task.

    Attributes:
        data: folder that holds the data sets' folders, None for the hub.
        limit: at most this many questions, drawn evenly over the whole set.
        shots: worked examples before each question, None for the task's own number.
    """

    data: Path | None = None
    limit: int | None = None
    shots: int | None = None


class Task(Protocol):
    """One benchmark."""

    name: str
    title: str
    source: str
    licence: str
    metric: str
    default_shots: int

    def load(self, options: LoadOptions) -> list[Doc]:
        """Every question, in the data set's order.

        Raises:
            UserError: the data is missing or malformed.
        """

    def normalize(self, text: str) -> str:
        """A generated text as it is compared with the target."""


LETTERS = ("A", "B", "C", "D")


def letter_doc(doc_id: str, group: str, prompt: str, target: str) -> Doc:
    """A question answered by one of four letters, after a prompt that ends in "Answer:"."""
    return Doc(
        id=doc_id,
        group=group,
        prompt=prompt,
        mode="choose",
        choices=tuple(f" {letter}" for letter in LETTERS),
        labels=LETTERS,
        target=target,
        single_token=True,
    )


def spread(docs: list[Doc], limit: int | None) -> list[Doc]:
    """``limit`` of ``docs``, evenly spaced, so that a sample has every subject in proportion."""
    if limit is None or limit >= len(docs):
        return docs
    return [docs[(i * len(docs)) // limit] for i in range(limit)]
