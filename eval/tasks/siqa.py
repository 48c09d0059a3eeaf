"""Social IQa (Sap et al. 2019, arXiv:1904.09728): three answers to a question about what people do and feel.

Data: https://leaderboard.allenai.org/socialiqa (CC BY 4.0), ``dev.jsonl`` and ``train.jsonl`` with rows
``{"context", "question", "answerA", "answerB", "answerC"}`` beside ``dev-labels.lst`` and ``train-labels.lst`` (1, 2,
3); or ``lighteval/siqa`` on the hub. A worked row of the prompt:

    Q: Tracy didn't go home that evening and resisted Riley's attacks. What does Tracy need to do before this?
    A: Find somewhere to go

White space is lm-evaluation-harness's (0.4.13, ``social_iqa``): one space between context and question, one before the
answer, all of them verbatim.
"""

from __future__ import annotations

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, number, text


class SocialIQa(MultipleChoice):
    """Whole answers by default."""

    name = "siqa"
    title = "Social IQa"
    source = "leaderboard.allenai.org/socialiqa"
    licence = "CC BY 4.0"
    phi3_shots: int | None = 5
    hub = ("lighteval/siqa", "54c6a1f8cb6daf4f5abf24a601852612fb35eb25", None)
    parts = (
        Part(
            "validation",
            ("siqa/dev.jsonl", "socialiqa-train-dev/dev.jsonl"),
            ("siqa/train.jsonl", "socialiqa-train-dev/train.jsonl"),
            "validation",
        ),
    )
    cue = "\nA:"
    labels_apart = True

    def item(self, row: Row) -> Item:
        answers = tuple(text(row, f"answer{letter}") for letter in "ABC")
        return Item(f"Q: {text(row, 'context')} {text(row, 'question')}", answers, (number(row, "label") - 1,))
