"""``orin-run bench``: how fast a model is here by the shape of its decode calls, and what the device can do at most."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Any

import typer

from orin_runner.cli.launch import f32_line, open_model
from orin_runner.cli.measuring import NAMES, PLANNED, Findings, label, mean, measuring
from orin_runner.cli.options import AllowQuantized, Json, ModelFile
from orin_runner.console import Notes, print_table, say, say_json
from orin_runner.engine.bench import (
    DEPTH,
    MOST_S,
    NEW_TOKENS,
    PREFIX,
    QUESTION,
    QUESTIONS,
    STEPS,
    TEXT_PROMPT,
    Pace,
    Rate,
)
from orin_runner.errors import RunError, UserError
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.speeds import Speed, keep_speeds
from orin_runner.machine.tuned import KEPT, Tuned, TunedWork
from orin_runner.model import llama_library
from orin_runner.workers.bench import Bench, BenchJob, Ceilings, NoCeilings
from orin_runner.workers.nodes import seats_here
from orin_runner.workers.places import places_here

SPEEDS: dict[TunedWork, tuple[str, float | None]] = {"scores": ("bench", None), "texts": ("bench texts", NEW_TOKENS)}
"""The task that a rate is remembered of, and the decode steps of a text."""


def bench_command(
    model: ModelFile = None,
    allow_quantized: AllowQuantized = False,
    repetitions: Annotated[int, typer.Option(min=1, max=1000, help="Of each measurement at least ...")] = Pace().runs,
    seconds: Annotated[
        float, typer.Option(min=0, max=600, help=f"... and so long at least, unless {MOST_S:.0f} s are over.")
    ] = Pace().seconds,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Measure how fast a model is here and what the device could do; eval and plan then use the fastest settings."""
    file = open_model(notes, model, allow_quantized=allow_quantized)
    place = places_here(file.path, seats_here(file, "auto", "auto")[0][:1])[0]
    found = Findings(file, place.n_threads)
    pace = Pace(repetitions, seconds)
    bench = Bench(BenchJob(file.path, place.memory, place.n_threads, pace), place.spawn)
    stored: tuple[Tuned, ...] = ()
    try:
        with bench, notes.progress("bench", 1.0) as bar:
            for share, what in measuring(found, bench, pace, notes):
                bar.update(share, what)
        stored = keep(found, bench, notes)
    except KeyboardInterrupt:
        _show(found, bench, stored, as_json=as_json)
        raise
    _show(found, bench, stored, as_json=as_json)
    if all(row.rate is None for row in found.rows):
        raise RunError("nothing could be measured")


def keep(found: Findings, bench: Bench, notes: Notes) -> tuple[Tuned, ...]:
    """Remember the fastest shapes and their rates for later runs; a warning where that is not possible."""
    if bench.ready is None:
        return ()
    at = datetime.now().astimezone().isoformat(timespec="seconds")
    model, device, library = found.file.digest(), bench.ready.device, llama_library.version()
    tuned, speeds = [], []
    for work, (task, steps) in SPEEDS.items():
        row = found.fastest(work)
        if row is not None and row.shape is not None:
            tuned.append(Tuned(model, device, library, work, row.shape, mean(row), at, found.f32_gain))
            speeds.append(Speed(model, device, library, task, mean(row), steps, "orin-run bench", at))
    try:
        keep_speeds(speeds)
        KEPT.keep(tuned)
    except (UserError, OSError) as error:
        notes.warn(f"later runs will not know of this: {error}")
        return ()
    return tuple(tuned)


def _show(found: Findings, bench: Bench, stored: tuple[Tuned, ...], *, as_json: bool) -> None:
    if as_json:
        device = None if bench.ready is None else bench.ready.device
        say_json(to_json(found, device, stored))
    else:
        print_findings(found, stored)


def to_json(found: Findings, device: str | None, stored: tuple[Tuned, ...]) -> dict[str, Any]:
    """All that was measured; rates in tokens, FLOP and bytes a second."""
    ceilings: dict[str, Any] | None = None
    if isinstance(found.ceilings, Ceilings):
        ceilings = asdict(found.ceilings)
        rates = {name: getattr(found.ceilings, name) for name in ("product", "copy", "product_f32")}
        ceilings |= {name: None if rate is None else _rate(rate) for name, rate in rates.items()}
    elif found.ceilings is not None:
        ceilings = {"failure": found.ceilings.why}
    rows = [
        {
            "work": row.asked.work,
            "n": row.asked.n,
            "planned": row.asked.shape is None,
            "shape": None if row.shape is None else asdict(row.shape),
            "tokens_per_s": None if row.rate is None else _rate(row.rate),
            "share_of_product": found.share_of_product(row),
            "share_of_copy": found.share_of_copy(row),
            "failure": row.failure,
        }
        for row in found.rows
    ]
    return {
        "model": str(found.file.path),
        "sha256": found.file.digest(),
        "device": device,
        "library": llama_library.version(),
        "threads": found.n_threads,
        "ceilings": ceilings,
        "rows": rows,
        "stored": {each.work: {**asdict(each.shape), "tokens_per_s": each.tokens_per_s} for each in stored},
    }


def _rate(rate: Rate) -> dict[str, Any]:
    return {**asdict(rate), "mean": rate.mean, "sd": rate.sd}


def print_findings(found: Findings, stored: tuple[Tuned, ...]) -> None:
    """The ceilings, a table of the rates, and what is the fastest."""
    _print_ceilings(found.ceilings)
    if found.f32_gain is not None:
        say(f32_line(found.file, found.f32_gain))
    best = [found.fastest(work) for work in SPEEDS]
    rows = []
    for row in found.rows:
        remarks = [PLANNED] * (row.asked.shape is None) + ["fastest"] * (row in best) + [row.failure or ""]
        sizes = ("", "", "") if row.shape is None else [str(n) for n in asdict(row.shape).values()]
        rate = ("", "") if row.rate is None else (_spread(row.rate), f"{row.rate.warm_up:,.1f}")
        shares = (_percent(found.share_of_product(row)), _percent(found.share_of_copy(row)))
        rows.append((label(row.asked), *sizes, *rate, *shares, ", ".join(filter(None, remarks))))
    heads = ("work", "contexts", "n_batch", "n_ubatch", "tokens/s", "warm-up", "of product", "of copy", "remarks")
    if rows:
        print_table("", heads, rows, (0, len(heads) - 1))
        say(
            f"prompts: {QUESTIONS} share {PREFIX} tokens and have {QUESTION} each; texts: {NEW_TOKENS} tokens, behind "
            f"prompts of {PREFIX} shared and {TEXT_PROMPT} own; decode: {STEPS} steps behind {DEPTH} tokens; "
            f"{PLANNED}: the settings of a plan without measurements"
        )
    for each in stored:
        say(f"fastest for {NAMES[each.work]}: {each.shape}, {each.tokens_per_s:,.1f} tokens/s")
    if stored:
        say(f"eval and plan use that for this model, device and library ({KEPT.path}); --no-tuned plans without")


def _print_ceilings(ceilings: Ceilings | NoCeilings | None) -> None:
    if isinstance(ceilings, NoCeilings):
        say(f"no ceilings: {ceilings.why}")
    elif ceilings is not None:
        say(
            f"product: {_spread(ceilings.product, 1e9)} GFLOP/s, ggml_mul_mat of {ceilings.kind} {ceilings.n_in} x "
            f"{ceilings.n_out} ({ceilings.tensor}) and {ceilings.columns} columns of F32 on {ceilings.device}"
        )
        if ceilings.product_f32 is not None:
            say(f"product of F32: {_spread(ceilings.product_f32, 1e9)} GFLOP/s, of the same sizes")
        say(
            f"copy: {_spread(ceilings.copy, 1e9)} GB/s read and written, ggml_cpy of "
            f"{ceilings.copy_bytes / MIB:,.0f} MiB on {ceilings.device}"
        )


def _spread(rate: Rate, unit: float = 1.0) -> str:
    return f"{rate.mean / unit:,.1f}" + ("" if rate.sd is None else f" ± {rate.sd / unit:,.1f}")


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f} %"
