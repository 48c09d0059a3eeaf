"""ANLI (Nie et al. 2020, arXiv:1910.14599): does a text entail a sentence? Three rounds of ever harder examples.

Data: https://github.com/facebookresearch/anli (CC BY-NC 4.0), ``R1/test.jsonl`` to ``R3/test.jsonl`` and
``train.jsonl`` beside each, with rows ``{"uid", "context", "hypothesis", "label": "e"/"n"/"c"}``; or ``facebook/anli``
on the hub. Where a round's ``test`` file is not there its ``dev`` file is asked, and
the run says so (``split``). A worked row of the prompt:

    Franco Zeffirelli, KBE Grande Ufficiale OMRI (] ; born 12 February 1923) is an Italian director [...]
    Question: Franco Zeffirelli had a political career True, False, or Neither?
    Answer: True

White space is lm-evaluation-harness's (0.4.13, ``anli_r1`` to ``anli_r3``): no line break between the hypothesis and
"True, False, or Neither?". The choices are " True" (entailed), " Neither" (neutral), " False" (contradicted).
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row
from orin_runner.schema import Schema

ANSWERS = ("True", "Neither", "False")


class _Published(TypedDict):
    context: str
    hypothesis: str
    label: Literal["e", "n", "c"]


class _Hub(TypedDict):
    premise: str
    hypothesis: str
    label: int


PUBLISHED, HUB = Schema(_Published), Schema(_Hub)


def _part(r: int) -> Part:
    def of(split: str, instead: Part | None = None) -> Part:
        return Part(f"r{r}", files(split), files("train"), split, f"train_r{r}", f"{split}_r{r}", instead)

    def files(split: str) -> tuple[str, ...]:
        return f"R{r}/{split}.jsonl", f"R{r}_{split}.jsonl"

    return of("test", instead=of("dev"))


class ANLI(MultipleChoice):
    """The three rounds as groups."""

    name = "anli"
    title = "ANLI"
    source = "github.com/facebookresearch/anli"
    licence = "CC BY-NC 4.0"
    phi3_shots: int | None = 7
    hub = ("facebook/anli", "8e4813d81f46d313dac7892e1c28076917cfcdf9", None)
    folders = ("anli_v1.0", "anli/anli_v1.0")
    parts = (_part(1), _part(2), _part(3))
    choice_names = ANSWERS

    def item(self, row: Row) -> Item:
        if "premise" in row:
            hub = HUB.check(row)
            premise, hypothesis, right = hub["premise"], hub["hypothesis"], hub["label"]
        else:
            published = PUBLISHED.check(row)
            premise, hypothesis, right = published["context"], published["hypothesis"], "enc".index(published["label"])
        return Item(f"{premise}\nQuestion: {hypothesis} True, False, or Neither?", ANSWERS, (right,))
