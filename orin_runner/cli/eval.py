"""``orin-run eval``: tasks on a GGUF."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.challenge_rules import rule_warnings
from eval.evaluate import Prepared, check_known
from eval.runs.items import ITEMS, write_items
from eval.runs.resume import check_folder, check_settings, read_earlier
from eval.runs.run import PAGE
from eval.runs.writer import RunWriter
from eval.truncation import TooLong
from orin_runner.batching.wanted_rows import MIN_BASE
from orin_runner.cli import defaults, exits
from orin_runner.cli.caller import Shell
from orin_runner.cli.expected import asked_tokens, expected_here, generates, keep_measured
from orin_runner.cli.launch import (
    Launch,
    all_requests,
    chosen_places,
    device_line,
    offload_lines,
    open_proved,
    plan_lines,
    tuned_here,
)
from orin_runner.cli.metered import metered_run
from orin_runner.cli.options import (
    TASKS_HELP,
    AllowQuantized,
    ChallengeProtocol,
    Chat,
    Config,
    Data,
    Device,
    FewShot,
    First,
    Gpus,
    Json,
    Limit,
    LogItems,
    MaxNewTokens,
    ModelFile,
    NoTuned,
    Out,
    RayCluster,
    ReplicaCount,
    RunCode,
    ScoringMode,
    Shots,
    Template,
    TooLongRule,
    asked,
    cache_bytes,
    check_code,
    chosen_tasks,
    complete_task,
    device_bytes,
    load_options,
    own_questions,
    splits,
)
from orin_runner.cli.questions import prepare_all
from orin_runner.cli.result import add_prompt_rate, raise_for_failed, run_folder
from orin_runner.cli.run_header import common_header, model_header
from orin_runner.cli.run_proof import RunProof
from orin_runner.cli.shard import Shard, ShardOption
from orin_runner.cli.tokenizer import NamedTokenizer, open_tokenizer, stop_warning
from orin_runner.console import Notes
from orin_runner.engine.prompt_cache import PromptCacheOptions
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request, context_tokens, longest_path
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor

ENGINE = "llama.cpp"
"""What ``run.json`` calls this engine."""

EITHER = "On or off"
"""Has the options with two names, which take a column of their own: on 80 of a terminal names were cut for it."""

TasksOfRun = Annotated[
    list[str] | None, typer.Argument(metavar="TASK...", help=TASKS_HELP, autocompletion=complete_task)
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --out that was broken off, with its tasks and options.")
]
Draft = Annotated[
    bool,
    typer.Option(
        "--draft/--no-draft", rich_help_panel=EITHER, help="Verify a question's own choices instead of decoding."
    ),
]
CacheFolder = Annotated[
    Path | None, typer.Option(help="Keep states of shared prefixes here between runs (off by default).")
]
CacheSize = Annotated[
    str,
    typer.Option(
        "--prompt-cache-size",
        metavar="SIZE",
        help="Bound of that folder, such as 20G or 512M; the oldest go first.",
    ),
]
MeasuredLimit = Annotated[
    bool,
    typer.Option(
        "--measure-limit",
        help="After the run, measure plain prompt processing on the same context (seconds, or four full batches if "
        "that is longer), and report what share of that rate was reached.",
    ),
]
Verify = Annotated[
    bool | None,
    typer.Option(
        "--verify/--no-verify",
        show_default=False,
        rich_help_panel=EITHER,
        help="Compare the model's data with its manifest before the first answer, or not at all (default: beside the "
        "run; before the first answer with --resume and --prompt-cache).",
    ),
]


def eval_command(
    context: typer.Context,
    tasks: TasksOfRun = None,
    model: ModelFile = None,
    named_tokenizer: NamedTokenizer = None,
    allow_quantized: AllowQuantized = False,
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
    resume: Resume = False,
    config: Config = None,  # noqa: ARG001 - defaults.Command has read it
    verify: Verify = None,
    draft: Draft = True,
    max_new_tokens: MaxNewTokens = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
    device: Device = "auto",
    gpus: Gpus = "auto",
    replicas: ReplicaCount = "auto",
    no_tuned: NoTuned = False,
    ray: RayCluster = None,
    shard: ShardOption = None,
    prompt_cache: CacheFolder = None,
    prompt_cache_size: CacheSize = "20GB",
    measure_limit: MeasuredLimit = False,
    run_code: RunCode = False,
    log_items: LogItems = False,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Evaluate tasks on a GGUF: accuracy, time, and how many tokens had to be computed."""
    caller = context.obj or Shell()
    began = caller.began
    start_s = time.perf_counter() - began
    if resume and out is None:
        raise UserError("--resume needs --out", "name the folder of the run that was broken off")
    if resume and out is not None:
        check_folder(out, resume=True)
    if not tasks:
        raise UserError(
            "no task is named", "orin-run eval TASK...; --resume --out RUN needs none if RUN has a run.json"
        )
    options = load_options(data, limit, shots, scoring, chat=chat, protocol=protocol, first=first)
    part = None if shard is None else Shard.parse(shard)
    chosen = chosen_tasks(notes, tasks, data, template, fewshot)
    check_code(chosen, run_code=run_code)
    out = out or run_folder([task.name for task in chosen])
    check_folder(out, resume=resume)
    settings = {
        "tasks": [task.name for task in chosen],
        "questions": own_questions(chosen),
        "draft": draft,
        **asked(options),
        "prompt_cache": None if prompt_cache is None else str(prompt_cache),
        "max_new_tokens": max_new_tokens,
        "too_long": too_long.value,
        "shard": None if part is None else str(part),
    }
    if resume:
        check_settings(out, settings)
    cache_size = cache_bytes(prompt_cache_size)
    file, evidence = open_proved(notes, model, allow_quantized=allow_quantized)
    if ray is not None:
        evidence = evidence.unread("the data of the nodes' files was not compared with the manifest")
    proof = RunProof(notes, evidence, verify=verify, mixes=resume or prompt_cache is not None)
    cache = None
    if prompt_cache is not None:
        identity = file.digest() if proof.comes_first else file.digest_as_it_lies()
        cache = PromptCacheOptions(prompt_cache, cache_size, f"model {identity}")
    size = device_bytes(device)
    tuned = tuned_here(file, no_tuned=no_tuned)
    with chosen_places(notes, file, gpus, replicas, ray) as where, Launch(notes, file, size, where, tuned) as launch:
        tokenizer = open_tokenizer(notes, file, named_tokenizer)
        prepared = prepare_all(notes, chosen, options, tokenizer, file.n_ctx_train, too_long, max_new_tokens)
        risks = _warn(notes, prepared, file, tokenizer, prompt_cache=prompt_cache is not None)
        # A shard's plan is that of the whole, and so is its choice of long-rope's factors.
        whole = all_requests(prepared)
        if part is not None:
            prepared, said = part.of_tasks(prepared)
        requests = all_requests(prepared)
        settings["splits"] = splits(prepared)
        if resume and (report := _finished(out, file, tokenizer, settings, prepared)) is not None:
            missing = log_items and not (out / ITEMS).exists()
            changed = f"{ITEMS} is added" if missing else "nothing is changed"
            notes.note(f"{out} holds all {len(requests)} answers: nothing is left to go on with, and {changed}")
            if missing:
                write_items(out, prepared, tokenizer)
            caller.take(report, out, notes, as_json=as_json, page=not (out / PAGE).exists())
            return
        # The workers load meanwhile. One task that generates nothing needs no more than its own pace.
        tokens = asked_tokens(prepared) if len(prepared) > 1 or generates(requests) else {}
        with proof, launch.started(whole, draft=draft, prompt_cache=cache) as supervisor:
            verdict = proof.before_answers(on_gpu=supervisor.loaded.gpu_layers > 0)
            _say_how_it_runs(notes, supervisor, file, requests)
            header = {
                **common_header(ENGINE),
                "command": caller.command,
                **model_header(file, tokenizer, verdict, supervisor),
                "settings": settings,
                "options": defaults.kept(context, settings, file.path),
            }
            if part is not None:
                header["shard"] = said
            with RunWriter(out, header, resume=resume) as writer, proof.told(writer):
                defaults.write_config(out, context, defaults.parameters(context, file.path))
                if resume:
                    torn = "; an incomplete last line was dropped" if writer.torn else ""
                    held = sum(prediction.skipped is None for prediction in writer.known.values())
                    notes.note(f"{out} holds {held} answers of {len(requests)}{torn}")
                expected = expected_here(tokens, file, supervisor.plan, len(where), None)
                sections, measured, cacheable = metered_run(
                    notes, prepared, tokenizer, supervisor, writer, start_s, began, proof.poll, where, tokens, expected
                )
                report = {"tasks": sections, "restarts": supervisor.deaths, "warnings": risks, "measured": measured}
                report["lossy"] = bool(file.quantized)
                writer.report(report)
                left = any("unanswered" in section for section in sections.values())
                if measure_limit and not left:
                    add_prompt_rate(report, supervisor.prompt_rate, notes)
                    writer.report(report)
                supervisor.dismiss()
                if not left:
                    proof.wait()
                    if ray is None and not supervisor.deaths:
                        failure = keep_measured(sections, file, supervisor.plan, len(where), out)
                        if failure is not None:
                            notes.detail(failure)
        if prompt_cache is not None and not (left or cacheable or supervisor.deaths):
            notes.warn(f"nothing was taken from the prompt cache or kept in it: {_why_nothing(file.window)}")
        if log_items:
            write_items(out, prepared, tokenizer)
        caller.take(report, out, notes, as_json=as_json)  # the workers end meanwhile
    again = f"orin-run eval --resume --out {shlex.quote(str(out))}"
    if left:
        raise exits.BrokenOffError(f"{again} goes on")
    raise_for_failed(sections, out, len(requests), f"; {again} asks them again")


def _why_nothing(window: int | None) -> str:
    """Why a run has no prefix that the prompt cache takes (``WantedRows.bases``)."""
    if window and window <= MIN_BASE:
        return f"it takes {MIN_BASE} tokens and more that several prompts begin with, and the window has {window}"
    return f"no two of the prompts and choices begin with the same {MIN_BASE} tokens"


def _finished(
    out: Path, file: GGUFFile, tokenizer: Tokenizer, settings: dict[str, Any], prepared: Sequence[Prepared]
) -> dict[str, Any] | None:
    """The report of the run to go on with, where that has an answer to every question; None where some are left.

    Raises:
        UserError: it is a run of another engine, other settings, another model or other questions, or is damaged.
    """
    model = {"sha256": file.digest(), **tokenizer.header}
    earlier = read_earlier(out, {"engine": ENGINE, "settings": settings, "model": model})
    check_known(prepared, earlier.known)
    return earlier.report if earlier.is_complete({item.task.name: item.n_items for item in prepared}) else None


def _warn(
    notes: Notes, prepared: Sequence[Prepared], file: GGUFFile, tokenizer: Tokenizer, *, prompt_cache: bool
) -> list[str]:
    """Warn of prompts beyond a dropped window and of texts without end, then of what the challenge's rules object to.

    Returns:
        The latter.
    """
    dropped = file.dropped_window is not None
    risks: list[str] = []
    for item in prepared:
        risks += rule_warnings(
            item,
            file.altered_values,
            quantized=bool(file.quantized),
            window_dropped=dropped,
            prompt_cache=prompt_cache,
        )
        for warning in (window_warning(item, file), stop_warning(item, tokenizer)):
            if warning is not None:
                notes.warn(warning)
    for risk in risks:
        notes.warn(risk)
    return risks


def window_warning(item: Prepared, file: GGUFFile) -> str | None:
    """What a dropped sliding window means for a task's prompts and choices; None where it means nothing.

    How long texts become is not known yet: of these the prompt alone is counted.
    """
    window = file.dropped_window
    if window is None:
        return None
    beyond = sum(longest_path(question.request) > window for question in item.questions)
    if not beyond:
        return None
    return (
        f"{beyond} of {len(item.questions)} {item.task.name} prompts, with their choices, are longer than the model's "
        f"{window}-token sliding window, which this file's layout drops: their answers are not the model's. "
        f"Convert the checkpoint with --window exact"
    )


def _say_how_it_runs(
    notes: Notes, supervisor: Supervisor | Replicas, file: GGUFFile, requests: Sequence[Request]
) -> None:
    notes.note(device_line(supervisor.loaded, supervisor.plan))
    for line in [*offload_lines(supervisor.loaded, file), *plan_lines(supervisor.plan)]:
        notes.detail(line)
    fitting = supervisor.max_context
    left_out = sum(context_tokens(request) > fitting for request in requests)
    if left_out:
        notes.warn(
            f"{left_out} of {len(requests)} requests need more than the {fitting} tokens of context that "
            f"fit into memory: they are left out and count as wrong"
        )
