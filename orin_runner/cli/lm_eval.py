"""``orin-run lm-eval``: any task of lm-evaluation-harness on this engine."""

from __future__ import annotations

from contextlib import closing
from typing import Annotated

import typer

from orin_runner.cli.launch import open_model, start
from orin_runner.cli.options import Device, ModelFile, Out, device_bytes
from orin_runner.cli.result import run_folder
from orin_runner.console import Notes
from orin_runner.errors import UserError


def lm_eval_command(
    context: typer.Context,
    tasks: Annotated[
        str,
        typer.Option("--tasks", help="Tasks or groups of lm-evaluation-harness, or YAML files, separated by commas."),
    ],
    model: ModelFile = None,
    out: Out = None,
    device: Device = "auto",
) -> None:
    """Run any task of lm-evaluation-harness; all other options are the harness's own (needs the lm-eval extra)."""
    try:
        from eval.harness import HarnessModel, evaluate_with_harness  # noqa: PLC0415 - most runs do without
    except ImportError as error:
        reason = f"this command needs lm-evaluation-harness ({error})"
        raise UserError(reason, "pip install 'orin-run[lm-eval]'") from error
    notes = Notes()
    out = out or run_folder([*tasks.split(","), "lm-eval"])
    file, size = open_model(notes, model), device_bytes(device)
    with closing(HarnessModel(file, lambda requests: start(notes, file, requests, size))) as adapter:
        evaluate_with_harness(["--tasks", tasks, *context.args], adapter, out)
