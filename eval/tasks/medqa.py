"""MedQA (Jin et al. 2020, arXiv:2009.13081): United States medical licensing examination, four choices, by letter.

Data: https://github.com/jind11/MedQA (MIT), of ``data_clean/questions/US/4_options/`` the file
``phrases_no_exclude_test.jsonl`` and for worked examples ``phrases_no_exclude_train.jsonl``; or
``GBaker/MedQA-USMLE-4-options-hf`` on the hub, whose ``test.json`` and ``train.json`` have the same questions by
columns. A worked row of the prompt:

    Question: A man cannot taste. Which nerve is it?
    A. Facial
    B. Optic
    C. Vagus
    D. Ulnar
    Answer: A

White space is lm-evaluation-harness's (0.4.13, ``medqa_4options``): question and choices verbatim, one space between
"Answer:" and the letter, so the letter's token is the one with a leading space.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from eval.tasks.base import LETTERS, Scoring
from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row
from orin_runner.schema import Schema

Letter = Literal["A", "B", "C", "D"]


class _Options(TypedDict):
    A: str
    B: str
    C: str
    D: str


class _Published(TypedDict):
    question: str
    options: _Options
    answer_idx: Letter


class _Hub(TypedDict):
    sent1: str
    ending0: str
    ending1: str
    ending2: str
    ending3: str
    label: Literal[0, 1, 2, 3]


PUBLISHED, HUB = Schema(_Published), Schema(_Hub)


class MedQA(MultipleChoice):
    """Letters by default."""

    name = "medqa"
    title = "MedQA, four options"
    source = "github.com/jind11/MedQA"
    licence = "MIT"
    metric = "letter with the highest log-probability"
    phi3_shots: int | None = 2
    hub = ("GBaker/MedQA-USMLE-4-options-hf", "17af9355ef89fba60de966eabaeba797c695f86e", None)
    folders = tuple(
        f"{above}{folder}"
        for above in ("medqa/", "MedQA/", "")
        for folder in ("questions/US/4_options", "data_clean/questions/US/4_options")
    )
    parts = (Part("test", ("phrases_no_exclude_test.jsonl",), ("phrases_no_exclude_train.jsonl",), "test"),)
    scoring: Scoring = "letters"

    def item(self, row: Row) -> Item:
        if "sent1" in row:
            hub = HUB.check(row)
            choices = (hub["ending0"], hub["ending1"], hub["ending2"], hub["ending3"])
            return Item(f"Question: {hub['sent1']}", choices, (hub["label"],))
        published = PUBLISHED.check(row)
        options = published["options"]
        choices = (options["A"], options["B"], options["C"], options["D"])
        return Item(f"Question: {published['question']}", choices, (LETTERS.index(published["answer_idx"]),))
