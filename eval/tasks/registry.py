"""The registry of tasks."""

from __future__ import annotations

import difflib

from eval.tasks.anli import ANLI
from eval.tasks.arc import ARCChallenge, ARCEasy
from eval.tasks.base import Task
from eval.tasks.bbh import BBH, BBHDirect
from eval.tasks.boolq import BoolQ
from eval.tasks.challenge import Challenge
from eval.tasks.commonsense_qa import CommonsenseQA
from eval.tasks.drop import DROP
from eval.tasks.exam import Exam
from eval.tasks.gsm8k import GSM8K
from eval.tasks.hellaswag import HellaSwag
from eval.tasks.mmlu import MMLU
from eval.tasks.openbookqa import OpenBookQA
from eval.tasks.piqa import PIQA
from eval.tasks.siqa import SocialIQa
from eval.tasks.truthfulqa import TruthfulQA
from eval.tasks.winogrande import WinoGrande
from orin_runner.errors import UserError

ALL: tuple[Task, ...] = (
    Exam(),
    Challenge(),
    MMLU(),
    CommonsenseQA(),
    WinoGrande(),
    BBH(),
    BBHDirect(),
    BoolQ(),
    DROP(),
    OpenBookQA(),
    HellaSwag(),
    ARCEasy(),
    ARCChallenge(),
    PIQA(),
    SocialIQa(),
    TruthfulQA(),
    ANLI(),
    GSM8K(),
)
TASKS: dict[str, Task] = {task.name: task for task in ALL}


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
