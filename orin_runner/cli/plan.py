"""``orin-run plan``: what a run will take, memory and time, before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

import typer

from eval.sent_tokens import AskedTokens
from eval.truncation import TooLong, n_truncated
from orin_runner.cli.expected import Expected, asked_tokens, expected_here, expected_on, limits_here
from orin_runner.cli.launch import all_requests, f32_line, open_model, plan_here, plan_lines, tuned_here, tuned_line
from orin_runner.cli.options import (
    AllowQuantized,
    ChallengeProtocol,
    Chat,
    Data,
    Device,
    FewShot,
    First,
    Gpus,
    Json,
    Limit,
    MaxNewTokens,
    ModelFile,
    NoTuned,
    ReplicaCount,
    ScoringMode,
    Shots,
    Tasks,
    Template,
    TooLongRule,
    chosen_tasks,
    device_bytes,
    load_options,
)
from orin_runner.cli.questions import prepare_all
from orin_runner.cli.tokenizer import NamedTokenizer, open_tokenizer
from orin_runner.console import Notes, duration, print_table, say, say_json
from orin_runner.machine.devices import KNOWN
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner
from orin_runner.machine.roofline import ORIN_MODES
from orin_runner.machine.tuned import f32_gain_on
from orin_runner.workers.messages import Job

ORIN = "orin-32gb"
"""The one that times are projected for where ``--device`` names none."""


def plan_command(
    tasks: Tasks,
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
    max_new_tokens: MaxNewTokens = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
    device: Device = "auto",
    gpus: Gpus = "auto",
    replicas: ReplicaCount = "auto",
    no_tuned: NoTuned = False,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Show what a run will take, memory and time, before anything is loaded. Exit status 1 if it does not fit."""
    options = load_options(data, limit, shots, scoring, chat=chat, protocol=protocol, first=first)
    file = open_model(notes, model, allow_quantized=allow_quantized)
    tokenizer = open_tokenizer(notes, file, named_tokenizer)
    chosen = chosen_tasks(notes, tasks, data, template, fewshot)
    prepared = prepare_all(notes, chosen, options, tokenizer, file.n_ctx_train, too_long, max_new_tokens)
    requests = all_requests(prepared)
    size = device_bytes(device)
    job = Job.of(file, requests, device_bytes=size, tuned=tuned_here(file, no_tuned=no_tuned))
    lengths = job.lengths
    asked = asked_tokens(prepared)
    expected = []
    if device in KNOWN:
        found, fitting = MemoryPlanner(file, KNOWN[device], job.n_threads).plan_that_fits(job.needs, lengths)
    else:
        found, fitting, n_replicas = plan_here(notes, file, job, gpus, replicas)
        expected.append(expected_here(asked, file, found, n_replicas, limits_here(found, n_replicas)))
    orin = device if device in KNOWN else ORIN
    expected += [expected_on(mode, asked, file, found.settings.n_seq) for mode in ORIN_MODES[orin]]
    if found.tuned:
        notes.note(tuned_line(found))
    if gain := f32_gain_on(found.device, job.tuned):
        notes.note(f32_line(file, gain))
    whole = found.fits and fitting == max(lengths, default=1)
    if as_json:
        say_json(
            {
                **found.to_json(),
                "requests": len(lengths),
                "fits": whole,
                "limit": fitting,
                "truncated": {item.task.name: n_truncated(item) for item in prepared},
                "skipped": {item.task.name: len(item.skipped) for item in prepared},
                "tokens": {name: asdict(tokens) for name, tokens in asked.items()},
                "expected_s": {each.name: each.to_json() for each in expected},
            }
        )
    else:
        print_expected(asked, expected, KNOWN[orin].name)
        print_plan(found)
        left_out = sum(length > fitting for length in lengths)
        if found.fits and left_out:
            say(f"{left_out} of {len(lengths)} requests are longer than {fitting} tokens and do not fit")
    if not whole:
        raise typer.Exit(1)


def print_expected(asked: Mapping[str, AskedTokens], expected: Sequence[Expected], orin: str) -> None:
    """What each task asks for and how long it should take on each device; below it what that rests on.

    Args:
        asked: by task.
        expected: of this machine, where it is among them, then of the power modes of ``orin``.
        orin: a device that is not here.
    """
    counts = [
        (task, *(f"{n:,}" for n in (tokens.requests, tokens.sent, tokens.unique, tokens.texts)))
        for task, tokens in asked.items()
    ]
    print_table("questions", ("task", "prompts", "tokens sent", "unique", "texts"), counts)
    times = [(task, *(_time(each.seconds.get(task)) for each in expected)) for task in asked]
    if len(asked) > 1:
        whole = (_time(sum(each.seconds.values()) if len(each.seconds) == len(asked) else None) for each in expected)
        times.append(("all", *whole))
    heads = [f"{each.name}*" if each.projected else each.name for each in expected]
    print_table("expected time of inference", ("task", *heads), times)
    for line in (line for each in expected if not each.projected for line in each.basis):
        say(line)
    say(f"* projected for a {orin} in this power mode: its limits, and the shares of them that an H100 reached")


def _time(seconds: float | None) -> str:
    """As h:mm:ss; tenths of a second below ten."""
    if seconds is None:
        return "not known"
    return f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def print_plan(plan: MemoryPlan) -> None:
    """The whole plan as a table; of several GPUs a column for each."""
    (_print_columns if plan.columns else _print_terms)(plan)
    if plan.formula:
        say(f"the device is not here, so nothing is simulated: {plan.formula}")
    for line in plan_lines(plan):
        say(line)


def _print_terms(plan: MemoryPlan) -> None:
    """A plan for one device."""
    rows = []
    for name, size in plan.terms.items():
        where = "unified" if plan.device.unified else "device" if name in plan.on_device else "host"
        rows.append((name + (" (assumed)" if name in plan.assumed else ""), f"{size / MIB:,.0f}", where))
    rows.append(("total", f"{plan.total / MIB:,.0f}", ""))
    rows.append((f"available ({plan.device.note})", f"{plan.device.available / MIB:,.0f}", ""))
    rows.append(("remaining", f"{plan.remaining / MIB:,.0f}", ""))
    print_table(plan.device.name, ("term", "MiB", "memory"), rows, (0, 2))


def _print_columns(plan: MemoryPlan) -> None:
    """A plan for several GPUs."""

    def row(name: str, sizes: Iterable[int]) -> tuple[str, ...]:
        return (name, *(f"{size / MIB:,.0f}" for size in sizes), "")

    rows = [("layers", *(str(column.layers) for column in plan.columns), "")]
    for name, size in plan.terms.items():
        shown = name + (" (assumed)" if name in plan.assumed else "")
        if name in plan.on_device:
            rows.append(row(shown, (column.terms[name] for column in plan.columns)))
        else:
            rows.append((shown, *("" for _ in plan.columns), f"{size / MIB:,.0f}"))
    rows.append(row("total", (column.total for column in plan.columns)))
    rows.append(row(f"available ({plan.device.note})", (column.available for column in plan.columns)))
    rows.append(row("remaining", (column.remaining for column in plan.columns)))
    heads = ("MiB", *(column.name for column in plan.columns), "host")
    print_table(plan.device.name, heads, rows)
