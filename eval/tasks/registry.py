"""The registry of tasks."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

from eval.tasks.agieval import AGIEval
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
from eval.tasks.gsm8k_cot import GSM8KCoT
from eval.tasks.hellaswag import HellaSwag
from eval.tasks.humaneval import HumanEval
from eval.tasks.mbpp import MBPP
from eval.tasks.medqa import MedQA
from eval.tasks.mmlu import MMLU
from eval.tasks.mmlu_pro import MMLUPro
from eval.tasks.openbookqa import OpenBookQA
from eval.tasks.piqa import PIQA
from eval.tasks.siqa import SocialIQa
from eval.tasks.triviaqa import TriviaQA
from eval.tasks.truthfulqa import TruthfulQAMC1, TruthfulQAMC2
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
    TruthfulQAMC2(),
    TruthfulQAMC1(),
    ANLI(),
    GSM8K(),
    GSM8KCoT(),
    MedQA(),
    AGIEval(),
    TriviaQA(),
    HumanEval(),
    MBPP(),
    MMLUPro(),
)
TASKS: dict[str, Task] = {task.name: task for task in ALL}

TWICE = {"bbh_direct", "gsm8k_cot"}
"""Other ways to ask a benchmark of Phi-3's report that is in its group already."""
GROUPS: dict[str, tuple[str, ...]] = {
    "phi3": tuple(task.name for task in ALL if task.phi3_shots is not None and task.name not in TWICE),
    "challenge2024": ("challenge", "mmlu", "commonsense_qa", "winogrande", "bbh", "boolq", "drop"),
}
"""Names that stand for several tasks.

``phi3``: the benchmarks of Phi-3's report (arXiv:2404.14219, table 1) that are here, each once. ``challenge2024``: the
challenge's public questions, and the data sets that the first draft of its rules names.
"""


def get_task(name: str) -> Task:
    """The task called ``name``.

    Raises:
        UserError: there is none; the nearest name is suggested.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, [*TASKS, *GROUPS], n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}?" if near else "orin-run tasks lists all"
        raise UserError(f"unknown task {name!r}", hint)
    return TASKS[name]


def names_in(words: Iterable[str]) -> list[str]:
    """The names that ``words`` hold, each once: of groups those of their tasks; several may stand between commas."""
    found = [name for word in words for name in ([word] if Path(word).is_file() else word.split(","))]
    return list(dict.fromkeys(task for name in found if name for task in GROUPS.get(name, (name,))))
