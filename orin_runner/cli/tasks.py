"""``orin-run tasks``: the registry, as a list or task by task."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.data.readers import DATA
from eval.tasks.base import LoadOptions, Task
from eval.tasks.registry import GROUPS, TASKS, get_task, names_in
from orin_runner.cli.options import Data, Json
from orin_runner.console import print_table, say, say_json
from orin_runner.errors import UserError


def tasks_command(
    named: Annotated[
        list[str] | None, typer.Argument(metavar="TASK...", help="Say all that is known of these, or of a group.")
    ] = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """List the tasks: splits, questions, worked examples (the task's own and Phi-3's), metrics. Or all of some."""
    if data is not None and not data.exists():
        raise UserError(f"{data} does not exist", DATA)
    rows = [task_row(task, data) for task in map(get_task, names_in(named or TASKS))]
    if as_json:
        say_json({"tasks": rows, "groups": GROUPS})
    elif named:
        for row in rows:
            print_task(row)
    else:
        print_tasks(rows)
        for group, names in GROUPS.items():
            say(f"group {group}: {', '.join(names)}")
        say("orin-run tasks TASK also says its licence and source")


def print_task(row: dict[str, Any]) -> None:
    """All of one row."""
    groups = [group for group, names in GROUPS.items() if row["name"] in names]
    said = {
        "title": row["title"],
        "split": _split(row),
        "rows": _count(row["rows"]),
        "shots": _count(row["default_shots"]),
        "Phi-3's": _count(row["phi3_shots"]),
        "metrics": ", ".join(row["metrics"]),
        "groups": ", ".join(groups),
        "licence": row["licence"],
        "source": row["source"],
    }
    say(row["name"])
    print_table("", ("", ""), [(f"  {name}", value) for name, value in said.items() if value], (0, 1))


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
    header = ("task", "split", "rows", "shots", "Phi-3's", "metrics")
    cells = [
        (
            row["name"],
            _split(row),
            _count(row["rows"]),
            _count(row["default_shots"]),
            _count(row["phi3_shots"]),
            ", ".join(row["metrics"]),
        )
        for row in rows
    ]
    print_table("", header, cells, text_columns=(0, 1, 5))


def _split(row: dict[str, Any]) -> str:
    """The split that was found, else those that are looked for."""
    return row["split"] or ", else ".join(row["splits"])


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"
