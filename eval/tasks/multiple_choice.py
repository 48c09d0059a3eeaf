"""What the multiple-choice tasks share: rows to questions, worked examples, letters or whole choices.

A task says where its rows lie and how one becomes an ``Item``. Prompts are lm-evaluation-harness 0.4.13's: one space
between prompt and answer, a blank line between worked examples. Worked examples are the first rows of the published
training split, the same before every question, so that they are computed once; the harness draws others at random for
each question, so few-shot prompts differ from its own. Zero shots, its default, are equal.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from typing_extensions import TypedDict

from eval.data.hub_copy import published_or_copied, split_files, split_folders
from eval.data.readers import find_file, first_file, read_hub, read_labels, read_rows
from eval.data.text_file import AGAIN
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, Scoring, loaded, shots_of
from eval.tasks.doc import Doc
from orin_runner.errors import UserError
from orin_runner.schema import Schema, shown

Row = dict[str, Any]
LABELS = {"label", "correct"}
"""Keys that a label has where it stands in its row."""


@dataclass(frozen=True, slots=True)
class Item:
    """One row of a data set.

    Attributes:
        head: the question, up to the task's cue.
        choices: the answers, verbatim.
        right: indices of the true ones; the first is the target.
    """

    head: str
    choices: tuple[str, ...]
    right: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Where some of a task's rows lie.

    Attributes:
        group: what they are called in the results.
        files: published names in the task's folders; the first one there is read.
        worked_files: the same for worked examples.
        split: what these rows are called, by the harness's name.
        worked_split: split of the worked examples on the hub.
        hub_split: what ``split`` is called on the hub, where not the same.
        instead: rows of another split, which are read where those of this one are not there.
    """

    group: str
    files: tuple[str, ...]
    worked_files: tuple[str, ...]
    split: str
    worked_split: str = "train"
    hub_split: str = ""
    instead: Part | None = None

    @property
    def on_hub(self) -> str:
        """What ``split`` is called on the hub."""
        return self.hub_split or self.split


def lettered(choices: Sequence[str]) -> str:
    """A line for each choice, as the prompts of MMLU have them; choices beyond Z are left out."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))


class MultipleChoice(ExactMatch, ABC):
    """Base of the tasks.

    Attributes:
        hub: repository, revision and configuration on the hub.
        folders: below ``--data``, where published files may lie, besides the one with the task's name.
        cue: what stands between question and answer.
        scoring: the harness's way.
        choice_names: what the choices are called in results, letters where empty.
        labels_apart: whether the published labels lie in a file of their own beside the rows, one a line. (Copies whose
            rows have a label are read, too.)
    """

    name: str
    metric = "choice with the highest log-probability"
    metrics: tuple[str, ...] = ("acc", "acc_norm", "acc_bytes", "acc_tokens")
    default_shots = 0
    title: str
    source: str
    licence: str
    hub: tuple[str, str, str | None]
    folders: tuple[str, ...] = ()
    parts: tuple[Part, ...]
    cue = "\nAnswer:"
    scoring: Scoring = "text"
    choice_names: tuple[str, ...] = ()
    labels_apart = False

    @property
    def splits(self) -> tuple[str, ...]:
        """Of all parts, then of what may be read instead."""
        instead = (part.instead for part in self.parts)
        return tuple(dict.fromkeys(part.split for part in (*self.parts, *instead) if part is not None))

    @abstractmethod
    def item(self, row: Row) -> Item:
        """A row of the published file or of the hub.

        Raises:
            ValueError: it is malformed.
        """

    def load(self, options: LoadOptions) -> Loaded:
        shots = shots_of(self, options)
        scoring = options.scoring or self.scoring
        docs = []
        parts = [self._there(options.data, part) for part in self.parts]
        for part in parts:
            worked = list(islice(self._items(options, part.worked_files, part.worked_split), shots)) if shots else []
            shots_of(self, options, len(worked) if shots else None)
            start = "".join(self.example(item, scoring) + "\n\n" for item in worked)
            for i, item in enumerate(self._items(options, part.files, part.on_hub)):
                doc_id = f"{part.group}/{i}" if len(self.parts) > 1 else str(i)
                docs.append(self.doc(doc_id, part.group, item, start, scoring))
        return loaded(docs, " and ".join(dict.fromkeys(part.split for part in parts)), options)

    def example(self, item: Item, scoring: Scoring) -> str:
        """A worked example."""
        answer = item.choices[item.right[0]] if scoring == "text" else ascii_uppercase[item.right[0]]
        return f"{self._asked(item, scoring)} {answer}"

    def doc(self, doc_id: str, group: str, item: Item, start: str, scoring: Scoring) -> Doc:
        """The question itself, after the worked examples in ``start``."""
        letters = ascii_uppercase[: len(item.choices)]
        names = tuple(letters)
        if scoring == "text":
            names = self.choice_names or (tuple(letters) if len(letters) == len(item.choices) else _numbers(item))
        return Doc(
            id=doc_id,
            group=group,
            prompt=start + self._asked(item, scoring),
            mode="choose",
            choices=tuple(f" {choice}" for choice in (item.choices if scoring == "text" else letters)),
            labels=names,
            target=names[item.right[0]],
            single_token=scoring == "letters",
        )

    def _asked(self, item: Item, scoring: Scoring) -> str:
        if scoring == "text":
            return item.head + self.cue
        if len(item.choices) > len(ascii_uppercase):
            raise UserError(f"{self.name}: a question has more choices than there are letters", "--scoring text")
        return f"{item.head}\n{lettered(item.choices)}" + (self.cue or "\nAnswer:")

    def _items(self, options: LoadOptions, files: tuple[str, ...], split: str) -> Iterator[Item]:
        for where, row in self._rows(options, files, split):
            try:
                item = self.item(row)
            except ValueError as error:
                raise UserError(f"{where}: {error}", AGAIN) from error
            if len(item.choices) < 2:
                raise UserError(f"{where}: {len(item.choices)} choices leave nothing to choose", AGAIN)
            if not all(0 <= i < len(item.choices) for i in item.right) or not item.right:
                raise UserError(f"{where}: the right answer is not one of the {len(item.choices)} choices", AGAIN)
            yield item

    def _rows(self, options: LoadOptions, files: tuple[str, ...], split: str) -> Iterator[tuple[str, Row]]:
        if options.data is None:
            yield from read_hub(*self.hub, split)
            return
        for path in self._paths(options.data, files, split):
            yield from _with_labels(path) if self.labels_apart else read_rows(path)

    def _there(self, data: Path | None, part: Part) -> Part:
        """``part``, or what is read instead if only that is there."""
        if data is None or part.instead is None or self._has(data, part) or not self._has(data, part.instead):
            return part
        return part.instead

    def _has(self, data: Path, part: Part) -> bool:
        names, folders = self._places(part.files)
        return first_file(data, *names) is not None or bool(split_files(data, folders, part.on_hub))

    def _paths(self, data: Path, files: tuple[str, ...], split: str) -> list[Path]:
        """The published file, or the files of the split in a copy of the hub's repository."""
        names, folders = self._places(files)
        return published_or_copied(data, names, folders, split, self.hub[0])

    def _places(self, files: tuple[str, ...]) -> tuple[list[str], list[str]]:
        """Where under ``--data`` the published files may lie, and those of a copy of the hub's repository."""
        repository, _, config = self.hub
        folders = (self.name, *self.folders)
        names = [f"{folder}/{name}" for name in files for folder in folders]
        return names, split_folders((*folders, repository, repository.partition("/")[2]), config)


def _with_labels(path: Path) -> list[tuple[str, Row]]:
    """The rows of a file, with their labels from the file beside it where they have none."""
    rows = list(read_rows(path))
    if not rows or LABELS & rows[0][1].keys():
        return rows
    labels = read_labels(find_file(path.parent, f"{path.name.split('.')[0]}-labels.lst"), len(rows))
    return [(where, {**row, "label": label}) for (where, row), label in zip(rows, labels, strict=True)]


def _numbers(item: Item) -> tuple[str, ...]:
    return tuple(str(i) for i in range(1, len(item.choices) + 1))


def number(label: int | str) -> int:
    """A label that is a whole number, written as a number or as text.

    Raises:
        ValueError: it is none.
    """
    try:
        return int(label)
    except ValueError as error:
        raise ValueError(f"the label is {shown(label)}, not a number") from error


class _Choice(TypedDict):
    text: str
    label: str


class _Columns(TypedDict):
    text: list[str]
    label: list[str]


class _Stem(TypedDict):
    choices: list[_Choice] | _Columns


class _StemOfFiles(_Stem):
    stem: str


class _RowOfFiles(TypedDict):
    question: _StemOfFiles
    answerKey: str


class _RowOfHub(_Stem):
    question: str
    answerKey: str


class _RowOfOpenBookQA(_Stem):
    question_stem: str
    answerKey: str


OF_FILES, OF_HUB, OF_OPENBOOKQA = Schema(_RowOfFiles), Schema(_RowOfHub), Schema(_RowOfOpenBookQA)


def labelled(row: Row) -> tuple[str, tuple[str, ...], int]:
    """Stem, choices, and index of the right one, of a row in the Allen Institute's form.

    Files have ``{"question": {"stem", "choices": [{"text", "label"}]}, "answerKey"}``; the hub has the stem as
    ``question`` or ``question_stem`` and the choices by column.

    Raises:
        ValueError: the row has another form.
    """
    if isinstance(row.get("question"), dict):
        published = OF_FILES.check(row)
        stem, listed, answer = published["question"]["stem"], published["question"]["choices"], published["answerKey"]
    elif "question_stem" in row:
        other = OF_OPENBOOKQA.check(row)
        stem, listed, answer = other["question_stem"], other["choices"], other["answerKey"]
    else:
        hub = OF_HUB.check(row)
        stem, listed, answer = hub["question"], hub["choices"], hub["answerKey"]
    if isinstance(listed, list):
        choices, labels = [choice["text"] for choice in listed], [choice["label"] for choice in listed]
    else:
        choices, labels = listed["text"], listed["label"]
    if len(choices) != len(labels) or len(set(labels)) != len(labels):
        raise ValueError(f"{len(choices)} choices have {len(set(labels))} different labels")
    if answer.strip() not in labels:
        raise ValueError(f"the answer is {shown(answer.strip())}, not one of {shown(labels)}")
    return stem, tuple(choices), labels.index(answer.strip())
