"""``orin-run report``: a run's page written again, or one of several runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from eval.report.page import write_page
from eval.runs.run import PAGE, Run
from orin_runner.cli.options import Json
from orin_runner.console import print_table, say, say_json
from orin_runner.errors import UserError

COMPARISON = Path("comparison.html")
PAGE_START = b"<!doctype html>"
"""First bytes of a page."""


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(help=f"HTML file (default: RUN/{PAGE}, of several runs ./{COMPARISON}).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run's page again, or one page of several runs side by side."""
    own = out is None and len(runs) == 1
    out = out or (COMPARISON if len(runs) > 1 else runs[0] / PAGE)
    if out.is_dir():
        raise UserError(f"{out} is a folder", "--out names an HTML file")
    if not own and out.is_file() and not _may_replace(out):
        raise UserError(f"{out} is no page and is not replaced", "--out names an HTML file")
    shown = write_page([Run.open(run) for run in runs], out)
    if as_json:
        say_json({"page": str(out), **shown})
    else:
        print_runs(shown)
        say(f"page written to {out}")


def _may_replace(path: Path) -> bool:
    """Whether a file is empty or a page, and not what a slip of the keyboard names: a run's answers, a model."""
    with path.open("rb") as file:
        return file.read(len(PAGE_START)) in {b"", PAGE_START}


def print_runs(shown: dict[str, Any]) -> None:
    """A line for each task of each run."""
    rows = []
    for task, entries in shown["tasks"].items():
        for entry in entries:
            if entry is None:
                continue
            clocks, tokens = entry["clocks"], entry["tokens"] or {}
            rows.append(
                (
                    task,
                    shown["runs"][entry["run"]]["name"],
                    str(entry["items"]),
                    f"{entry['accuracy']:.2%} ± {entry['stderr']:.2%}",
                    *("" if clocks[name] is None else f"{clocks[name]:.1f}" for name in ("2024", "2023")),
                    "" if entry["items_per_s"] is None else f"{entry['items_per_s']:.1f}",
                    *(f"{tokens[name]:,}" if name in tokens else "" for name in ("sent", "unique", "computed")),
                )
            )
    if not rows:
        say("no item has been answered")
        return
    header = ("task", "run", "items", "accuracy ± s.e.", "2024 s", "2023 s", "items/s", "sent", "unique", "computed")
    print_table("", header, rows, text_columns=(0, 1))
