"""How far do a run's scores lie from the same tokens computed alone, and does what the run says of it hold?

    python -m benchmarks.rounding --gguf FILE --data DIR [--tasks arc_easy,hellaswag,winogrande] [--limit 300]

Each task runs once as ``orin-run eval`` runs it; then every path is computed again, one sequence in an empty cache, and
every scored token compared. The table gives what the run's own sample said (``noise`` in ``report.json``), what all
tokens say, and how far the margins of all items moved: in units of what one token's root mean square makes of their
number of tokens, and how many moved by more than their near-tie.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.asked import requests_of
from orin_runner.engine.engine import Engine
from orin_runner.engine.executor import Executor
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.memory_plan import MemoryPlanner, budget_of, needs_of
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Request, Scored, ScoreRequest, context_tokens
from orin_runner.runner import Noise

Float64 = npt.NDArray[np.float64]
COLUMNS = (
    *("task", "items", "tokens", "sampled", "rms said", "rms", "largest said", "largest"),
    *("margins: 50 %", "99 %", "widest", "beyond their near-tie"),
)


def alone(executor: Executor, requests: Sequence[Request]) -> Float64:
    """Log-probability of every wanted token, each path alone, in the order of the requests' continuations."""
    wanted = WantedTokens(requests)
    found = np.full(len(wanted.token), np.nan)
    order = sorted(range(len(wanted.paths)), key=lambda path: wanted.paths[path].tobytes())
    by_path = np.argsort(wanted.path, kind="stable")
    bounds = np.searchsorted(wanted.path[by_path], np.arange(len(wanted.paths) + 1))
    tokens_of = [by_path[bounds[path] : bounds[path + 1]] for path in range(len(wanted.paths))]
    first = [int(wanted.position[tokens_of[path]].min()) for path in order]
    n_last = [len(wanted.paths[path]) - at for path, at in zip(order, first, strict=True)]
    rows_of = executor.rows_alone([wanted.paths[path] for path in order], n_last)
    for path, at, rows in zip(order, first, rows_of, strict=True):
        here = tokens_of[path]
        logits = rows[wanted.position[here] - at].astype(np.float64)
        top = logits.max(axis=1)
        total = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        found[here] = logits[np.arange(len(here)), wanted.token[here]] - total
    return found


def answers(engine: Engine, requests: Sequence[Request]) -> Float64:
    """What the engine says of the same tokens."""
    found: dict[int, Scored] = {}
    for i, result in engine.run(requests):
        assert isinstance(result, Scored), result
        found[i] = result
    return np.concatenate([logprobs for i in range(len(requests)) for logprobs in found[i].logprobs])


def margins(requests: Sequence[Request], run: Float64, exact: Float64) -> Iterator[tuple[float, float]]:
    """Per item how far the lead of its best choice over the next moved, in nats, and the root of their tokens."""
    at = 0
    for request in requests:
        assert isinstance(request, ScoreRequest)
        sizes = np.array(request.n_scored)
        starts = at + np.concatenate([[0], np.cumsum(sizes)[:-1]])
        at += int(sizes.sum())
        sums, alone_sums = (np.add.reduceat(values[:at], starts) for values in (run, exact))
        best, second = np.argsort(-sums, kind="stable")[:2]
        moved = (sums[best] - sums[second]) - (alone_sums[best] - alone_sums[second])
        yield abs(float(moved)), float(np.sqrt(sizes[best] + sizes[second]))


def row(name: str, requests: Sequence[Request], run: Float64, exact: Float64, noise: Noise) -> list[str]:
    differences = np.abs(run - exact)
    rms = float(np.sqrt((differences**2).mean()))
    moved, roots = (np.array(column) for column in zip(*margins(requests, run, exact), strict=True))
    in_noises = moved / roots / rms
    return [
        *(name, str(len(requests)), str(len(run)), str(noise.n), f"{noise.rms:.4f}", f"{rms:.4f}"),
        *(f"{noise.largest:.3f}", f"{differences.max():.3f}"),
        *(f"{np.quantile(in_noises, share):.2f}" for share in (0.5, 0.99, 1.0)),
        str(int((moved > noise.near_tie * roots).sum())),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="arc_easy,hellaswag,winogrande")
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()
    file = GGUFFile.open(args.gguf)
    table = [list(COLUMNS)]
    with llama.Model(args.gguf) as model:
        for name in args.tasks.split(","):
            requests = requests_of(name, file, args.data, args.limit)
            planner = MemoryPlanner(
                file,
                present_device(None),
                cpu_threads(),
                simulate=lambda settings: llama.simulate(args.gguf, settings),
                share=1.0,
            )
            plan, _ = planner.plan_that_fits(needs_of(requests), [context_tokens(request) for request in requests])
            with ExitStack() as stack:
                contexts = [stack.enter_context(llama.Context(model, plan.settings)) for _ in range(plan.n_contexts)]
                engine = Engine(
                    contexts, budget_of(plan.settings), n_positions=file.n_ctx_train, n_threads=cpu_threads()
                )
                run = answers(engine, requests)
                exact = alone(Executor(contexts[0]), requests)
            table.append(row(name, requests, run, exact, engine.stats.score_noise))
    for line in table:
        print(" | ".join(line))


if __name__ == "__main__":
    main()
