r"""HellaSwag (Zellers et al. 2019, arXiv:1905.07830): four endings of a scene; what the 2023 challenge was timed on.

Data: https://github.com/rowanz/hellaswag (MIT), ``data/hellaswag_val.jsonl`` and ``hellaswag_train.jsonl``; or
``Rowan/hellaswag`` on the hub. A worked row of the prompt:

    Roof shingle removal: A man is sitting on a roof. He starts pulling up roofing on a roof.

White space is lm-evaluation-harness's (0.4.13, ``hellaswag``). The context is ``ctx_a``, a space, and ``ctx_b``
with its first letter made large and all others small. Then WikiHow's marks go: " [title]"
becomes ". ", other brackets vanish with what is in them, two spaces become one, once. The same is done to the endings.
Both ``acc`` (largest sum) and ``acc_norm`` (largest sum per character of the ending) were reported in 2023.

``--protocol 2023`` asks as the 2023 challenge did, with the harness of September 2023 (``hf-causal``). Texts and
``acc_norm`` are the same there; its prompts have no BOS token, no worked examples and no chat template.

Copies without ``ctx_a`` and ``ctx_b`` exist. Their ``ctx`` ends in ``ctx_b`` where it ends amid a sentence, and
``ctx_b`` then follows the last full stop: so its letter is made large, too. Copies whose text was cleaned already
have lost the space in front of endings that began with a mark, which the harness scores.
"""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import islice

from typing_extensions import TypedDict

from eval.tasks.base import Loaded, LoadOptions, Year
from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, number
from orin_runner.schema import Schema

WITHOUT_MARKS = (
    "these rows are a copy without ctx_a and ctx_b: where its endings have lost the space that a mark such as [step] "
    "left in front, they are not scored as in 2023"
)
BRACKETS = re.compile(r"\[.*?\]")


class _Scene(TypedDict):
    activity_label: str
    endings: list[str]
    label: int | str


class _Published(_Scene):
    ctx_a: str
    ctx_b: str


class _Joined(_Scene):
    ctx: str


PUBLISHED, JOINED = Schema(_Published), Schema(_Joined)


def cleaned(value: str) -> str:
    """A text without WikiHow's marks."""
    lines = value.strip().replace(" [title]", ". ").split("\n")
    return "\n".join(map(_without_brackets, lines)).replace("  ", " ")


def _without_brackets(line: str) -> str:
    # Behind the last "]" the pattern finds nothing, and looks for it from each "[" on: of 200,000 for a minute.
    text, bracket, rest = line.rpartition("]")
    return BRACKETS.sub("", text + bracket) + rest


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
    protocols: tuple[Year, ...] = ("2023",)

    def load(self, options: LoadOptions) -> Loaded:
        found = super().load(options)
        if options.protocol is None:
            return found
        (part,) = self.parts
        first = islice(self._rows(options, part.files, part.on_hub), 1)
        lacking = (WITHOUT_MARKS,) if any(_is_joined(row) for _, row in first) else ()
        return replace(found, docs=[replace(doc, special=False) for doc in found.docs], lacking=lacking)

    def item(self, row: Row) -> Item:
        scene: _Scene
        if _is_joined(row):
            scene = joined = JOINED.check(row)
            context = _with_large_letter(joined["ctx"])
        else:
            scene = published = PUBLISHED.check(row)
            context = f"{published['ctx_a']} {published['ctx_b'].capitalize()}"
        head = cleaned(f"{scene['activity_label']}: {context}")
        return Item(head, tuple(map(cleaned, scene["endings"])), (number(scene["label"]),))


def _is_joined(row: Row) -> bool:
    return "ctx_a" not in row and "ctx_b" not in row


def _with_large_letter(context: str) -> str:
    """``ctx`` as it is where ``ctx_b`` is capitalized: what follows the last full stop, where that is no sentence."""
    if context.rstrip().endswith((".", "!", "?")):
        return context
    sentences, stop, begun = context.rpartition(". ")
    return f"{sentences}{stop}{begun.capitalize()}" if stop else context
