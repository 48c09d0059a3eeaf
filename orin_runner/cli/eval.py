"""``orin-run eval``: tasks on a GGUF."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.challenge_rules import capped, rule_warnings
from eval.evaluate import Prepared, evaluate, prepare
from eval.progress import Status
from eval.runs.meter import Meter
from eval.runs.run import RunWriter, check_folder
from eval.runs.samples import SAMPLES
from orin_runner.cli.launch import all_requests, offload_lines, open_model, plan_lines, start
from orin_runner.cli.options import (
    Chat,
    Data,
    Device,
    Json,
    Limit,
    ModelFile,
    Out,
    ScoringMode,
    Shots,
    Tasks,
    asked,
    chosen_tasks,
    device_bytes,
    load_options,
)
from orin_runner.cli.result import add_prompt_rate, print_result, run_folder
from orin_runner.cli.run_header import common_header, model_header
from orin_runner.console import Bar, Notes
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.errors import UserError, os_error_line
from orin_runner.machine.sensors import find_sensors
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request, context_tokens
from orin_runner.workers.supervisor import Supervisor

STARTED = time.perf_counter()
"""When the process began, but for its imports."""

Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out that was broken off.")]
Draft = Annotated[bool, typer.Option("--draft/--no-draft", help="Verify a question's own choices instead of decoding.")]
MaxNewTokens = Annotated[
    int | None, typer.Option(min=1, help="Bound on each greedy text, where it is lower than the task's own.")
]
CacheFolder = Annotated[
    Path | None, typer.Option(help="Keep states of shared prefixes here between runs (off by default).")
]
CacheSize = Annotated[float, typer.Option(min=0.0, help="Bound of that folder; the oldest go first.")]
MeasuredLimit = Annotated[
    bool,
    typer.Option(
        "--measure-limit",
        help="After the run, measure plain prompt processing on the same context (seconds, or four full batches if "
        "that is longer), and report what share of that rate was reached.",
    ),
]


def eval_command(
    tasks: Tasks,
    model: ModelFile = None,
    data: Data = None,
    limit: Limit = None,
    shots: Shots = None,
    scoring: ScoringMode = None,
    chat: Chat = False,
    out: Out = None,
    resume: Resume = False,
    draft: Draft = True,
    max_new_tokens: MaxNewTokens = None,
    device: Device = "auto",
    prompt_cache: CacheFolder = None,
    prompt_cache_gb: CacheSize = 20.0,
    measure_limit: MeasuredLimit = False,
    as_json: Json = False,
) -> None:
    """Evaluate tasks on a GGUF: accuracy, time, and how many tokens had to be computed."""
    began, notes = time.perf_counter() - STARTED, Notes()
    options = load_options(data, limit, shots, scoring, chat=chat)
    chosen = chosen_tasks(notes, tasks, data)
    if resume and out is None:
        raise UserError("--resume needs --out", "name the folder of the run that was broken off")
    out = out or run_folder(tasks)
    check_folder(out, resume=resume)
    file = open_model(notes, model)
    tokenizer = Tokenizer.from_gguf(file)
    prepared = [capped(prepare(task, options, tokenizer, file.n_ctx_train), max_new_tokens) for task in chosen]
    risks = _warn(notes, prepared, file, prompt_cache=prompt_cache is not None)
    requests = all_requests(prepared)
    cache = None
    if prompt_cache is not None:
        cache = PromptCacheOptions(prompt_cache, int(prompt_cache_gb * 1e9), f"model {file.digest()}")
    with start(notes, file, requests, device_bytes(device), draft=draft, prompt_cache=cache) as supervisor:
        _say_how_it_runs(notes, supervisor, file, requests)
        settings = {
            "tasks": tasks,
            "draft": draft,
            **asked(options),
            "prompt_cache": None if prompt_cache is None else str(prompt_cache),
            "max_new_tokens": max_new_tokens,
        }
        header = {**common_header("llama.cpp"), **model_header(file, supervisor), "settings": settings}
        with RunWriter(out, header, resume=resume) as writer:
            if resume:
                torn = "; an incomplete last line was dropped" if writer.torn else ""
                notes.note(f"{out} holds {len(writer.known)} answers of {len(requests)}{torn}")
            sections, measured = _metered_run(notes, prepared, tokenizer, supervisor, writer, began)
            report = {"tasks": sections, "restarts": supervisor.deaths, "warnings": risks, "measured": measured}
            writer.report(report)
            left = any("unanswered" in section for section in sections.values())
            if measure_limit and not left:
                add_prompt_rate(report, supervisor.prompt_rate, notes)
                writer.report(report)
    print_result(report, out, as_json)
    if left:
        notes.error("interrupted", f"orin-run eval {' '.join(tasks)} --resume --out {out} goes on")
        raise typer.Exit(130)


def _warn(notes: Notes, prepared: Sequence[Prepared], file: GGUFFile, *, prompt_cache: bool) -> list[str]:
    """Warn of prompts beyond a dropped window, then of what the challenge's rules object to; returns the latter."""
    dropped = file.dropped_window is not None
    risks: list[str] = []
    for item in prepared:
        risks += rule_warnings(item, file.altered_values, window_dropped=dropped, prompt_cache=prompt_cache)
        warning = window_warning(item, file)
        if warning is not None:
            notes.warn(warning)
    for risk in risks:
        notes.warn(risk)
    return risks


def window_warning(item: Prepared, file: GGUFFile) -> str | None:
    """What a dropped sliding window means for a task's prompts; None where it means nothing."""
    window = file.dropped_window
    if window is None:
        return None
    beyond = sum(question.n_tokens > window for question in item.questions)
    if not beyond:
        return None
    return (
        f"{beyond} of {len(item.questions)} {item.task.name} prompts are longer than the model's {window}-token "
        f"sliding window, which this file's layout drops: their answers are not the model's. "
        f"Convert with --window exact"
    )


def _say_how_it_runs(notes: Notes, supervisor: Supervisor, file: GGUFFile, requests: Sequence[Request]) -> None:
    for line in [*offload_lines(supervisor.loaded, file), *plan_lines(supervisor.plan)]:
        notes.note(line)
    fitting = supervisor.max_context
    left_out = sum(context_tokens(request) > fitting for request in requests)
    if left_out:
        notes.warn(
            f"{left_out} of {len(requests)} requests need more than the {fitting} tokens of context that "
            f"fit into memory: they are left out and count as wrong"
        )


def _metered_run(
    notes: Notes,
    prepared: Sequence[Prepared],
    tokenizer: Tokenizer,
    supervisor: Supervisor,
    writer: RunWriter,
    began: float,
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Run the tasks, up to one that is interrupted, with a meter beside them.

    Args:
        began: seconds from the start of the process to the start of the command.

    Returns:
        The tasks' sections of ``report.json``, and what was measured.
    """
    device = supervisor.plan.device
    sections: dict[str, Any] = {}
    sensors = find_sensors(cuda=device.cuda)
    with Meter(writer.directory / SAMPLES, sensors, unified=device.cuda and device.unified) as meter:
        for item in prepared:
            name = item.task.name
            meter.begin(name)
            with notes.progress(name, 1.0) as bar:
                clocks = {"start": began, "load": supervisor.loaded.seconds}
                sections[name] = evaluate(item, tokenizer, supervisor, writer, clocks, _TaskProgress(meter, bar))
            if "unanswered" in sections[name]:
                break
    if meter.failure is not None:
        notes.warn(f"{SAMPLES} ends early: {os_error_line(meter.failure)}")
    return sections, meter.measured()


class _TaskProgress:
    """Tells meter and progress line how far a task is."""

    def __init__(self, meter: Meter, bar: Bar) -> None:
        self._meter, self._bar = meter, bar
        self._began = time.perf_counter()

    def __call__(self, status: Status) -> None:
        self._meter.update(status.computed, status.done)
        self._bar.update(status.share, status.words(time.perf_counter() - self._began))
