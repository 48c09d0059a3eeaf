r"""Questions in a file of the user's own, named where a task is: ``orin-run eval my_questions.jsonl``.

The first row says what all of the file are. With choices (a list, or columns ``A``, ``B``, ...) they are scored, else
the greedy text is compared with the answer. ``question`` is asked in MMLU's form, ``prompt`` as it stands, and a
template makes a prompt of any columns. Two worked rows of the prompt, the first one of the few-shot file:

    Which of these is a fish?
    A. whale
    B. trout
    Answer: B

    Which of these is a bird?
    A. bat
    B. wren
    Answer:

White space is MMLU's: one space between prompt and answer, unless the prompt ends in white space; a blank line between
worked examples. A text ends at a blank line or after 256 tokens, lm-evaluation-harness's defaults (0.4.13,
``generate_until``); white space around it and around the answers does not count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from typing_extensions import NotRequired, TypedDict

from eval.data.digests import file_sha256
from eval.data.question_file import read_questions
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, Scoring, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS
from eval.tasks.multiple_choice import Item, MultipleChoice
from eval.tasks.prompt_template import PromptTemplate
from orin_runner.errors import UserError
from orin_runner.schema import Schema, shown

UNTIL = ("\n\n",)
LICENCE = "your own"


class _Row(TypedDict):
    question: NotRequired[str]
    prompt: NotRequired[str]
    id: NotRequired[str | int]
    group: NotRequired[str]


class _ChoiceRow(_Row):
    choices: list[str]
    answer: str | int


class _TextRow(_Row):
    answer: str | int | list[str]


CHOICE_ROW, TEXT_ROW = Schema(_ChoiceRow), Schema(_TextRow)


@dataclass(frozen=True, slots=True)
class OwnRow:
    """One question of a file.

    Attributes:
        id: its ``id``, else the number of its line.
        group: its ``group``, else the file's name.
        head: the question, or the whole prompt where nothing is to be put around it.
        choices: as they stand; empty where the answer is a text.
        right: with choices: the index of the right one.
        answers: without: the texts that are right, the first one the target.
    """

    id: str
    group: str
    head: str
    choices: tuple[str, ...] = ()
    right: int = 0
    answers: tuple[str, ...] = ()


class QuestionFile:
    """The rows of a file, and those of a few-shot file, as one template has them.

    Attributes:
        name: what the task is called.
        has_choices: whether the answer is one of several choices.
        verbatim: whether ``OwnRow.head`` is the whole prompt.
        worked: rows of the few-shot file.
        identity: digests of the files, unpacked, by which a run knows them again; None of a file that is not given.

    Raises:
        UserError: a file or its first row is not usable.
    """

    def __init__(self, path: Path, template: Path | None, fewshot: Path | None) -> None:
        self.path, self.name = path, path.name
        first = _present(next(read_questions(path))[2])
        self._template = None if template is None else PromptTemplate(template)
        self.has_choices = _has_choices(first)
        self._head = "prompt" if "prompt" in first and "question" not in first else "question"
        self.verbatim = self._template is not None or self._head == "prompt"
        self.worked = [] if fewshot is None else list(self.rows(fewshot))
        self.identity = {
            "sha256": file_sha256(path),
            "template_sha256": None if template is None else file_sha256(template),
            "fewshot_sha256": None if fewshot is None else file_sha256(fewshot),
        }

    @property
    def scoring(self) -> Scoring:
        """By letter where the prompt lists the choices."""
        listed = self._head == "question" if self._template is None else self._template.lists_choices
        return "letters" if listed else "text"

    def rows(self, path: Path) -> Iterator[OwnRow]:
        """The questions of ``path``.

        Raises:
            UserError: a row is not of the form of this file's first one, or its answer is none; the line is named.
        """
        seen: set[str] = set()
        for number, where, row in read_questions(path):
            try:
                own = self.row(number, row)
            except ValueError as error:
                raise UserError(f"{where}: {error}", self._expected) from error
            if own.id in seen:
                raise UserError(f"{where}: a second question is called {own.id}", "give each an id of its own")
            seen.add(own.id)
            yield own

    @property
    def _expected(self) -> str:
        asked = "the template's columns" if self._template is not None else self._head
        choices = "choices (a list, or columns A, B, ...), " if self.has_choices else ""
        answer = "a letter, a number from 0 or a choice's text" if self.has_choices else "a text"
        return f"a question has {asked}, {choices}answer ({answer})"

    def row(self, number: int, row: dict[str, Any]) -> OwnRow:
        """A row of that number; what is ``null`` in it is taken for absent.

        Raises:
            ValueError: it is malformed.
        """
        row = _present(row)
        if not self.has_choices:
            return self._text_row(number, row)
        found = CHOICE_ROW.check(row if "choices" in row else {**row, "choices": _columns(row)})
        choices = tuple(found["choices"])
        if len(choices) < 2 or not all(choice.strip() for choice in choices):
            raise ValueError("it has fewer than two choices, or an empty one")
        return replace(self._asking(number, row, choices), choices=choices, right=_right(found["answer"], choices))

    def _text_row(self, number: int, row: dict[str, Any]) -> OwnRow:
        if _has_choices(row):
            raise ValueError("it has choices, and the first question of the file has none")
        answer = TEXT_ROW.check(row)["answer"]
        answers = tuple(str(each).strip() for each in (answer if isinstance(answer, list) else [answer]))
        if not answers or not all(answers):
            raise ValueError("'answer' is empty")
        return replace(self._asking(number, row, ()), answers=answers)

    def _asking(self, number: int, row: dict[str, Any], choices: Sequence[str]) -> OwnRow:
        return OwnRow(str(row.get("id", number)), row.get("group", self.path.stem), self._asked(row, choices))

    def _asked(self, row: dict[str, Any], choices: Sequence[str]) -> str:
        if self._template is not None:
            prompt = self._template.render(row, choices)
        elif {"question", "prompt"} <= row.keys():
            raise ValueError("it has both 'question' and 'prompt': --template says what is asked")
        elif self._head not in row:
            raise ValueError(f"no {self._head!r}")
        else:
            prompt = str(row[self._head])
        if not prompt.strip():
            raise ValueError("the prompt is empty")
        return prompt


class OwnChoices(MultipleChoice):
    """Questions with choices, scored by letter where the prompt lists them."""

    source = "a file"
    licence = LICENCE

    def __init__(self, file: QuestionFile) -> None:
        self.file, self.name, self.title = file, file.name, file.name
        self.scoring, self.default_shots = file.scoring, len(file.worked)
        self.parts = ()

    def item(self, row: dict[str, Any]) -> Item:
        return _item(self.file.row(0, row))

    def load(self, options: LoadOptions) -> Loaded:
        scoring = options.scoring or self.scoring
        shots = shots_of(self, options, len(self.file.worked))
        start = "".join(self.example(_item(row), scoring) + "\n\n" for row in self.file.worked[:shots])
        rows = self.file.rows(self.file.path)
        return loaded([self.doc(row.id, row.group, _item(row), start, scoring) for row in rows], None, options)

    def example(self, item: Item, scoring: Scoring) -> str:
        answer = item.choices[item.right[0]] if scoring == "text" else ascii_uppercase[item.right[0]]
        return _answered(self._asked(item, scoring), answer)

    def doc(self, doc_id: str, group: str, item: Item, start: str, scoring: Scoring) -> Doc:
        doc = super().doc(doc_id, group, item, start, scoring)
        assert isinstance(doc.prompt, str)
        choices = tuple(_answered(doc.prompt, choice[1:])[len(doc.prompt) :] for choice in doc.choices)
        return replace(doc, choices=choices)

    def _asked(self, item: Item, scoring: Scoring) -> str:
        asked = super()._asked(item, scoring)
        return item.head if self.file.verbatim else asked


class OwnTexts(ExactMatch):
    """Questions answered by a greedy text."""

    source = "a file"
    licence = LICENCE
    metric = "exact match of the greedy text"
    splits: tuple[str, ...] = ()

    def __init__(self, file: QuestionFile) -> None:
        self.file, self.name, self.title = file, file.name, file.name
        self.default_shots = len(file.worked)

    def load(self, options: LoadOptions) -> Loaded:
        shots = shots_of(self, options, len(self.file.worked))
        start = "".join(_answered(self._asked(row), row.answers[0]) + "\n\n" for row in self.file.worked[:shots])
        docs = [
            Doc(
                id=row.id,
                group=row.group,
                prompt=start + self._asked(row),
                mode="generate",
                choices=(),
                labels=(),
                target=row.answers[0],
                max_new_tokens=MAX_NEW_TOKENS,
                until=UNTIL,
                references=row.answers[1:],
            )
            for row in self.file.rows(self.file.path)
        ]
        return loaded(docs, None, options)

    def normalize(self, text: str) -> str:
        return text.strip()

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        right = self.normalize(text) in {doc.target, *doc.references}
        return dict.fromkeys(self.metrics, float(right))

    def _asked(self, row: OwnRow) -> str:
        return row.head if self.file.verbatim else f"{row.head}\nAnswer:"


def own_task(path: Path, template: Path | None = None, fewshot: Path | None = None) -> OwnChoices | OwnTexts:
    """The task that a file of questions is.

    Raises:
        UserError: a file is not usable.
    """
    file = QuestionFile(path, template, fewshot)
    return OwnChoices(file) if file.has_choices else OwnTexts(file)


def _present(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}


def _has_choices(row: dict[str, Any]) -> bool:
    return "choices" in row or {"A", "B"} <= row.keys()


def _columns(row: dict[str, Any]) -> list[Any]:
    """The choices of a row that has them in columns ``A``, ``B``, ...

    Raises:
        ValueError: there are none, or one is empty before one that is not.
    """
    letters = list(takewhile(row.__contains__, ascii_uppercase))
    for letter in ascii_uppercase[len(letters) :]:
        if letter in row:
            raise ValueError(f"it has a choice {letter} and none before it")
    if not letters:
        raise ValueError("no 'choices'")
    return [row[letter] for letter in letters]


def _answered(prompt: str, answer: str) -> str:
    """``prompt`` with its answer behind it."""
    return prompt + answer if prompt[-1:].isspace() else f"{prompt} {answer}"


def _item(row: OwnRow) -> Item:
    return Item(row.head, row.choices, (row.right,))


def _right(answer: str | int, choices: Sequence[str]) -> int:
    """Index of the choice that ``answer`` is: by letter, by number from 0, or by its text.

    Raises:
        ValueError: it is none, or may be one as well as another.
    """
    said = str(answer).strip()
    found = {letter: i for i, letter in enumerate(ascii_uppercase[: len(choices)])}.get(said)
    number = {str(i): i for i in range(len(choices))}.get(said)
    text = next((i for i, choice in enumerate(choices) if choice.strip() == said), None)
    readings = {i for i in (found, number, text) if i is not None}
    if not readings:
        raise ValueError(f"the answer {shown(said)} is none of the {len(choices)} choices")
    if len(readings) > 1:
        raise ValueError(f"the answer {shown(said)} is one choice by its text and another by its place")
    return readings.pop()
