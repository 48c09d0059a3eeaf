"""OpenBookQA (Mihaylov et al. 2018, arXiv:1809.02789), without the book: four choices that continue the question.

Data: https://allenai.org/data/open-book-qa (Apache-2.0), ``Data/Main/test.jsonl`` and ``train.jsonl``; or
``allenai/openbookqa``, ``main``, on the hub. A worked row of the prompt:

    There is most likely going to be fog around: a marsh

White space is lm-evaluation-harness's (0.4.13, ``openbookqa``): the question alone, with no cue, as many stems are
sentences to be ended; one space before the choice.
"""

from __future__ import annotations

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, labelled


class OpenBookQA(MultipleChoice):
    """Whole choices by default."""

    name = "openbookqa"
    title = "OpenBookQA"
    source = "allenai.org/data/open-book-qa"
    licence = "Apache-2.0"
    phi3_shots: int | None = 10
    hub = ("allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454", "main")
    folders = (
        "openbookqa/Data/Main",
        "OpenBookQA-V1-Sep2018/Data/Main",
        "openbookqa/OpenBookQA-V1-Sep2018/Data/Main",
    )
    parts = (Part("test", ("test.jsonl",), ("train.jsonl", "train_first300.jsonl"), "test"),)
    cue = ""

    def item(self, row: Row) -> Item:
        stem, choices, right = labelled(row)
        return Item(stem, choices, (right,))
