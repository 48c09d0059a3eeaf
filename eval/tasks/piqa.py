"""PIQA (Bisk et al. 2020, arXiv:1911.11641): two ways to reach a goal in the physical world.

Data: https://yonatanbisk.com/piqa (Academic Free License 3.0), ``valid.jsonl`` and ``train.jsonl`` with rows
``{"goal", "sol1", "sol2"}`` beside ``valid-labels.lst`` and ``train-labels.lst``; or ``baber/piqa`` on the hub.
A worked row of the prompt:

    Question: How do I clean a pan?
    Answer: With salt.

White space is lm-evaluation-harness's (0.4.13, ``piqa``): goal and solutions verbatim, one space before the solution.
"""

from __future__ import annotations

from typing_extensions import TypedDict

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, number
from orin_runner.schema import Schema


class _Row(TypedDict):
    goal: str
    sol1: str
    sol2: str
    label: int | str


ROW = Schema(_Row)


class PIQA(MultipleChoice):
    """Whole solutions by default."""

    name = "piqa"
    title = "PIQA"
    source = "yonatanbisk.com/piqa"
    licence = "AFL-3.0"
    phi3_shots: int | None = 5
    hub = ("baber/piqa", "142f6d7367fd9877f0fb3b5734ea6a545f54cdd1", None)
    folders = ("piqa/data", "physicaliqa-train-dev", "piqa/physicaliqa-train-dev")
    parts = (Part("validation", ("valid.jsonl", "dev.jsonl"), ("train.jsonl",), "validation"),)
    labels_apart = True

    def item(self, row: Row) -> Item:
        found = ROW.check(row)
        return Item(f"Question: {found['goal']}", (found["sol1"], found["sol2"]), (number(found["label"]),))
