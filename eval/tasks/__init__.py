"""The registry of tasks."""

from __future__ import annotations

import difflib

from eval.tasks.base import Task
from eval.tasks.bbh import BBH, BBHDirect
from eval.tasks.challenge import Challenge
from eval.tasks.drop import DROP
from eval.tasks.exam import Exam
from eval.tasks.gsm8k import GSM8K
from eval.tasks.mmlu import MMLU
from orin_runner.errors import UserError

TASKS: dict[str, Task] = {
    task.name: task for task in (Exam(), Challenge(), MMLU(), BBH(), BBHDirect(), DROP(), GSM8K())
}


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.4)
        known = ", ".join(sorted(TASKS))
        raise UserError(f"unknown task {name!r}", f"did you mean {near[0]!r}?" if near else f"known tasks: {known}")
    return TASKS[name]
