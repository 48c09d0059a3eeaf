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

import re
from collections.abc import Iterator

from typing_extensions import TypedDict

from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, Year, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, drawn, extract, placed_rows
from orin_runner.errors import UserError
from orin_runner.schema import Schema

FOLDERS = ("gsm8k", "grade-school-math/grade_school_math/data", "gsm8k/grade_school_math/data")
HUB = ("openai/gsm8k", "e53f048856ff4f594e959d75785d2c2d37b678ee", "main")
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")


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
    until: tuple[str, ...] = ("Question:", "</s>", "<|im_end|>")
    strict = STRICT

    def load(self, options: LoadOptions) -> Loaded:
        starts = self._starts(options)
        docs = [
            Doc(
                id=str(i),
                group="test",
                prompt=next(starts) + self._asked(question),
                mode="generate",
                choices=(),
                labels=(),
                target=cleaned(answer.rpartition("#### ")[2]),
                max_new_tokens=MAX_NEW_TOKENS,
                until=self.until,
            )
            for i, (question, answer) in enumerate(_rows(options, self.splits[0]))
        ]
        return loaded(docs, self.splits[0], options)

    def _asked(self, question: str) -> str:
        return f"Question: {question}\nAnswer:"

    def _starts(self, options: LoadOptions) -> Iterator[str]:
        """The worked examples in front of one question after the other."""
        shots = shots_of(self, options)
        worked = _rows(options, "train") if shots else []
        if shots:
            shots_of(self, options, len(worked))
        return drawn([f"{self._asked(question)} {answer}\n\n" for question, answer in worked], shots)

    def normalize(self, text: str) -> str:
        return cleaned(extract(self.strict, text))

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        return {
            "strict-match": float(self.normalize(text) == doc.target),
            "flexible-extract": float(cleaned(extract(FLEXIBLE, text, -1)) == doc.target),
        }


def _rows(options: LoadOptions, split: str) -> list[tuple[str, str]]:
    rows = []
    names = [f"{folder}/{split}.jsonl" for folder in FOLDERS]
    for where, row in placed_rows(options.data, HUB, split, names, FOLDERS[:1]):
        found = ROW.check_row(where, row, AGAIN)
        if "#### " not in found["answer"]:
            raise UserError(f"{where}: 'answer' has no '#### '", AGAIN)
        rows.append((found["question"], found["answer"]))
    return rows
