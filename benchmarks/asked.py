"""What a task asks of a model, for benchmarks that answer it without a run."""

from __future__ import annotations

from pathlib import Path

from eval.encoding import Question
from eval.evaluate import prepare
from eval.tasks.base import LoadOptions, Task
from eval.tasks.registry import get_task
from eval.truncation import TooLong, fitted
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request


def requests_of(task: str, file: GGUFFile, data: Path | None, limit: int) -> list[Request]:
    """The requests of ``orin-run eval TASK --data DATA --limit LIMIT``, prompts that are too long truncated."""
    questions = questions_of(get_task(task), file, Tokenizer.from_gguf(file), data, limit)
    return [question.request for question in questions]


def questions_of(
    task: Task, file: GGUFFile, tokenizer: Tokenizer, data: Path | None, limit: int | None
) -> list[Question]:
    """The questions that ``requests_of`` has the requests of."""
    asked = prepare(task, LoadOptions(data, limit=limit), tokenizer)
    return list(fitted(asked, file.n_ctx_train, TooLong.TRUNCATE).questions)
