"""``orin-run merge``: the shards of a run put together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eval.runs.merge import merge
from eval.runs.run import Run
from orin_runner.cli.options import Json, Out
from orin_runner.cli.result import print_result, raise_for_failed, run_folder
from orin_runner.cli.run_header import command_header
from orin_runner.console import Notes

Shards = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of all shards of one run.")]


def merge_command(shards: Shards, out: Out = None, as_json: Json = False, *, notes: Notes) -> None:
    """Put the shards of a run together (eval --shard 1/3, 2/3, 3/3), as one run that report and diff take."""
    runs = [Run.open(folder) for folder in shards]
    tasks = runs[0].header.get("settings", {}).get("tasks", [])
    directory = out or run_folder([*tasks, "merged"])
    report = merge(runs, directory, command_header())
    print_result(report, directory, as_json, notes)
    raise_for_failed(report["tasks"], directory)
