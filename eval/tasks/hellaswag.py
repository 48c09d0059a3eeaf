r"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): four endings of a scene; what the 2023 challenge was timed on.

Data: https://github.com/rowanz/hellaswag (MIT), ``data/hellaswag_val.jsonl`` and ``hellaswag_train.jsonl``; or
``Rowan/hellaswag`` on the hub. A worked row of the prompt:

    Roof shingle removal: A man is sitting on a roof. He starts pulling up roofing on a roof.

White space is lm-evaluation-harness's (0.4.13, ``hellaswag``). The context is ``ctx_a``, a space, and ``ctx_b``
with its first letter made large and all others small. Then WikiHow's marks go: " [title]"
becomes ". ", other brackets vanish with what is in them, two spaces become one, once. The same is done to the endings.
Both ``acc`` (largest sum) and ``acc_norm`` (largest sum per character of the ending) were reported in 2023.

Copies without ``ctx_a`` and ``ctx_b`` exist whose text was cleaned so already; they are taken as they are, and differ
from the original in the large letter.
"""

from __future__ import annotations

import re

from typing_extensions import TypedDict

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, number
from orin_runner.schema import Schema

BRACKETS = re.compile(r"\[.*?\]")


class _Scene(TypedDict):
    activity_label: str
    endings: list[str]
    label: int | str


class _Published(_Scene):
    ctx_a: str
    ctx_b: str


class _Cleaned(_Scene):
    ctx: str


PUBLISHED, CLEANED = Schema(_Published), Schema(_Cleaned)


def cleaned(value: str) -> str:
    """A text without WikiHow's marks."""
    return BRACKETS.sub("", value.strip().replace(" [title]", ". ")).replace("  ", " ")


class HellaSwag(MultipleChoice):
    """Whole endings by default."""

    name = "hellaswag"
    title = "HellaSwag"
    source = "github.com/rowanz/hellaswag"
    licence = "MIT"
    phi3_shots: int | None = 5
    hub = ("Rowan/hellaswag", "218ec52e09a7e7462a5400043bb9a69a41d06b76", None)
    folders = ("hellaswag/data",)
    parts = (
        Part(
            "validation",
            ("hellaswag_val.jsonl",),
            ("hellaswag_train.jsonl", "fewshot_train_5.jsonl"),
            "validation",
        ),
    )
    cue = ""

    def item(self, row: Row) -> Item:
        if "ctx_a" not in row and "ctx_b" not in row:
            copy = CLEANED.check(row)
            return Item(f"{copy['activity_label']}: {copy['ctx']}", tuple(copy["endings"]), (number(copy["label"]),))
        found = PUBLISHED.check(row)
        scene = f"{found['activity_label']}: {found['ctx_a']} {found['ctx_b'].capitalize()}"
        return Item(cleaned(scene), tuple(map(cleaned, found["endings"])), (number(found["label"]),))
