r"""TriviaQA (Joshi et al. 2017, arXiv:1705.03551): trivia without the documents, answered by a short text.

Data: ``mandarjoshi/trivia_qa`` on the hub (licence not stated), configuration ``rc.nocontext``, or a copy of it:
``trivia_qa/rc.nocontext/validation-*.parquet``, and ``train-*.parquet`` for the worked examples. (The archives of
https://nlp.cs.washington.edu/triviaqa/ divide the same questions otherwise and are not read.) A row has a ``question``
and an ``answer`` whose ``aliases`` are all right. A worked row of the prompt:

    Question: Which planet is nearest to the sun??
    Answer: Mercury

    [four more] [the question itself, ending in "Answer:"]

White space and protocol are lm-evaluation-harness's (0.4.13, ``triviaqa``): a question mark behind the question even
where it has one, one space behind "Answer:", a blank line between examples, no worked examples by default. With
``--shots N`` each question has examples of its own: N + 1 are drawn without replacement from all of train by one
``random.Random(1234)`` that goes through the questions in their order, and the last is dropped; their answer is the
first alias. The text ends at a line break, a full stop or a comma. White space around it goes, then case and ASCII
punctuation do not count; it is right where it equals one of the aliases.
"""

from __future__ import annotations

import string
from collections.abc import Iterator

from typing_extensions import TypedDict

from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, Year, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, drawn, placed_rows
from orin_runner.errors import UserError
from orin_runner.schema import Schema

HUB = ("mandarjoshi/trivia_qa", "0f7faf33a3908546c6fd5b73a660e0f8ff173c2f", "rc.nocontext")
SPARE = 1
"""Worked examples that are drawn beyond those that are shown."""
UNTIL = ("\n", ".", ",")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class _Answer(TypedDict):
    aliases: list[str]


class _Row(TypedDict):
    question: str
    answer: _Answer


ROW = Schema(_Row)


class TriviaQA:
    """Questions, as text."""

    name = "triviaqa"
    title = "TriviaQA, without context"
    source = "nlp.cs.washington.edu/triviaqa"
    licence = "not stated"
    metric = "exact match with one of the accepted answers"
    metrics: tuple[str, ...] = ("exact_match",)
    default_shots = 0
    phi3_shots: int | None = 5
    protocols: tuple[Year, ...] = ()
    splits: tuple[str, ...] = ("validation",)

    def load(self, options: LoadOptions) -> Loaded:
        shots = shots_of(self, options)
        worked = [f"{_asked(question)} {aliases[0]}\n\n" for question, aliases in _rows(options, "train", shots)]
        shots_of(self, options, len(worked) - SPARE if shots else None)
        starts = drawn(worked, shots, SPARE)
        docs = [
            Doc(
                id=str(i),
                group="validation",
                prompt=next(starts) + _asked(question),
                mode="generate",
                choices=(),
                labels=(),
                target=aliases[0],
                max_new_tokens=MAX_NEW_TOKENS,
                until=UNTIL,
                references=tuple(aliases[1:]),
            )
            for i, (question, aliases) in enumerate(_rows(options, self.splits[0]))
        ]
        return loaded(docs, self.splits[0], options)

    def normalize(self, text: str) -> str:
        return _without_case_and_punctuation(text.strip())

    def score(self, doc: Doc, text: str) -> dict[str, float]:
        accepted = map(_without_case_and_punctuation, (doc.target, *doc.references))
        return {"exact_match": float(self.normalize(text) in accepted)}


def _asked(question: str) -> str:
    return f"Question: {question}?\nAnswer:"


def _without_case_and_punctuation(text: str) -> str:
    return text.lower().translate(PUNCTUATION)


def _rows(options: LoadOptions, split: str, wanted: int | None = None) -> Iterator[tuple[str, list[str]]]:
    """Question and aliases of each row; nothing is read where none is ``wanted``."""
    if wanted == 0:
        return
    for where, row in placed_rows(options.data, HUB, split, [f"triviaqa/{split}.jsonl"], ("triviaqa",)):
        found = ROW.check_row(where, row, AGAIN)
        if not found["answer"]["aliases"]:
            raise UserError(f"{where}: 'answer.aliases' is empty", AGAIN)
        yield found["question"], found["answer"]["aliases"]
