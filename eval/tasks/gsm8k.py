r"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade school mathematics, worked out in text.

Data: https://github.com/openai/grade-school-math (MIT), ``gsm8k/test.jsonl`` and, for the worked examples,
``gsm8k/train.jsonl``; or ``openai/gsm8k`` on the hub. A row is
``{"question": ..., "answer": ...}``. A worked row of the prompt:

    Question: Tom has 3 apples and eats one. How many are left?
    Answer: He has 3-1=<<3-1=2>>2.
    #### 2

    [four more] [the question itself, ending in "Answer:"]

White space and protocol are lm-evaluation-harness's (0.4.13, ``gsm8k``): questions and answers verbatim, one space
behind "Answer:", a blank line between examples. Each question has worked examples of its own: drawn without replacement
from all of train by one ``random.Random(1234)`` that goes through the questions in their order. The text ends at
"Question:", "</s>" or "<|im_end|>". Strict match takes the first number behind "#### "; flexible extract the last
number of the text. Commas, dollar signs and a full stop at the end are removed before the comparison.

Phi-3's report has 8-shot chain of thought; its examples are not published. ``--shots phi3`` draws eight from train.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from typing import Any

from typing_extensions import TypedDict

from eval.data.hub_copy import published_or_copied, split_folders
from eval.data.readers import read_hub, read_rows
from eval.tasks.base import Loaded, LoadOptions, Year, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, extract
from orin_runner.errors import UserError
from orin_runner.schema import Schema

FOLDERS = ("gsm8k", "grade-school-math/grade_school_math/data", "gsm8k/grade_school_math/data")
HUB = ("openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee")
UNTIL = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
HARNESS_SEED = 1234
"""lm-evaluation-harness's ``fewshot_random_seed``."""


class _Row(TypedDict):
    question: str
    answer: str


ROW = Schema(_Row)


def cleaned(answer: str) -> str:
    """An answer as it is compared."""
    return re.sub(r"\.$", "", re.sub("[,$]", "", answer)).lower()


class GSM8K:
    """The numbers at the end of worked out texts."""

    name = "gsm8k"
    title = "GSM8K"
    source = "github.com/openai/grade-school-math"
    licence = "MIT"
    metric = "exact match of the number behind '####'"
    metrics: tuple[str, ...] = ("strict-match", "flexible-extract")
    default_shots = 5
    phi3_shots: int | None = 8
    protocols: tuple[Year, ...] = ()
    splits: tuple[str, ...] = ("test",)
    folders = FOLDERS[1:]

    def load(self, options: LoadOptions) -> Loaded:
        shots = shots_of(self, options)
        worked = _rows(options, "train") if shots else []
        if shots:
            shots_of(self, options, len(worked))
        rng = random.Random(HARNESS_SEED)
        docs = []
        for i, (question, answer) in enumerate(_rows(options, self.splits[0])):
            examples = [f"Question: {q}\nAnswer: {a}\n\n" for q, a in rng.sample(worked, shots)]
            docs.append(
                Doc(
                    id=str(i),
                    group="test",
                    prompt="".join(examples) + f"Question: {question}\nAnswer:",
                    mode="generate",
                    choices=(),
                    labels=(),
                    target=cleaned(answer.rpartition("#### ")[2]),
                    max_new_tokens=MAX_NEW_TOKENS,
                    until=UNTIL,
                )
            )
        return loaded(docs, self.splits[0], options)

    def normalize(self, text: str) -> str:
        return cleaned(extract(STRICT, text))

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        return {
            "strict-match": float(self.normalize(text) == doc.target),
            "flexible-extract": float(cleaned(extract(FLEXIBLE, text, -1)) == doc.target),
        }


def _rows(options: LoadOptions, split: str) -> list[tuple[str, str]]:
    rows = []
    for where, row in _placed(options, split):
        found = ROW.check_row(where, row)
        if "#### " not in found["answer"]:
            raise UserError(f"{where}: 'answer' has no '#### '")
        rows.append((found["question"], found["answer"]))
    return rows


def _placed(options: LoadOptions, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows, each with where it stands."""
    if options.data is None:
        yield from ((f"{HUB[0]}, {split}, row {i}", row) for i, row in enumerate(read_hub(*HUB, "main", split)))
        return
    names = [f"{folder}/{split}.jsonl" for folder in FOLDERS]
    folders = split_folders((FOLDERS[0], HUB[0]), "main")
    for path in published_or_copied(options.data, names, folders, split, HUB[0]):
        yield from read_rows(path)
