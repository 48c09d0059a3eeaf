"""How many contexts take turns, and how large their batches are, on the GPUs that are visible.

    python -m benchmarks.bench_contexts --gguf M.gguf --data DIR [--rounds 3] [--tasks mmlu:3000,hellaswag:1000,...]
        [--shapes 1x2048/1024,2x1024,...]

The model is loaded once, its layers divided as a run divides them; each setting runs the same requests of each task,
interleaved. Prints one table of medians. While the device computes for one context, llama.cpp prepares another's batch.
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

from benchmarks.gpu_runs import used_mib
from eval.encoding import encode_docs
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner import __version__
from orin_runner.engine.engine import Engine
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.layer_split import split_of
from orin_runner.machine.memory_plan import DECODE_CELLS, GPU_HOST_THREADS, budget_of, context_settings, needs_of
from orin_runner.model import llama, llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Request
from orin_runner.workers.worker import SWITCH_S

SHAPES = "1x2048/1024,2x1024,3x1024,4x1024,2x512,3x512,4x512"
"""CONTEXTS x n_batch / n_ubatch, which is n_batch where it is not named."""
Shape = tuple[int, int, int]


def shapes(text: str) -> list[Shape]:
    """(contexts, n_batch, n_ubatch) of each entry of ``text``."""
    found = []
    for entry in text.split(","):
        n, _, sizes = entry.partition("x")
        n_batch, _, n_ubatch = sizes.partition("/")
        found.append((int(n), int(n_batch), int(n_ubatch or n_batch)))
    return found


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


def measure(model: llama.Model, requests: list[Request], shape: Shape, *, gpu: bool, threads: int) -> Measured:
    """Run ``requests`` in contexts of ``shape``."""
    n_contexts, n_batch, n_ubatch = shape
    needs = needs_of(requests)
    cells = needs.longest + n_batch + (DECODE_CELLS if needs.generated else 0)
    settings = context_settings(needs, n_batch, n_ubatch, cells, min(threads, GPU_HOST_THREADS))
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
    seconds = stats.clocks.get("prefill", 0.0) + stats.clocks.get("decode", 0.0)
    took = stats.device
    submit, alone, wait, idle = (part / seconds for part in (took.submit_s, took.alone_s, took.wait_s, took.idle_s))
    return Measured(stats.computed / seconds, stats.computed / stats.unique, submit, alone, wait, idle, taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published data files")
    parser.add_argument("--tasks", default="mmlu:3000,hellaswag:1000,bbh_direct:500", help="TASK:ITEMS,...")
    parser.add_argument("--shapes", default=SHAPES, type=shapes)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    sys.setswitchinterval(SWITCH_S)
    file = GGUFFile.open(args.gguf)
    tokenizer = Tokenizer.from_gguf(file)
    tasks: dict[str, list[Request]] = {}
    for name, _, items in (word.partition(":") for word in args.tasks.split(",")):
        docs = get_task(name).load(LoadOptions(args.data, int(items) if items else None)).docs
        tasks[name] = [question.request for question in encode_docs(docs, tokenizer)]
    device = present_device()
    gpu, split = device.cuda, split_of(file, device)
    found: dict[tuple[str, Shape], list[Measured]] = {}
    with llama.Model(args.gguf, split=split) as model:
        for _ in range(args.rounds):
            for name, requests in tasks.items():
                for shape in args.shapes:
                    before = time.perf_counter()
                    measured = measure(model, requests, shape, gpu=gpu, threads=cpu_threads())
                    found.setdefault((name, shape), []).append(measured)
                    print(name, shape, measured, f"{time.perf_counter() - before:.1f} s", flush=True)
    devices = ", ".join(f"{device.name} ({device.description})" for device in llama_library.devices())
    print(f"{platform.machine()}, {devices}; layers {split or 'on one device'}")
    print(f"llama-cpp-python {llama_library.version()}, orin-run {__version__}")
    print(
        "| task | contexts, n_batch, n_ubatch | tokens/s | of one | computed/unique | in llama_decode | alone | idle |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for (name, shape), runs in found.items():
        sizes = f"{shape[0]}, {shape[1]:,}, {shape[2]:,}"
        rate = statistics.median(run.rate for run in runs)
        one = statistics.median(run.rate for run in found[name, args.shapes[0]])
        last = runs[-1]
        shares = f"{last.ratio:.4f} | {last.submit:.1%} | {last.alone:.1%} | {last.idle:.2%}"
        print(f"| {name} | {sizes} | {rate:,.0f} | {rate / one:.3f} | {shares} |")


if __name__ == "__main__":
    main()
