"""``orin-run selftest``: the tree against single sequences."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from orin_runner.cli.launch import Launch, device_line, offload_lines, open_model
from orin_runner.cli.options import AllowQuantized, Device, Json, ModelFile, device_bytes
from orin_runner.console import Notes, say, say_json
from orin_runner.engine.selftest import SelftestResult, compare, random_requests
from orin_runner.workers.nodes import seats_here
from orin_runner.workers.places import places_here

MAX_REQUESTS = 10_000
"""Each is computed alone as well: these take minutes where a batch takes a tenth of a second."""


def selftest_command(
    model: ModelFile = None,
    allow_quantized: AllowQuantized = False,
    requests: Annotated[int, typer.Option(min=2, max=MAX_REQUESTS, help="Random requests to compare.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Source of the random tokens.")] = 1,
    device: Device = "auto",
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Compare the tree with single sequences on random tokens. Exit status 1 if more than rounding differs."""
    file = open_model(notes, model, allow_quantized=allow_quantized)
    window = file.window or 0
    longest = min(file.n_ctx_train, window + 300 if window else 1500)
    made = random_requests(requests, file.n_vocab, window, longest, seed)
    size, where = device_bytes(device), places_here(file.path, seats_here(file, "auto", "auto")[0][:1])
    with notes.progress("selftest", None) as bar, Launch(notes, file, size, where).started(made) as supervisor:
        notes.note(device_line(supervisor.loaded, supervisor.plan))
        for line in offload_lines(supervisor.loaded, file):
            notes.detail(line)
        result = compare(made, supervisor, window, lambda n: bar.update(n, f"{n} alone"))
    if as_json:
        say_json({**asdict(result), "allowed": result.allowed, "passed": result.passed})
    else:
        print_selftest(result)
    if not result.passed:
        raise typer.Exit(1)


def print_selftest(result: SelftestResult) -> None:
    """How far the tree is from single sequences, and how far it may be."""
    window = f", window {result.window}" if result.window else ""
    say(
        f"{result.requests} random requests of up to {result.longest} tokens{window}: {result.unique:,} unique tokens, "
        f"{result.computed:,} computed"
    )
    say(
        f"largest difference of any log-probability, tree against single sequence: {result.difference:.2g} "
        f"(allowed {result.allowed:.2g})"
    )
    say(f"rounding of unrelated sequences: {result.rounding:.2g}")
    say("passed" if result.passed else "FAILED: the tree does not give what single sequences give")
