"""The questions of several tasks as requests that fit a model: what ``eval``, ``plan`` and ``reference`` ask."""

from __future__ import annotations

from collections.abc import Sequence

from eval.challenge_rules import capped
from eval.encoding import Encoder
from eval.evaluate import Prepared, prepare
from eval.tasks.base import LoadOptions, Task
from eval.truncation import TooLong, fitted, too_long_lines
from orin_runner.console import Notes
from orin_runner.errors import UserError


def prepare_all(
    notes: Notes,
    tasks: Sequence[Task],
    options: LoadOptions,
    encoder: Encoder,
    n_positions: int,
    rule: TooLong,
    max_new_tokens: int | None,
) -> list[Prepared]:
    """Load and tokenize tasks.

    A line for each task says what its rows lack of a protocol, and what ``rule`` has done to prompts that are too long.

    Args:
        n_positions: longest sequence the model is made for.
        max_new_tokens: bound on each text, None for each task's own.

    Raises:
        UserError: as ``prepare`` and ``fitted``; or all prompts are skipped.
    """
    prepared = []
    with notes.progress("reading the questions", len(tasks)) as bar:  # of the hub, that can take a minute
        for n, task in enumerate(tasks):
            bar.update(n, task.name)
            item = capped(prepare(task, options, encoder), max_new_tokens)
            prepared.append(fitted(item, n_positions, rule))
    if not any(item.questions for item in prepared):
        raise UserError(
            f"no prompt fits into the model's {n_positions:,} tokens of context: nothing is left to ask",
            "--too-long truncate, or fewer --shots",
        )
    for item in prepared:
        lacking = (f"{item.task.name}: {line}" for line in item.lacking)
        for line in (*lacking, *too_long_lines(item, n_positions)):
            notes.warn(line)
    return prepared
