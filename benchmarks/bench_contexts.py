"""One context or two in turn, and how large their batches are: the tree pass on one GPU.

    python benchmarks/bench_contexts.py --gguf M.gguf --data DIR [--rounds 3] [--questions 1000]

The model is loaded once; each setting runs the same requests of MMLU (letters, 5-shot) and of HellaSwag, interleaved.
Prints one table of medians. With two contexts the device computes for one while llama.cpp prepares the other's batch.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from gpu_runs import used_mib

from eval.encoding import encode_docs
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner import __version__
from orin_runner.engine.engine import Engine
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import GPU_HOST_THREADS, budget_of, context_settings, needs_of
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request
from orin_runner.workers.worker import SWITCH_S

SHAPES = [(1, 2048, 1024), (2, 2048, 1024), (2, 1024, 1024), (2, 512, 512)]
"""(contexts, n_batch, n_ubatch)"""


@dataclass(frozen=True)
class Measured:
    """A tree pass: tokens per second of it, shares of it, and MiB of GPU memory that the contexts took."""

    rate: float
    ratio: float
    submit: float
    alone: float
    wait: float
    idle: float
    mib: int


def measure(
    model: llama.Model, requests: list[Request], shape: tuple[int, int, int], *, gpu: bool, threads: int
) -> Measured:
    """Run ``requests`` in contexts of ``shape``."""
    n_contexts, n_batch, n_ubatch = shape
    needs = needs_of(requests)
    settings = context_settings(needs, n_batch, n_ubatch, needs.longest + n_batch, min(threads, GPU_HOST_THREADS))
    before = used_mib() if gpu else 0
    with ExitStack() as stack:
        contexts = [stack.enter_context(llama.Context(model, settings)) for _ in range(n_contexts)]
        engine = Engine(
            contexts,
            budget_of(settings),
            n_positions=model.n_ctx_train,
            n_threads=threads,
        )
        for _ in engine.run(requests):
            pass
        taken = used_mib() - before if gpu else 0
    stats = engine.stats
    seconds = stats.clocks["prefill"]
    took = stats.device
    shares = [part / seconds for part in (took.submit_s, took.alone_s, took.wait_s, took.idle_s)]
    return Measured(stats.computed / seconds, stats.computed / stats.unique, *shares, taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published data files")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sys.setswitchinterval(SWITCH_S)
    file = GGUFFile.open(args.gguf)
    tokenizer = Tokenizer.from_gguf(file)
    tasks: dict[str, list[Request]] = {}
    for name in ("mmlu", "hellaswag"):
        docs = get_task(name).load(LoadOptions(args.data, args.questions)).docs
        tasks[name] = [question.request for question in encode_docs(docs, tokenizer)]
    gpu = any(device.is_gpu for device in llama.devices())
    found: dict[tuple[str, tuple[int, int, int]], list[Measured]] = {}
    with llama.Model(args.gguf) as model:
        for _ in range(args.rounds):
            for name, requests in tasks.items():
                for shape in SHAPES:
                    before = time.perf_counter()
                    measured = measure(model, requests, shape, gpu=gpu, threads=cpu_threads())
                    found.setdefault((name, shape), []).append(measured)
                    print(name, shape, measured, f"{time.perf_counter() - before:.1f} s", flush=True)
    devices = ", ".join(f"{device.name} ({device.description})" for device in llama.devices())
    print(f"{platform.machine()}, {devices}; llama-cpp-python {llama.version()}, orin-run {__version__}")
    print(
        "| task | contexts, n_batch, n_ubatch | tokens/s | of one | computed/unique | in llama_decode | alone | idle |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, shape), runs in found.items():
        sizes = f"{shape[0]}, {shape[1]:,}, {shape[2]:,}"
        rate = statistics.median(run.rate for run in runs)
        one = statistics.median(run.rate for run in found[name, SHAPES[0]])
        last = runs[-1]
        shares = f"{last.ratio:.4f} | {last.submit:.1%} | {last.alone:.1%} | {last.idle:.2%}"
        print(f"| {name} | {sizes} | {rate:,.0f} | {rate / one:.3f} | {shares} |")


if __name__ == "__main__":
    main()
