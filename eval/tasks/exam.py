"""The exam: reading and look-up questions about invented people, for the tiny model in this repository.

480 held-out items made by ``tests/tiny_phi3/exam_items.py``: 360 in the 2024 challenge's form (greedy text, exact
match) and 120 by letter. A quarter are longer than the tiny model's 256-token window. The letters' prompts end in
"Answer:" and the answer is a space and a letter, as in MMLU.
"""

from __future__ import annotations

from pathlib import Path

from eval.data.readers import read_jsonl
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, letter_doc, loaded
from eval.tasks.challenge import challenge_doc, challenge_text
from orin_runner.errors import UserError
from orin_runner.model.chat_template import Message

FILE = Path(__file__).parent.parent / "data" / "exam.jsonl"


class Exam(ExactMatch):
    """The exam's JSON lines."""

    name = "exam"
    title = "Exam"
    source = "this repository"
    licence = "MIT"
    metric = "exact match of the greedy text; letter with the highest log-probability"
    default_shots = 0
    splits: tuple[str, ...] = ()

    def load(self, options: LoadOptions) -> Loaded:
        if options.shots:
            raise UserError("the exam has no worked examples", "leave --shots out")
        docs = []
        for _, row in read_jsonl(FILE):
            if row["form"] == "text":
                message: list[Message] = [{"role": "user", "content": row["prompt"]}]
                docs.append(challenge_doc(row["id"], "text", message, row["answer"]))
            else:
                docs.append(letter_doc(row["id"], "letters", row["prompt"], row["answer"]))
        return loaded(docs, None, options)

    def normalize(self, text: str) -> str:
        return challenge_text(text)
