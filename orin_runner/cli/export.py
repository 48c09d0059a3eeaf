"""``orin-run export``: a run in the form of another tool's files."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from eval.export.write import export
from eval.runs.items import ITEMS
from eval.runs.run import Run
from orin_runner.cli.options import Json
from orin_runner.console import Notes, say, say_json


class Form(str, Enum):
    """What ``--format`` takes."""

    LM_EVAL = "lm-eval"


def export_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    form: Annotated[
        Form,
        typer.Option(
            "--format", help="lm-eval: results_TIME.json and samples_TASK_TIME.jsonl of lm-evaluation-harness."
        ),
    ] = Form.LM_EVAL,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; the files go into one of the model's name in it (default: RUN/FORMAT)."),
    ] = None,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Write a run as lm-evaluation-harness writes it, for what reads its files; the run is not changed."""
    done = export(Run.open(run), out or run / form.value)
    if done.without_prompts:
        of = f"{len(done.without_prompts)} of {len(done.samples)} tasks"
        notes.note(f"the prompts of {of} are left out: no {ITEMS} has them (--log-items writes it)")
    if as_json:
        say_json({"results": str(done.results), "samples": [str(path) for path in done.samples]})
    else:
        n = len(done.samples)
        say(f"written: {done.results} and {n} file{'s' if n > 1 else ''} samples_TASK_TIME.jsonl beside it")
