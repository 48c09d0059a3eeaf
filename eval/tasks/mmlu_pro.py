r"""MMLU-Pro (Wang et al. 2024, arXiv:2406.01574): 14 subjects, up to ten choices, chain of thought.

Data: ``TIGER-Lab/MMLU-Pro`` on the hub (MIT), or a copy of it: ``MMLU-Pro/data/test-*.parquet`` and, for the worked
examples, ``validation-*.parquet``. A row has ``question``, ``options``, ``answer`` (a letter), ``category`` and
``cot_content``. A worked row of the prompt:

    The following are multiple choice questions (with answers) about computer science. Think step by step and then
    finish your answer with "the answer is (X)" where X is the correct letter choice.

    Question:
    How many bits has a byte?
    Options:
    A. four
    B. eight
    Answer: Let's think step by step. A byte has eight. The answer is (B).

    [four more] [the question itself, ending in "Answer: Let's think step by step."]

White space and protocol are lm-evaluation-harness's (0.4.13, ``mmlu_pro``): the first two lines above are one line and
no blank line follows them; options are stripped, questions are not, and of more than ten options ten are shown; a blank
line separates examples, which are the subject's first ones of the validation split. The text ends at "Question:". The
answer is the letter behind the first "answer is ", in parentheses or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import ascii_uppercase
from typing import Literal

from typing_extensions import TypedDict

from eval.data.text_file import AGAIN
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import extract, placed_rows
from eval.tasks.multiple_choice import lettered
from orin_runner.errors import UserError
from orin_runner.schema import Schema

HUB = ("TIGER-Lab/MMLU-Pro", "b189ec765aa7ed75c8acfea42df31fdae71f97be", None)
SUBJECTS = tuple(
    """biology business chemistry computer_science economics engineering health history law math other philosophy
    physics psychology""".split()
)
Category = Literal[
    "biology", "business", "chemistry", "computer science", "economics", "engineering", "health", "history", "law",
    "math", "other", "philosophy", "physics", "psychology",
]  # fmt: skip
MOST_OPTIONS = 10
MAX_NEW_TOKENS = 2048
ANSWER = re.compile(r"answer is \(?([ABCDEFGHIJ])\)?")
COT = "A: Let's think step by step. "
"""What ``cot_content`` begins with, and the prompt already ends in."""


class _Row(TypedDict):
    question: str
    options: list[str]
    answer: Literal["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]
    category: Category


class _Worked(_Row):
    cot_content: str


ROW, WORKED = Schema(_Row), Schema(_Worked)


class MMLUPro(ExactMatch):
    """5-shot chain of thought, per subject and weighted by questions."""

    name = "mmlu_pro"
    title = "MMLU-Pro"
    source = "huggingface.co/datasets/TIGER-Lab/MMLU-Pro"
    licence = "MIT"
    metric = "exact match of the letter behind 'answer is'"
    default_shots = 5
    splits: tuple[str, ...] = ("test",)
    folders = ("MMLU-Pro/data", "TIGER-Lab/MMLU-Pro/data")

    def load(self, options: LoadOptions) -> Loaded:
        shots = shots_of(self, options)
        worked: dict[str, list[str]] = {subject: [] for subject in SUBJECTS}
        if shots:
            for where, row in _placed(options, "validation"):
                example = WORKED.check_row(where, row, AGAIN)
                answer = example["cot_content"].replace(COT, "")
                worked[_subject(example)].append(f"{_asked(example)} {answer}\n\n")
        asked: dict[str, list[_Row]] = {subject: [] for subject in SUBJECTS}
        for where, row in _placed(options, self.splits[0]):
            found = ROW.check_row(where, row, AGAIN)
            if found["answer"] not in ascii_uppercase[: len(found["options"])]:
                raise UserError(f"{where}: the answer is not one of the {len(found['options'])} options", AGAIN)
            asked[_subject(found)].append(found)
        docs = []
        for subject, rows in asked.items():
            if rows and shots:
                shots_of(self, options, len(worked[subject]), subject)
            start = _rule(subject) + "".join(worked[subject][:shots])
            docs += [_doc(subject, i, start, row) for i, row in enumerate(rows)]
        return loaded(docs, self.splits[0], options)

    def normalize(self, text: str) -> str:
        return extract(ANSWER, text)


def _rule(subject: str) -> str:
    return (
        f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}. Think step by "
        'step and then finish your answer with "the answer is (X)" where X is the correct letter choice.\n'
    )


def _asked(row: _Row) -> str:
    options = lettered([option.strip() for option in row["options"][:MOST_OPTIONS]])
    return f"Question:\n{row['question']}\nOptions:\n{options}\nAnswer: Let's think step by step."


def _doc(subject: str, i: int, start: str, row: _Row) -> Doc:
    return Doc(
        id=f"{subject}/{i}",
        group=subject,
        prompt=start + _asked(row),
        mode="generate",
        choices=(),
        labels=(),
        target=row["answer"],
        max_new_tokens=MAX_NEW_TOKENS,
        until=("Question:",),
    )


def _subject(row: _Row) -> str:
    return row["category"].replace(" ", "_")


def _placed(options: LoadOptions, split: str) -> Iterator[tuple[str, dict[str, object]]]:
    yield from placed_rows(options.data, HUB, split, [f"mmlu_pro/{split}.jsonl"], ("mmlu_pro",))
