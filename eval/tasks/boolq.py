"""BoolQ (Clark et al. 2019, arXiv:1905.10044): a passage, and a question that is answered by no or yes.

Data: https://github.com/google-research-datasets/boolean-questions (CC BY-SA 3.0), ``dev.jsonl`` and ``train.jsonl``
with rows ``{"question", "title", "answer": true/false, "passage"}``; or SuperGLUE's copy, ``BoolQ/val.jsonl`` or
``aps/super_glue``, ``boolq``, on the hub. A worked row of the prompt:

    Ethanol fuel -- All biomass goes through at least some of these steps: it needs to be grown, [...]
    Question: does ethanol take more energy make that produces?
    Answer: no

White space is lm-evaluation-harness's (0.4.13, ``boolq``), which reads SuperGLUE's copy; that one puts the article's
title and " -- " in front of the passage, so the original rows get them here. (The hub's
``google/boolq`` has no titles, so prompts from a copy of it lack them.) The choices are " no" and " yes", in this
order.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row
from orin_runner.schema import Schema


class _Published(TypedDict):
    question: str
    passage: str
    answer: bool


class _Copied(TypedDict):
    question: str
    passage: str
    label: bool | int


class _Titled(TypedDict):
    title: str


PUBLISHED, COPIED, TITLED = Schema(_Published), Schema(_Copied), Schema(_Titled)


class BoolQ(MultipleChoice):
    """Whole choices by default."""

    name = "boolq"
    title = "BoolQ"
    source = "github.com/google-research-datasets/boolean-questions"
    licence = "CC BY-SA 3.0"
    phi3_shots: int | None = 2
    hub = ("aps/super_glue", "3de24cf8022e94f4ee4b9d55a6f539891524d646", "boolq")
    folders = ("BoolQ", "boolq/BoolQ", "google/boolq")
    parts = (Part("validation", ("dev.jsonl", "val.jsonl"), ("train.jsonl", "train_first500.jsonl"), "validation"),)
    choice_names = ("no", "yes")

    def item(self, row: Row) -> Item:
        if "label" in row:
            copied = COPIED.check(row)
            question, passage, right = copied["question"], copied["passage"], int(copied["label"])
        else:
            published = PUBLISHED.check(row)
            question, passage, right = published["question"], published["passage"], int(published["answer"])
        title = TITLED.check(row)["title"] if "title" in row else None
        passage = passage if title is None else f"{title} -- {passage}"
        return Item(f"{passage}\nQuestion: {question}?", ("no", "yes"), (right,))
