"""Social IQa (Sap et al. 2019, arXiv:1904.09728): three answers to a question about what people do and feel.

Data: https://leaderboard.allenai.org/socialiqa (CC BY 4.0), ``dev.jsonl`` and ``train.jsonl`` with rows
``{"context", "question", "answerA", "answerB", "answerC"}`` beside ``dev-labels.lst`` and ``train-labels.lst`` (1, 2,
3), or the older ``socialIQa_v1.4_dev.jsonl``, whose rows have ``"correct": "A"``; or ``lighteval/siqa`` on the hub. A
worked row of the prompt:

    Q: Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do before this?
    A: Find somewhere to go

White space is lm-evaluation-harness's (0.4.13, ``social_iqa``): one space between context and question, one before the
answer, all of them verbatim.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, number
from orin_runner.schema import Schema

LETTERS = ("A", "B", "C")


class _Row(TypedDict):
    context: str
    question: str
    answerA: str
    answerB: str
    answerC: str


class _Published(_Row):
    label: int | str


class _Older(_Row):
    correct: Literal["A", "B", "C"]


PUBLISHED, OLDER = Schema(_Published), Schema(_Older)


class SocialIQa(MultipleChoice):
    """Whole answers by default."""

    name = "siqa"
    title = "Social IQa"
    source = "leaderboard.allenai.org/socialiqa"
    licence = "CC BY 4.0"
    phi3_shots: int | None = 5
    hub = ("lighteval/siqa", "54c6a1f8cb6daf4f5abf24a601852612fb35eb25", None)
    folders = (
        "socialiqa-train-dev",
        "siqa/socialiqa-train-dev",
        "social_i_qa",
        "socialIQa_v1.4",
        "siqa/socialIQa_v1.4",
    )
    parts = (
        Part(
            "validation",
            ("dev.jsonl", "socialIQa_v1.4_dev.jsonl"),
            ("train.jsonl", "socialIQa_v1.4_trn.jsonl"),
            "validation",
        ),
    )
    cue = "\nA:"
    labels_apart = True

    def item(self, row: Row) -> Item:
        found: _Row
        if "correct" in row:
            found = older = OLDER.check(row)
            right = LETTERS.index(older["correct"])
        else:
            found = published = PUBLISHED.check(row)
            right = number(published["label"]) - 1
        answers = (found["answerA"], found["answerB"], found["answerC"])
        return Item(f"Q: {found['context']} {found['question']}", answers, (right,))
