"""What a task is: where its questions come from, and when an answer is right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from eval.tasks.doc import Doc
from orin_runner.errors import UserError

Scoring = Literal["letters", "text"]
Year = Literal["2023"]
"""A challenge whose way of asking a task may have as its protocol."""


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load a task.

    Attributes:
        data: folder that holds the data sets' folders, None for the hub.
        limit: at most this many questions, or this share of them where it is below 1, drawn evenly over the whole set.
        first: the first so many questions of each group, or the first part of it where it is below 1, as
            lm-evaluation-harness has its ``--limit`` for each of a benchmark's tasks. Not together with ``limit``.
        shots: worked examples before each question, None for the task's own number, "phi3" for the one that Phi-3's
            report gives for it (arXiv:2404.14219, table 1).
        scoring: score answer letters or whole choices, None for the task's own way.
        chat: put each prompt into the model's chat template.
        protocol: ask as the challenge of this year did, None for the task's own way.
        ids: of the questions to ask; empty for all.
    """

    data: Path | None = None
    limit: float | None = None
    first: float | None = None
    shots: int | Literal["phi3"] | None = None
    scoring: Scoring | None = None
    chat: bool = False
    protocol: Year | None = None
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A task's questions, and which rows of its data set they are.

    Attributes:
        docs: the questions to ask, in the data set's order.
        split: of ``Task.splits`` what was read, None where the data set has none.
        rows: rows of that split, before ``LoadOptions.limit`` and ``first``; each is a question.
        lacking: what the rows lack of the protocol that was asked for, a line each.
    """

    docs: list[Doc]
    split: str | None
    rows: int
    lacking: tuple[str, ...] = ()


class Task(Protocol):
    """One benchmark.

    Attributes:
        metrics: names of what each item is scored by; the first one is the task's accuracy.
        metric: the first one in words.
        default_shots: worked examples as lm-evaluation-harness has them.
        phi3_shots: worked examples in Phi-3's report, None where it has no such benchmark.
        protocols: challenges that asked it in a way of their own.
    """

    name: str
    title: str
    source: str
    licence: str
    metric: str
    metrics: tuple[str, ...]
    default_shots: int
    phi3_shots: int | None
    protocols: tuple[Year, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that the questions may come from, by the harness's names; the first one there is read.

        Empty where the data set is one whole.
        """

    def load(self, options: LoadOptions) -> Loaded:
        """The questions that ``options`` ask for.

        Raises:
            UserError: the data is missing or malformed.
        """

    def normalize(self, text: str) -> str:
        """A generated text as it is compared with the target."""

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        """The value of a generated text under each of ``metrics``, from 0 to 1."""


class ExactMatch:
    """Scoring shared by tasks that take a text as right or wrong."""

    metrics: tuple[str, ...] = ("exact_match",)
    phi3_shots: int | None = None
    protocols: tuple[Year, ...] = ()

    def normalize(self, text: str) -> str:
        return text

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        return dict.fromkeys(self.metrics, float(self.normalize(text) == doc.target))


def check_protocol(task: Task, options: LoadOptions) -> None:
    """Refuse a protocol that ``task`` does not have, and options that change what a protocol fixes.

    Raises:
        UserError: one of them; the message names the option.
    """
    if options.protocol is None:
        return
    if options.protocol not in task.protocols:
        raise UserError(f"{task.name} has no protocol of the {options.protocol} challenge", "leave --protocol out")
    changed = {
        "shots": options.shots not in {None, 0},
        "scoring": options.scoring == "letters",
        "chat": options.chat,
    }
    for option in (name for name, true in changed.items() if true):
        reason = f"--protocol {options.protocol} scores whole choices, without worked examples and chat template"
        raise UserError(reason, f"leave --{option} out")


def shots_of(task: Task, options: LoadOptions, available: int | None = None, group: str = "") -> int:
    """How many worked examples ``options`` ask for.

    Args:
        task: the benchmark.
        options: what the user asked for.
        available: how many there are, None for no bound.
        group: the sub-task that has so many, for the message.

    Raises:
        UserError: more than there are, or Phi-3's number for a benchmark its report does not have.
    """
    if options.shots == "phi3":
        if task.phi3_shots is None:
            raise UserError(f"Phi-3's report has no number of worked examples for {task.name}", "--shots N")
        shots = task.phi3_shots
    else:
        shots = task.default_shots if options.shots is None else options.shots
    if available is not None and shots > available:
        where = f"for {group}" if group else "here"
        raise UserError(f"{task.name} has {available} worked examples {where}, not {shots}", "use fewer --shots")
    return shots


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


def loaded(docs: list[Doc], split: str | None, options: LoadOptions) -> Loaded:
    """All questions of a split as ``options`` limit them.

    Raises:
        UserError: two have the same id, or none has one that is asked for.
    """
    if len({doc.id for doc in docs}) < len(docs):
        twice = next(doc_id for doc_id, n in Counter(doc.id for doc in docs).items() if n > 1)
        raise UserError(f"two questions are called {twice}", "remove one of the files in --data that hold it")
    chosen = first_of_groups(_chosen(docs, options.ids), options.first)
    return Loaded(spread(chosen, options.limit), split, len(docs))


def _chosen(docs: list[Doc], ids: Sequence[str]) -> list[Doc]:
    known = {doc.id: doc for doc in docs}
    for doc_id in ids:
        if doc_id not in known:
            raise UserError(f"no question is called {doc_id!r}", f"they are called {', '.join([*known][:3])}, ...")
    return [known[doc_id] for doc_id in dict.fromkeys(ids)] or docs


def spread(docs: list[Doc], limit: float | None) -> list[Doc]:
    """``limit`` of ``docs``, evenly spaced, so that a sample has every subject in proportion."""
    n = _count(limit, len(docs))
    return docs if n == len(docs) else [docs[(i * len(docs)) // n] for i in range(n)]


def first_of_groups(docs: list[Doc], first: float | None) -> list[Doc]:
    """The ``first`` questions of each group, in the order in which ``docs`` has them."""
    sizes = Counter(doc.group for doc in docs)
    left = {group: _count(first, size) for group, size in sizes.items()}
    found = []
    for doc in docs:
        if left[doc.group]:
            left[doc.group] -= 1
            found.append(doc)
    return found


def _count(wanted: float | None, there: int) -> int:
    """How many questions are asked of those that are ``there``: all, so many, or that share of them, rounded up.

    The share is lm-evaluation-harness's (0.4.13, ``get_sample_size``).
    """
    if wanted is None:
        return there
    return min(there, math.ceil(there * wanted) if wanted < 1 else int(wanted))


def in_chat(doc: Doc) -> Doc:
    """``doc`` as one message of a user, worked examples included; the answer follows the template without a space.

    So does lm-evaluation-harness with ``--apply_chat_template`` (0.4.13, ``construct_requests``).

    Raises:
        UserError: the choices stand in the prompts, which a conversation cannot hold.
    """
    if not isinstance(doc.prompt, str):
        return doc
    if doc.prompts:
        raise UserError("this task's choices stand within a sentence, which no chat template can end in", "omit --chat")
    choices = tuple(choice.removeprefix(" ") for choice in doc.choices) if doc.mode == "choose" else doc.choices
    return replace(doc, prompt=({"role": "user", "content": doc.prompt},), choices=choices)
