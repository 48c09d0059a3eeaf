"""How many tokens a decode call should have on a CPU: tokens per CPU second for calls and ubatches of several sizes.

    python -m benchmarks.cpu_batches --gguf FILE [--data DIR] [--tasks exam,mmlu,hellaswag] [--limit 100] [--rounds N]
                                     [--shapes 256/256,512/512,1024/512,2048/512,2048/2048]

Each task is answered with every shape (tokens of a call / of an ubatch) once a round, one after another, the next round
in the opposite order. CPU seconds are user and system time of the process, so a busy machine disturbs them little.
Tokens are those computed and checked.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.asked import requests_of
from orin_runner.engine.engine import Engine
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import DECODE_CELLS, budget_of, context_settings, needs_of
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, Model
from orin_runner.requests import Request, context_tokens


def measure(gguf: Path, name: str, requests: Sequence[Request], shapes: Sequence[tuple[int, int]], rounds: int) -> None:
    """A row for each shape."""
    needs = needs_of(requests)
    seconds: dict[tuple[int, int], list[float]] = {shape: [] for shape in shapes}
    tokens: dict[tuple[int, int], int] = {}
    overrides = GGUFFile.open(gguf).rope_overrides(max(map(context_tokens, requests)))
    with ExitStack() as stack:
        model = stack.enter_context(Model(gguf, overrides=overrides))
        engines = {}
        for n_batch, n_ubatch in shapes:
            cells = needs.longest + n_batch + (DECODE_CELLS if needs.generated else 0)
            settings = context_settings(needs, n_batch, n_ubatch, cells, cpu_threads())
            context = stack.enter_context(Context(model, settings))
            engines[n_batch, n_ubatch] = Engine([context], budget_of(settings), n_positions=model.n_ctx_train)
        for n in range(rounds):
            for shape in list(shapes)[:: -1 if n % 2 else 1]:
                before = time.process_time()
                for _ in engines[shape].run(requests):
                    pass
                seconds[shape].append(time.process_time() - before)
                tokens[shape] = engines[shape].stats.computed + engines[shape].stats.checked
    for shape, took in seconds.items():
        median = statistics.median(took)
        print(
            f"| {gguf.stem} | {name} | {shape[0]:,} / {shape[1]:,} | {tokens[shape]:,} | {median:.2f} | "
            f"{tokens[shape] / median:,.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"))
    parser.add_argument("--tasks", default="exam,mmlu,hellaswag")
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shapes", default="256/256,512/512,1024/512,2048/512,2048/2048")
    args = parser.parse_args()
    shapes = [(int(a), int(b)) for a, b in (shape.split("/") for shape in args.shapes.split(","))]
    file = GGUFFile.open(args.gguf)
    print("| model | task | call / ubatch | tokens | CPU s | tokens per CPU s |\n| --- | --- | --- | --- | --- | --- |")
    for name in args.tasks.split(","):
        measure(args.gguf, name, requests_of(name, file, args.data, args.limit), shapes, args.rounds)


if __name__ == "__main__":
    main()
