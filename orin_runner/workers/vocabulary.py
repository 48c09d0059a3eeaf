"""llama.cpp's own tokenization, in a process of its own: there are vocabularies on which llama.cpp ends the process."""

from __future__ import annotations

from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.errors import UserError
from orin_runner.workers.death import LastWords
from orin_runner.workers.process import WorkerProcess

PATIENCE_S = 10.0
"""Seconds that the process has to end after its answer."""


def tokenized(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """As ``orin_runner.model.llama.vocabulary_ids``.

    Raises:
        UserError: llama.cpp cannot read the vocabulary of ``path``, or ends on it.
    """
    process = WorkerProcess(_serve)
    try:
        process.connection.send((path, tuple(texts)))
        try:
            answer: list[list[int]] | LastWords = process.connection.recv()
        except (EOFError, OSError):
            answer = LastWords(str(process.death(None, PATIENCE_S)))
    finally:
        process.close(PATIENCE_S)
    if isinstance(answer, LastWords):
        raise UserError(f"llama.cpp cannot use the checkpoint's tokenizer: {answer.text}")
    return answer


def _serve(connection: Connection, asked: tuple[Path, tuple[str, ...]]) -> None:
    from orin_runner.model.llama import vocabulary_ids  # noqa: PLC0415 - the caller loads no llama.cpp

    connection.send(vocabulary_ids(*asked))
