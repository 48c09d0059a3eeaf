"""``orin-run reference``: the same questions answered by Hugging Face transformers."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.runs.items import write_items
from eval.runs.resume import check_folder
from eval.runs.writer import RunWriter
from eval.truncation import TooLong
from orin_runner.cli import defaults
from orin_runner.cli.options import (
    MAX_COUNT,
    ChallengeProtocol,
    Chat,
    Config,
    Data,
    FewShot,
    First,
    Json,
    Limit,
    LogItems,
    MaxNewTokens,
    Out,
    RunCode,
    ScoringMode,
    Shots,
    Tasks,
    Template,
    TooLongRule,
    asked,
    check_code,
    chosen_tasks,
    load_options,
    own_questions,
    splits,
)
from orin_runner.cli.questions import prepare_all
from orin_runner.cli.result import print_result, raise_for_failed, run_folder
from orin_runner.cli.run_header import common_header
from orin_runner.console import Notes
from orin_runner.errors import UserError
from orin_runner.process_clock import process_started


def reference_command(
    context: typer.Context,
    tasks: Tasks,
    model: Annotated[Path, typer.Option(help="Hugging Face checkpoint folder.")],
    data: Data = None,
    limit: Limit = None,
    first: First = None,
    shots: Shots = None,
    scoring: ScoringMode = None,
    chat: Chat = False,
    protocol: ChallengeProtocol = None,
    template: Template = None,
    fewshot: FewShot = None,
    out: Out = None,
    config: Config = None,  # noqa: ARG001 - defaults.Command has read it
    max_new_tokens: MaxNewTokens = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda where there is one).")] = None,
    reference_window: Annotated[
        str, typer.Option(help="on, or off to ignore the model's sliding window as some runtimes do.")
    ] = "on",
    batch_tokens: Annotated[
        int, typer.Option(metavar="N", min=1, max=MAX_COUNT, help="Padded tokens per forward pass.")
    ] = 8192,
    run_code: RunCode = False,
    log_items: LogItems = False,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Answer the same questions with Hugging Face transformers (needs the reference extra)."""
    began = process_started()
    start_s = time.perf_counter() - began
    options = load_options(data, limit, shots, scoring, chat=chat, protocol=protocol, first=first)
    chosen = chosen_tasks(notes, tasks, data, template, fewshot)
    check_code(chosen, run_code=run_code)
    out = out or run_folder([*(task.name for task in chosen), "reference"])
    check_folder(out)
    before = time.perf_counter()
    try:
        from eval import reference as hf  # noqa: PLC0415 - torch stays off machines that only run GGUFs
    except ModuleNotFoundError as error:
        reason = f"the reference needs torch and transformers ({error})"
        raise UserError(reason, "pip install 'orin-run[reference]'") from error
    if dtype not in hf.DTYPES:
        raise UserError(f"unknown dtype {dtype!r}", f"one of {', '.join(hf.DTYPES)}")
    if reference_window not in {"on", "off"}:
        raise UserError(f"--reference-window is on or off, not {reference_window!r}", "omit it to keep the window")
    loaded = hf.Reference(model, dtype, device, window=reference_window == "on")
    ours, theirs = common_header("transformers"), loaded.header()  # reads all weights for their digest
    clocks = {"start": start_s, "load": time.perf_counter() - before}
    prepared = prepare_all(notes, chosen, options, loaded.encoder, loaded.n_positions, too_long, max_new_tokens)
    versions = {**ours["versions"], **theirs["versions"]}
    settings = {
        "questions": own_questions(chosen),
        **asked(options),
        "max_new_tokens": max_new_tokens,
        "too_long": too_long.value,
        "splits": splits(prepared),
    }
    header = {**ours, **theirs, "versions": versions, "settings": settings}
    sections: dict[str, Any] = {}
    report = {"tasks": sections}
    ran = 0.0  # seconds of the tasks before
    with RunWriter(out, header) as writer:
        defaults.write_config(out, context, defaults.parameters(context, model))
        for item in prepared:
            name = item.task.name
            elsewhere = sum(sum(other.clocks.values()) for other in prepared if other is not item) + ran
            before = time.perf_counter()
            with notes.progress(name, item.n_items) as bar:
                process_clock = partial(_seconds_since, began + elsewhere)
                sections[name] = hf.evaluate_reference(
                    item, loaded, writer, clocks, batch_tokens, bar.update, process_clock
                )
            ran += time.perf_counter() - before
        writer.report(report)
    if log_items:
        write_items(out, prepared, loaded.encoder)
    print_result(report, out, as_json, notes)
    raise_for_failed(sections, out)


def _seconds_since(moment: float) -> float:
    """Seconds since ``moment`` of ``time.perf_counter``."""
    return time.perf_counter() - moment
