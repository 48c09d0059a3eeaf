"""WinoGrande (Sakaguchi et al. 2019, arXiv:1907.10641): which of two words a sentence is about.

Data: https://winogrande.allenai.org (CC BY 2.0), ``dev.jsonl`` and ``train_xl.jsonl`` (or a smaller one) with rows
``{"sentence" with a "_", "option1", "option2", "answer": "1"/"2"}``; or ``allenai/winogrande``, ``winogrande_xl``, on
the hub. A worked row, the first option in its place:

    Sarah was a much better surgeon than Maria so Sarah always got the easier cases.

Each option is put for the "_", and what follows it is scored after each ("partial evaluation", Trinh and Le 2018): two
prompts, one continuation. White space is lm-evaluation-harness's (0.4.13, ``winogrande``): the part before "_"
verbatim, the part after it stripped and behind one space.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from typing_extensions import TypedDict

from eval.tasks.base import Loaded, LoadOptions, Scoring
from eval.tasks.doc import Doc
from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row
from orin_runner.errors import UserError
from orin_runner.schema import Schema

BLANK = "_"
SIZES = ("xl", "l", "m", "s", "xs")


class _Row(TypedDict):
    sentence: str
    option1: str
    option2: str
    answer: Literal["1", "2", 1, 2]


ROW = Schema(_Row)


class WinoGrande(MultipleChoice):
    """The rest of the sentence after each option."""

    name = "winogrande"
    title = "WinoGrande"
    source = "winogrande.allenai.org"
    licence = "CC BY 2.0"
    metric = "option after which the rest has the highest log-probability"
    metrics: tuple[str, ...] = ("acc",)
    phi3_shots: int | None = 5
    hub = ("allenai/winogrande", "01e74176c63542e6b0bcb004dcdea22d94fb67b5", "winogrande_xl")
    folders = ("winogrande_1.1", "winogrande/winogrande_1.1", "winogrande/data")
    parts = (Part("validation", ("dev.jsonl",), tuple(f"train_{size}.jsonl" for size in SIZES), "validation"),)

    choice_names = ("1", "2")

    def load(self, options: LoadOptions) -> Loaded:
        if options.scoring == "letters":
            raise UserError("WinoGrande's options stand within the sentence", "omit --scoring")
        return super().load(options)

    def item(self, row: Row) -> Item:
        found = ROW.check(row)
        if BLANK not in found["sentence"]:
            raise ValueError(f"'sentence' has no {BLANK!r}")
        return Item(found["sentence"], (found["option1"], found["option2"]), (int(found["answer"]) - 1,))

    def example(self, item: Item, scoring: Scoring) -> str:  # noqa: ARG002 - there is one way only
        before, _, after = item.head.partition(BLANK)
        return f"{before}{item.choices[item.right[0]]} {after.strip()}"

    def doc(self, doc_id: str, group: str, item: Item, start: str, scoring: Scoring) -> Doc:
        before, _, after = item.head.partition(BLANK)
        doc = super().doc(doc_id, group, item, start, scoring)
        prompts = tuple(f"{start}{before}{option}" for option in item.choices)
        return replace(doc, prompt="", prompts=prompts, choices=(f" {after.strip()}",) * 2)
