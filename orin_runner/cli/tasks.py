"""``orin-run tasks``: the registry."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from eval.tasks.base import LoadOptions, Task
from eval.tasks.registry import GROUPS, TASKS
from orin_runner.cli.options import Data, Json
from orin_runner.console import print_table, say, say_json
from orin_runner.errors import UserError


def tasks_command(data: Data = None, as_json: Json = False) -> None:
    """List the tasks: questions, worked examples (the task's own and Phi-3's), metric, licence, source."""
    rows = [task_row(task, data) for task in TASKS.values()]
    if as_json:
        say_json({"tasks": rows, "groups": GROUPS})
    else:
        print_tasks(rows)
        for group, names in GROUPS.items():
            say(f"group {group}: {', '.join(names)}")


def task_row(task: Task, data: Path | None) -> dict[str, Any]:
    """What is said of a task; ``split`` and ``rows`` are None where its files are not in ``data``."""
    split = rows = None
    if data is not None:
        with suppress(UserError):
            found = task.load(LoadOptions(data))
            split, rows = found.split, found.rows
    names = ("name", "title", "default_shots", "phi3_shots", "metrics", "metric", "licence", "source")
    return {"split": split, "rows": rows, "splits": task.splits, **{name: getattr(task, name) for name in names}}


def print_tasks(rows: Sequence[dict[str, Any]]) -> None:
    """The rows as a table."""
    header = ("task", "split", "rows", "shots", "Phi-3's", "metrics", "licence", "source")
    cells = [
        (
            row["name"],
            row["split"] or ", else ".join(row["splits"]),
            "" if row["rows"] is None else f"{row['rows']:,}",
            str(row["default_shots"]),
            "" if row["phi3_shots"] is None else str(row["phi3_shots"]),
            ", ".join(row["metrics"]),
            row["licence"],
            row["source"],
        )
        for row in rows
    ]
    print_table("", header, cells, text_columns=(0, 1, 5, 6, 7))
