r"""Samsung's Computer Engineering Challenge 2024, in the organisers' own form: greedy text, exact match.

Data: https://github.com/cechallenge/cechallenge.github.io, ``assets/files/test_dataset.jsonl`` (30 OpenBookQA items)
and ``sample_longest_data.jsonl``. A row is ``{"message": [{"role": "user", "content": ...}], "answer": ...}``; the
content ends in a ``choices:`` line with a Python list. Protocol: chat template, greedy decoding, max_new_tokens 500;
correct means ``generated_text.lstrip().replace("\n", "") == answer``.

White space: the content begins and ends with a newline and goes into the template as it is; Phi-3's ``<|user|>`` strips
the white space after it.
"""

from __future__ import annotations

from pathlib import Path

from eval.data.readers import DATA, read_jsonl
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, loaded
from eval.tasks.doc import Doc
from orin_runner.errors import UserError
from orin_runner.model.candidates import choices_in

MAX_NEW_TOKENS = 500


def challenge_text(text: str) -> str:
    """A generated text as the organisers compare it."""
    return text.lstrip().replace("\n", "")


def challenge_doc(doc_id: str, group: str, messages: object, answer: object, where: str) -> Doc:
    """One row of the challenge's form.

    Raises:
        UserError: the row has another form; ``where`` names it.
    """
    if (
        not isinstance(messages, list)
        or not messages
        or not all(isinstance(m, dict) and isinstance(m.get("content"), str) and "role" in m for m in messages)
    ):
        raise UserError(f"{where}: 'message' is not a list of {{role, content}} objects")
    if not isinstance(answer, str):
        raise UserError(f"{where}: 'answer' is not a string")
    return Doc(
        id=doc_id,
        group=group,
        prompt=tuple({"role": str(m["role"]), "content": m["content"]} for m in messages),
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
            for line, row in read_jsonl(path, "message", "answer"):
                where = f"{path}, line {line}"
                name = path.name.removesuffix(".gz").removesuffix(".jsonl")
                docs.append(challenge_doc(f"{name}/{line}", name, row["message"], row["answer"], where))
        return loaded(docs, None, options)

    def normalize(self, text: str) -> str:
        return challenge_text(text)


def _files(data: Path) -> list[Path]:
    if data.is_file():
        return [data]
    if not data.is_dir():
        raise UserError(f"{data} does not exist", DATA)
    folder = data / "cechallenge2024" if (data / "cechallenge2024").is_dir() else data
    paths = [*folder.glob("*.jsonl"), *folder.glob("*.jsonl.gz")]
    found = sorted(paths, key=lambda path: (not path.name.startswith("test_dataset."), path.name))
    if not found:
        raise UserError(f"{folder} holds no .jsonl file", "--data names the folder that holds cechallenge2024/")
    return found
