"""``orin-run``: composes everything. The only module of the runner that prints results and exits."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.challenge_rules import capped, rule_warnings
from eval.data.digests import changed_files
from eval.diff import MAX_DROP, diff_all
from eval.evaluate import Prepared, Status, evaluate, prepare
from eval.runs.meter import Meter
from eval.runs.run import Run, RunWriter, check_new
from eval.runs.samples import SAMPLES
from eval.tasks import TASKS, get_task
from eval.tasks.base import Task
from orin_runner import __version__
from orin_runner.cli.launch import open_model, start
from orin_runner.cli.options import (
    CacheFolder,
    CacheSize,
    Chat,
    Data,
    Device,
    Draft,
    HarnessTasks,
    Json,
    Limit,
    MaxNewTokens,
    MeasuredLimit,
    ModelFile,
    Out,
    Resume,
    ScoringMode,
    Shots,
    Tasks,
    asked,
    device_bytes,
    load_options,
)
from orin_runner.cli.report import add_limit, print_result, report_command
from orin_runner.cli.run_header import common_header, model_header
from orin_runner.cli.show import (
    offload_lines,
    plan_lines,
    print_diff,
    print_plan,
    print_selftest,
    print_tasks,
    status_line,
    task_row,
    window_warning,
)
from orin_runner.console import Notes
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.engine.selftest import compare, random_requests
from orin_runner.errors import UserError, os_error_line
from orin_runner.machine.devices import KNOWN, cpu_threads, present_device
from orin_runner.machine.memory_plan import needs_of, plan_that_fits
from orin_runner.machine.sensors import find_sensors
from orin_runner.model import llama
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request, context_tokens
from orin_runner.workers.supervisor import DoesNotFitError, WorkerDiedError

STARTED = time.perf_counter()
F16_COMPUTE = "GGML_CUDA_CUBLAS_COMPUTE_TYPE"

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once.",
)
notes = Notes()
_open_model = partial(open_model, notes)
_start = partial(start, notes)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    if version:
        print(f"orin-run {__version__}, llama-cpp-python {llama.version()}")
        raise typer.Exit


@app.command("eval")
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
    start = time.perf_counter() - STARTED
    options = load_options(data, limit, shots, scoring, chat=chat)
    chosen = _chosen(tasks, data)
    if resume and out is None:
        raise UserError("--resume needs --out", "name the folder of the run that was broken off")
    out = out or _run_folder(tasks)
    if not resume:
        check_new(out)
    file = _open_model(model)
    tokenizer = Tokenizer.from_gguf(file)
    prepared = [capped(prepare(task, options, tokenizer, file.n_ctx_train), max_new_tokens) for task in chosen]
    risks: list[str] = []
    dropped = file.dropped_window is not None
    for item in prepared:
        risks += rule_warnings(item, file.altered_values, window_dropped=dropped, prompt_cache=prompt_cache is not None)
        warning = window_warning(item, file)
        if warning is not None:
            notes.warn(warning)
    for risk in risks:
        notes.warn(risk)
    requests = _requests(prepared)
    cache = None
    if prompt_cache is not None:
        cache = PromptCacheOptions(prompt_cache, int(prompt_cache_gb * 1e9), f"model {file.digest()}")
    with _start(file, requests, device_bytes(device), draft=draft, prompt_cache=cache) as supervisor:
        for line in [
            *offload_lines(supervisor.loaded, file, os.environ.get(F16_COMPUTE)),
            *plan_lines(supervisor.plan),
        ]:
            notes.note(line)
        left_out = sum(context_tokens(request) > supervisor.limit for request in requests)
        if left_out:
            notes.warn(
                f"{left_out} of {len(requests)} requests need more than the {supervisor.limit} tokens of context that "
                f"fit into memory: they are left out and count as wrong"
            )
        kept = None if prompt_cache is None else str(prompt_cache)
        settings = {"tasks": tasks, "draft": draft, **asked(options), "prompt_cache": kept}
        settings["max_new_tokens"] = max_new_tokens
        sections: dict[str, Any] = {}
        header = {**common_header("llama.cpp"), **model_header(file, supervisor), "settings": settings}
        with RunWriter(out, header, resume=resume) as writer:
            if resume:
                torn = "; an incomplete last line was dropped" if writer.torn else ""
                notes.note(f"{out} holds {len(writer.known)} answers of {len(requests)}{torn}")
            used = supervisor.plan.device
            with Meter(out / SAMPLES, find_sensors(cuda=used.cuda), unified=used.cuda and used.unified) as meter:
                for item in prepared:
                    meter.begin(item.task.name)
                    with notes.progress(item.task.name, 1.0) as bar:

                        def show(status: Status, began: float = time.perf_counter()) -> None:
                            meter.update(status.computed, status.done)
                            bar.update(status.share, status_line(status, time.perf_counter() - began))

                        clocks = {"start": start, "load": supervisor.loaded.seconds}
                        sections[item.task.name] = evaluate(
                            item, tokenizer, supervisor, writer, clocks, show, supervisor.limit
                        )
                    if "unanswered" in sections[item.task.name]:
                        break
            if meter.failure is not None:
                notes.warn(f"{SAMPLES} ends early: {os_error_line(meter.failure)}")
            report = {"tasks": sections, "restarts": supervisor.deaths, "warnings": risks}
            report["measured"] = meter.measured()
            writer.report(report)
            left = any("unanswered" in section for section in sections.values())
            if measure_limit and not left:
                add_limit(report, supervisor.measure_limit, notes)
                writer.report(report)
    print_result(report, out, as_json)
    if left:
        notes.error("interrupted", f"orin-run eval {' '.join(tasks)} --resume --out {out} goes on")
        raise typer.Exit(130)


@app.command()
def plan(
    tasks: Tasks,
    model: ModelFile = None,
    data: Data = None,
    limit: Limit = None,
    shots: Shots = None,
    scoring: ScoringMode = None,
    chat: Chat = False,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Show what a run will take before anything is loaded. Exit status 1 if it does not fit."""
    options = load_options(data, limit, shots, scoring, chat=chat)
    file = _open_model(model)
    tokenizer = Tokenizer.from_gguf(file)
    requests = _requests([prepare(task, options, tokenizer, file.n_ctx_train) for task in _chosen(tasks, data)])
    size = device_bytes(device)
    target = KNOWN[device] if device in KNOWN else present_device(size)
    simulate = (lambda settings: llama.simulate(file.path, settings)) if target.present else None
    lengths = [context_tokens(request) for request in requests]
    found, fitting = plan_that_fits(file, needs_of(requests), lengths, target, cpu_threads(), simulate)
    whole = found.fits and fitting == max(lengths, default=1)
    if as_json:
        print(json.dumps({**found.to_json(), "requests": len(lengths), "fits": whole, "limit": fitting}, indent=1))
    else:
        print_plan(found)
        left_out = sum(length > fitting for length in lengths)
        if found.fits and left_out:
            print(f"{left_out} of {len(lengths)} requests are longer than {fitting} tokens and do not fit")
    if not whole:
        raise typer.Exit(1)


@app.command("tasks")
def tasks_command(data: Data = None, as_json: Json = False) -> None:
    """List the tasks: questions, worked examples (the task's own and Phi-3's), metric, licence, source."""
    rows = [task_row(task, data) for task in TASKS.values()]
    if as_json:
        print(json.dumps({"tasks": rows}, indent=1))
    else:
        print_tasks(rows)


@app.command()
def selftest(
    model: ModelFile = None,
    requests: Annotated[int, typer.Option(min=2, help="Random requests to compare.")] = 24,
    seed: Annotated[int, typer.Option(help="Source of the random tokens.")] = 1,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compare the tree with single sequences on random tokens. Exit status 1 if more than rounding differs."""
    file = _open_model(model)
    window = file.window or 0
    longest = min(file.n_ctx_train, window + 300 if window else 1500)
    made = random_requests(requests, file.n_vocab, window, longest, seed)
    with notes.progress("selftest", None) as bar, _start(file, made, device_bytes(device)) as supervisor:
        for line in offload_lines(supervisor.loaded, file, os.environ.get(F16_COMPUTE)):
            notes.note(line)
        result = compare(made, supervisor.run, lambda: supervisor.stats, window, lambda n: bar.update(n, f"{n} alone"))
    if as_json:
        print(json.dumps({**asdict(result), "allowed": result.allowed, "passed": result.passed}, indent=1))
    else:
        print_selftest(result)
    if not result.passed:
        raise typer.Exit(1)


@app.command()
def reference(
    tasks: Tasks,
    model: Annotated[Path, typer.Option(help="Hugging Face checkpoint folder.")],
    data: Data = None,
    limit: Limit = None,
    shots: Shots = None,
    scoring: ScoringMode = None,
    chat: Chat = False,
    out: Out = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda where there is one).")] = None,
    reference_window: Annotated[
        str, typer.Option(help="on, or off to ignore the model's sliding window as some runtimes do.")
    ] = "on",
    batch_tokens: Annotated[int, typer.Option(min=1, help="Padded tokens per forward pass.")] = 8192,
    as_json: Json = False,
) -> None:
    """Answer the same questions with Hugging Face transformers (needs the reference extra)."""
    options = load_options(data, limit, shots, scoring, chat=chat)
    chosen = _chosen(tasks, data)
    out = out or _run_folder([*tasks, "reference"])
    check_new(out)
    try:
        from eval import reference as hf  # noqa: PLC0415 - torch stays off machines that only run GGUFs
    except ImportError as error:
        reason = f"the reference needs torch and transformers ({error})"
        raise UserError(reason, "pip install 'orin-run[reference]'") from error
    if dtype not in hf.DTYPES:
        raise UserError(f"unknown dtype {dtype!r}", f"one of {', '.join(hf.DTYPES)}")
    if reference_window not in {"on", "off"}:
        raise UserError(f"--reference-window is on or off, not {reference_window!r}")
    before = time.perf_counter()
    loaded = hf.Reference(model, dtype, device, window=reference_window == "on")
    load = time.perf_counter() - before
    prepared = [prepare(task, options, loaded.encoder, loaded.n_positions) for task in chosen]
    ours, theirs = common_header("transformers"), loaded.header()
    header = {**ours, **theirs, "versions": {**ours["versions"], **theirs["versions"]}}
    header["settings"] = asked(options)
    sections: dict[str, Any] = {}
    with RunWriter(out, header) as writer:
        for item in prepared:
            with notes.progress(item.task.name, len(item.questions)) as bar:
                sections[item.task.name] = hf.evaluate_reference(
                    item, loaded, writer, {"load": load}, batch_tokens, bar.update
                )
        report = {"tasks": sections}
        writer.report(report)
    print_result(report, out, as_json)


@app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lm_eval_command(
    context: typer.Context, tasks: HarnessTasks, model: ModelFile = None, out: Out = None, device: Device = "auto"
) -> None:
    """Run any task of lm-evaluation-harness; all other options are the harness's own (needs the lm-eval extra)."""
    try:
        from eval.harness import HarnessModel, evaluate_with_harness  # noqa: PLC0415 - most runs do without
    except ImportError as error:
        reason = f"this command needs lm-evaluation-harness ({error})"
        raise UserError(reason, "pip install 'orin-run[lm-eval]'") from error
    out = out or _run_folder([*tasks.split(","), "lm-eval"])
    file, size = _open_model(model), device_bytes(device)
    with closing(HarnessModel(file, lambda requests: _start(file, requests, size))) as adapter:
        evaluate_with_harness(["--tasks", tasks, *context.args], adapter, out)


@app.command("diff")
def diff_command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    references: Annotated[
        list[Path], typer.Argument(metavar="REFERENCE...", help="Runs to compare with; the first one is judged by.")
    ],
    max_drop: Annotated[float, typer.Option(help="Largest allowed drop of average accuracy, in points.")] = MAX_DROP,
    as_json: Json = False,
) -> None:
    """Compare a run with a reference item by item. Exit status 1 if accuracy drops by more than --max-drop."""
    opened = Run.open(run)
    results = diff_all(opened, [Run.open(other) for other in references], max_drop)
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 else results, indent=1))
    else:
        print_diff(results)
    for result in results:
        other = result["reference"]
        for name, section in result["tasks"].items():
            unequal = section["items"] - section["same_token_ids"]
            if unequal:
                notes.warn(f"{unequal} of {section['items']} {name} prompts have other token ids in {other}")
        if result["same_checkpoint"] is False:
            raise UserError(f"{run} and {other} come from different checkpoints", "compare the same weights")
    if not results[0]["within_max_drop"]:
        notes.warn(f"average accuracy drops by {results[0]['mean_drop']:.2f} points, more than {max_drop}")
        raise typer.Exit(1)


app.command("report")(report_command)


def main() -> None:
    """Entry point: every user mistake is one line and exit status 2."""
    try:
        app()
    except UserError as error:
        notes.error(error.message, error.hint)
        sys.exit(2)
    except OSError as error:
        notes.error(os_error_line(error), None)
        sys.exit(2)
    except DoesNotFitError:
        sys.exit(1)  # its plan has been shown
    except (WorkerDiedError, llama.DecodeError, MemoryError) as error:
        notes.error(str(error), None)
        sys.exit(1)
    except KeyboardInterrupt:
        notes.error("interrupted", None)
        sys.exit(130)


def _chosen(names: Sequence[str], data: Path | None) -> list[Task]:
    """The tasks of these names, each once; files that are not the published ones are reported."""
    tasks = [get_task(name) for name in dict.fromkeys(names)]
    for task in tasks:
        for line in changed_files(task.name, data, getattr(task, "folders", ())):
            notes.warn(line)
    return tasks


def _requests(prepared: Sequence[Prepared]) -> list[Request]:
    return [question.request for item in prepared for question in item.questions]


def _run_folder(names: list[str]) -> Path:
    return Path("runs") / f"{'+'.join(names)}-{datetime.now().astimezone().strftime('%Y%m%d-%H%M%S')}"
