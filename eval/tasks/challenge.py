r"""Samsung's Computer Engineering Challenge 2024, in the organisers' own form: greedy text, exact match.

Data: https://github.com/cechallenge/cechallenge.github.io, ``assets/files/test_dataset.jsonl`` (30 OpenBookQA items)
and ``sample_longest_data.jsonl``. A row is ``{"message": [{"role": "user", "content": ...}], "answer": ...}``; the
content ends in a ``choices:`` line with a Python list. Protocol: chat template, greedy decoding, max_new_tokens 500;
correct means ``generated_text.lstrip().replace("\n", "") == answer``.

White space: the content begins and ends with a newline and goes into the template as it is; Phi-3's ``<|user|>`` strips
the white space after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from eval.data.readers import DATA, read_jsonl
from eval.data.text_file import AGAIN
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, loaded
from eval.tasks.doc import Doc
from orin_runner.errors import UserError
from orin_runner.model.candidates import choices_in
from orin_runner.model.chat_template import Message
from orin_runner.schema import Schema

MAX_NEW_TOKENS = 500


def challenge_text(text: str) -> str:
    """A generated text as the organisers compare it."""
    return text.lstrip().replace("\n", "")


class _Message(TypedDict):
    role: str
    content: str


class _Row(TypedDict):
    message: list[_Message]
    answer: str


ROW = Schema(_Row)


def challenge_doc(doc_id: str, group: str, messages: Sequence[Message], answer: str) -> Doc:
    """A question in the challenge's form."""
    return Doc(
        id=doc_id,
        group=group,
        prompt=tuple(messages),
        mode="generate",
        choices=choices_in(messages[-1]["content"]),
        labels=(),
        target=answer,
        max_new_tokens=MAX_NEW_TOKENS,
    )


class Challenge(ExactMatch):
    """The 2024 challenge's JSON lines."""

    name = "challenge"
    title = "2024 challenge"
    source = "github.com/cechallenge/cechallenge.github.io"
    licence = "MIT"
    metric = "exact match of the greedy text"
    default_shots = 0
    splits: tuple[str, ...] = ()

    def load(self, options: LoadOptions) -> Loaded:
        if options.shots:
            raise UserError("the challenge has no worked examples", "leave --shots out")
        if options.data is None:
            raise UserError(
                "the challenge's data is not on the hub", "--data FILE.jsonl, or a folder with cechallenge2024/*.jsonl"
            )
        docs = []
        for path in _files(options.data):
            name = path.name.removesuffix(".gz").removesuffix(".jsonl")
            for line, row in read_jsonl(path):
                messages, answer = _checked(row, f"{path}, line {line}")
                docs.append(challenge_doc(f"{name}/{line}", name, messages, answer))
        return loaded(docs, None, options)

    def normalize(self, text: str) -> str:
        return challenge_text(text)


def _checked(row: dict[str, Any], where: str) -> tuple[list[Message], str]:
    found = ROW.check_row(where, row, AGAIN)
    if not found["message"]:
        raise UserError(f"{where}: 'message' is empty", AGAIN)
    return [{"role": each["role"], "content": each["content"]} for each in found["message"]], found["answer"]


def _files(data: Path) -> list[Path]:
    if not data.exists():
        raise UserError(f"{data} does not exist", DATA)
    if not data.is_dir():
        return [data]
    folder = data / "cechallenge2024" if (data / "cechallenge2024").is_dir() else data
    paths = [*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]
    found = sorted(paths, key=lambda path: (not path.name.startswith("test_dataset."), path.name))
    if not found:
        raise UserError(f"{folder} holds no .jsonl file", "--data names the folder that holds cechallenge2024/")
    return found
