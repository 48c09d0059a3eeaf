"""``orin-run lm-eval``: any task of lm-evaluation-harness on this engine."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Annotated

import typer

from eval.truncation import TooLong
from orin_runner.cli.launch import Launch, chosen_places, open_model
from orin_runner.cli.options import (
    AllowQuantized,
    Device,
    Gpus,
    ModelFile,
    Out,
    RayCluster,
    ReplicaCount,
    TooLongRule,
    device_bytes,
)
from orin_runner.cli.result import run_folder
from orin_runner.cli.tokenizer import NamedTokenizer, open_tokenizer
from orin_runner.console import Notes
from orin_runner.errors import UserError
from orin_runner.requests import Request
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor


def lm_eval_command(
    context: typer.Context,
    tasks: Annotated[
        str,
        typer.Option("--tasks", help="Tasks or groups of lm-evaluation-harness, or YAML files, separated by commas."),
    ],
    model: ModelFile = None,
    named_tokenizer: NamedTokenizer = None,
    allow_quantized: AllowQuantized = False,
    out: Out = None,
    device: Device = "auto",
    gpus: Gpus = "auto",
    replicas: ReplicaCount = "auto",
    ray: RayCluster = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
) -> None:
    """Run any task of lm-evaluation-harness; all other options are the harness's own (needs the lm-eval extra)."""
    try:
        from eval.harness import HarnessModel, evaluate_with_harness  # noqa: PLC0415 - most runs do without
    except ImportError as error:
        reason = f"this command needs lm-evaluation-harness ({error})"
        raise UserError(reason, "pip install 'orin-run[lm-eval]'") from error
    if too_long is TooLong.SKIP:
        raise UserError(
            "the harness wants an answer to each request: none can be skipped", "--too-long truncate or refuse"
        )
    notes = Notes()
    out = out or run_folder([*tasks.split(","), "lm-eval"])
    file, size = open_model(notes, model, allow_quantized=allow_quantized), device_bytes(device)
    tokenizer = open_tokenizer(notes, file, named_tokenizer)
    with chosen_places(notes, file, gpus, replicas, ray) as where:

        def start(asked: Sequence[Request]) -> Supervisor | Replicas:
            return Launch(notes, file, size, where).started(asked)

        with closing(HarnessModel(file, start, too_long, tokenizer)) as adapter:
            evaluate_with_harness(["--tasks", tasks, *context.args], adapter, out)
