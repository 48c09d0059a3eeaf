r"""AGIEval (Zhong et al. 2023, arXiv:2304.06364), its ten English sub-tasks: exams for people, in choices and numbers.

Data: https://github.com/ruixiangcui/AGIEval (MIT; each exam has its own terms), ``data/v1/*.jsonl``; or copies of the
hub's ``hails/agieval-aqua-rat`` and so on, which hold the prompts made of them. A row is
``{"passage", "question", "options", "label", "answer"}`` there, ``{"query", "choices", "gold"}`` or
``{"query", "answer"}`` here. A worked row of the prompt, and of ``math``:

    Q: Add: +45 and -30 Answer Choices: (A)-30 (B)+30 (C)0 (D)15 (E)-15
    A: Among A through E, the answer is (D)15

    Q: What is $1+1$?
    A: The answer is

White space and protocol are lm-evaluation-harness's (0.4.13, group ``agieval_en``), whose prompts are the authors'
zero-shot ones: a passage stands right in front of "Q:"; whole choices are scored, with their letter and one space
before them; there are no worked examples. ``math`` is a greedy text of at most 32 tokens that ends at "Q:", compared by
``eval/tasks/math_answers.py``; it counts the same under both metrics (the harness has no ``acc_norm`` there). All
questions weigh the same, as in the group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from typing_extensions import TypedDict

from eval.data.hub_copy import published_or_copied, split_folders
from eval.data.readers import read_rows
from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, Year, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import local_data
from eval.tasks.math_answers import answer_in, equivalent
from orin_runner.errors import UserError
from orin_runner.schema import Schema

MATH = "math"
SUBTASKS = (
    *("aqua-rat", "gaokao-english", "logiqa-en", "lsat-ar", "lsat-lr", "lsat-rc", MATH),
    *("sat-en-without-passage", "sat-en", "sat-math"),
)
FOLDERS = ("agieval", "AGIEval/data/v1", "agieval/AGIEval/data/v1", "agieval/data/v1", "data/v1")
UNTIL = ("Q:",)
MAX_NEW_TOKENS = 32


class _Exam(TypedDict):
    passage: str | None
    question: str


class _PublishedChoices(_Exam):
    options: list[str]
    label: str


class _PublishedMath(_Exam):
    answer: str


class _HubChoices(TypedDict):
    query: str
    choices: list[str]
    gold: list[int]


class _HubMath(TypedDict):
    query: str
    answer: str


PUBLISHED, PUBLISHED_MATH = Schema(_PublishedChoices), Schema(_PublishedMath)
HUB, HUB_MATH = Schema(_HubChoices), Schema(_HubMath)


class AGIEval:
    """Whole choices, and the numbers of ``math``."""

    name = "agieval"
    title = "AGIEval, English"
    source = "github.com/ruixiangcui/AGIEval"
    licence = "MIT"
    metric = "choice with the highest log-probability; same answer in the greedy text"
    metrics: tuple[str, ...] = ("acc", "acc_norm")
    default_shots = 0
    phi3_shots: int | None = 0
    protocols: tuple[Year, ...] = ()
    splits: tuple[str, ...] = ("test",)

    def load(self, options: LoadOptions) -> Loaded:
        shots_of(self, options, 0)
        data = local_data(options, self.name, "AGIEval/data/v1/")
        docs = []
        for subtask in SUBTASKS:
            make = _math_doc if subtask == MATH else _choice_doc
            docs += [make(f"{subtask}/{i}", where, row) for i, (where, row) in enumerate(_rows(data, subtask))]
        return loaded(docs, self.splits[0], options)

    def normalize(self, text: str) -> str:
        return answer_in(text) or ""

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        return dict.fromkeys(self.metrics, float(equivalent(text, doc.target)))


def _rows(data: Path, subtask: str) -> Iterator[tuple[str, dict[str, Any]]]:
    repository = f"hails/agieval-{subtask}"
    copies = split_folders((repository, f"agieval-{subtask}", f"agieval/{subtask}", f"agieval/agieval-{subtask}"), None)
    names = [f"{folder}/{subtask}.jsonl" for folder in FOLDERS]
    for path in published_or_copied(data, names, copies, "test", repository):
        yield from read_rows(path)


def _asked(exam: _Exam, rest: str) -> str:
    return f"{exam['passage'] or ''}Q: {exam['question']}{rest}"


def _choice_doc(doc_id: str, where: str, row: dict[str, Any]) -> Doc:
    if "query" in row:
        hub = HUB.check_row(where, row, AGAIN)
        query, choices, right = hub["query"], hub["choices"], {ascii_uppercase[i : i + 1] for i in hub["gold"]}
    else:
        exam = PUBLISHED.check_row(where, row, AGAIN)
        choices, right = exam["options"], {exam["label"]}
        last = ascii_uppercase[len(choices) - 1 :][:1]
        query = _asked(exam, f" Answer Choices: {' '.join(choices)}\nA: Among A through {last}, the answer is")
    letters = tuple(ascii_uppercase[: len(choices)])
    if not 2 <= len(choices) <= len(ascii_uppercase):
        raise UserError(f"{where}: has {len(choices)} choices", AGAIN)
    if not right or not right <= {*letters}:
        raise UserError(f"{where}: the right answer is not one of the {len(choices)} choices", AGAIN)
    return Doc(
        id=doc_id,
        group=doc_id.partition("/")[0],
        prompt=query,
        mode="choose",
        choices=tuple(f" {choice}" for choice in choices),
        labels=letters,
        target=min(right),
        right=tuple(sorted(right)) if len(right) > 1 else (),
    )


def _math_doc(doc_id: str, where: str, row: dict[str, Any]) -> Doc:
    if "query" in row:
        hub = HUB_MATH.check_row(where, row, AGAIN)
        query, answer = hub["query"], hub["answer"]
    else:
        exam = PUBLISHED_MATH.check_row(where, row, AGAIN)
        query, answer = _asked(exam, "\nA: The answer is"), exam["answer"]
    return Doc(
        id=doc_id,
        group=MATH,
        prompt=query,
        mode="generate",
        choices=(),
        labels=(),
        target=answer,
        max_new_tokens=MAX_NEW_TOKENS,
        until=UNTIL,
    )
