"""What the harness calls our tasks, metrics and filters, and the names of its files (lm_eval 0.4.13)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from eval.report.section import by_group
from eval.runs.prediction import DAMAGED, Prediction
from eval.runs.run import Run
from orin_runner.errors import UserError

NONE = "none"
"""The filter of answers that are taken as they are."""
NAMES = {
    "strict-match": ("exact_match", "strict-match"),
    "flexible-extract": ("exact_match", "flexible-extract"),
    "mc2": ("acc", NONE),
}
"""Metrics of ours that the harness calls otherwise: its metric and filter."""
FILTERS = {
    "bbh": "get-answer",
    "humaneval": "create_test",
    "mmlu_pro": "custom-extract",
    "triviaqa": "remove_whitespace",
}
"""Filter of a task's metrics in the harness, where it is another than ``none``."""
NO_NAME = re.compile(r'["<>:/|\\?*\[\]\x00-\x1f]+')
"""What is no part of a file's name (``lm_eval.utils.sanitize_model_name``)."""
LONGEST_NAME = 120


@dataclass(frozen=True, slots=True)
class Leaf:
    """What the harness calls a task: one of ours, or a group of one (``mmlu_anatomy``).

    Attributes:
        name: in the harness's files.
        alias: in its tables.
        task: of ours.
        predictions: those that were asked, at least one.
    """

    name: str
    alias: str
    task: str
    predictions: Sequence[Prediction]

    @property
    def filters(self) -> dict[str, dict[str, str]]:
        """By filter, our names of its metrics by the harness's."""
        found: dict[str, dict[str, str]] = {}
        for ours in self.predictions[0].scores:
            metric, kept = harness_metric(self.task, ours)
            found.setdefault(kept, {})[metric] = ours
        return found

    @property
    def metrics(self) -> list[str]:
        """The harness's names of its metrics, each once."""
        return list(dict.fromkeys(metric for names in self.filters.values() for metric in names))


def harness_metric(task: str, metric: str) -> tuple[str, str]:
    """The harness's names of a metric of ours and of its filter."""
    return NAMES.get(metric, (metric, FILTERS.get(task, NONE)))


def leaves(run: Run) -> dict[str, list[Leaf]]:
    """By task with an answer, the harness's tasks: one, or one a group where there are several.

    Raises:
        UserError: the predictions are older than their scores.
    """
    by_task: dict[str, list[Prediction]] = {}
    for prediction in run.predictions.values():
        if prediction.skipped is None:
            if not prediction.scores:
                raise UserError(f"{run.directory} is of a version that did not write the items' scores", DAMAGED)
            by_task.setdefault(prediction.task, []).append(prediction)
    taken: set[str] = set()
    found: dict[str, list[Leaf]] = {}
    for task, predictions in by_task.items():
        groups, name = by_group(predictions), _unused(task, taken)
        found[name] = [Leaf(name, task, task, predictions)]
        if len(groups) > 1:
            found[name] = [Leaf(_unused(f"{task}_{group}", taken), group, task, part) for group, part in groups.items()]
    return found


def file_name(text: str) -> str:
    """``text`` as a file's name may hold it."""
    return NO_NAME.sub("__", text)[:LONGEST_NAME]


def _unused(name: str, taken: set[str]) -> str:
    """The file name for ``name``, and another than those ``taken``, which it is added to."""
    plain = found = file_name(name)
    n = 1
    while found in taken:
        n += 1
        number = f"_{n}"
        found = plain[: LONGEST_NAME - len(number)] + number
    taken.add(found)
    return found
