"""``make bench-gpu``: a random model of Phi-3-medium's shape on one GPU; this engine, transformers, llama.cpp's tools.

    python -m benchmarks.bench_gpu --data DIR --tokenizer DIR --tools DIR [--work DIR] [--parts matmul,letters,...]

Each part runs in a process of its own under a time limit, prints what it finds at once and appends it to a file of
results in the work folder; a part that fails or is cut short says so and the others go on. ``--rounds 3`` runs them
three times over, interleaved, and prints medians. ``--small`` rehearses everything on a CPU with a model a hundredth of
the width. The parts:

    model       random weights into a GGUF (BF16; ``--type F16`` for the other)
    matmul      the device's matrix-product rate, burst and sustained for 5 s
    bench       llama-bench's prompt rate at several ubatch sizes: the ceiling; sustained: the best one for 5 s
    selftest    the tree against single sequences on this device
    letters     orin-run eval mmlu, all questions
    hellaswag   orin-run eval hellaswag, the same 1,000 items as perplexity; hellaswag-all: all of them
    bbh         orin-run eval bbh, 3-shot, one new token: the prefill of every prompt
    hf          transformers on MMLU prompts, best of several batch sizes
    perplexity  llama-perplexity --hellaswag, at its defaults and tuned
    memory      what contexts of several sizes take beside llama.cpp's own buffers
    budgets     MMLU in little memory (every run's peak is compared with its plan)
    ballast     29,000 MiB free: BBH and the challenge's longest item to the end; ballast-mmlu: all of MMLU
    challenge   bench_challenge_gpu.py on the 30 public prompts, 8 forced new tokens
    stolen      a second process takes the free memory in mid-run
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_runs import MIB, Bench, holding, used_mib

LIMITS = {
    "challenge": 130,
    "letters": 220,
    "hellaswag": 240,
    "bbh": 120,
    "hf": 150,
    "ballast": 150,
    "ballast-mmlu": 200,
    "budgets": 150,
}
"""Seconds; 90 for the others."""
HELLASWAG_TASKS = 1000
"""Of ours; llama-perplexity takes every second of them tuned, and every fifth at its defaults."""
ORDER = [
    *("model", "matmul", "bench", "sustained", "selftest", "letters", "hf", "hellaswag", "hellaswag-all"),
    *("perplexity", "memory", "bbh", "challenge", "budgets", "ballast", "ballast-mmlu", "stolen"),
]


def model(bench: Bench) -> None:
    from benchmarks import random_gguf

    if not bench.model.exists():
        before = time.perf_counter()
        small = ["--small", "--layers", "2"] if bench.args.small else []
        words = ["header", str(bench.args.tokenizer), str(bench.model), "--type", bench.args.type, *small]
        subprocess.run([sys.executable, "-m", "benchmarks.random_gguf", *words], check=True)
        random_gguf.fill(bench.model)
        bench.record(model={"gib": bench.model.stat().st_size / 2**30, "seconds": time.perf_counter() - before})


def matmul(bench: Bench) -> None:
    import torch

    small = bench.args.small
    device, (m, k, n) = ("cpu", (64, 256, 512)) if small else ("cuda", (2048, 5120, 35840))
    sync: Callable[[], None] = (lambda: None) if small else torch.cuda.synchronize
    a = torch.randn(m, k, device=device, dtype=torch.bfloat16)
    weights = [torch.randn(k, n, device=device, dtype=torch.bfloat16) for _ in range(6)]

    def rate(seconds: float, at_least: int) -> float:
        sync()
        before, done = time.perf_counter(), 0
        while done < at_least or time.perf_counter() - before < seconds:
            for _ in range(20):
                torch.matmul(a, weights[done % 6])
                done += 1
            sync()
        return 2 * m * k * n * done / (time.perf_counter() - before) / 1e12

    rate(0, 20)
    burst = rate(0, 20)
    bench.record(matmul={"burst_tflops": round(burst, 1), "sustained_tflops": round(rate(6, 20), 1)})


def bench_prompt(bench: Bench) -> None:
    rates = _llama_bench(bench, "512,1024,2048", 5)
    if rates:
        bench.record(llama_bench={"tokens_per_s": rates, "best": max(rates.values())})


def bench_sustained(bench: Bench) -> None:
    rates = _llama_bench(bench, "1024", 40)
    bench.record(llama_bench_sustained={"tokens_per_s": max(rates.values())} if rates else {})


def _llama_bench(bench: Bench, ubatches: str, rounds: int) -> dict[str, float]:
    """Prompt tokens per second at each ubatch size, by llama-bench."""
    ubatches = "64" if bench.args.small else ubatches
    n = "128" if bench.args.small else "2048"
    command = [str(bench.args.tools / "llama-bench"), "-m", str(bench.model), "-ngl", "99", "-fa", "on", "-p", n]
    command += ["-b", n, "-ub", ubatches, "-n", "0", "-r", str(rounds), "-o", "json", "-lm", "none"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-1500:])
        return {}
    return {str(row["n_ubatch"]): round(row["avg_ts"], 1) for row in json.loads(done.stdout)}


def selftest(bench: Bench) -> None:
    code, _, _ = bench.orin("selftest", "--requests", "18", "--json")
    bench.record(selftest={"exit": code})


def letters(bench: Bench) -> None:
    bench.evaluate("mmlu", "mmlu", *(["--limit", "60"] if bench.args.small else []))


def hellaswag(bench: Bench) -> None:
    limit = "20" if bench.args.small else str(HELLASWAG_TASKS)
    bench.evaluate("hellaswag_1000", "hellaswag", "--limit", limit)


def hellaswag_all(bench: Bench) -> None:
    bench.evaluate("hellaswag", "hellaswag")


def bbh(bench: Bench) -> None:
    limit = ["--limit", "27"] if bench.args.small else []
    bench.evaluate("bbh", "bbh", "--max-new-tokens", "1", *limit)


def _prompts(bench: Bench, task: str, limit: int) -> list[np.ndarray]:
    """Token ids of ``limit`` prompts of a task, evenly drawn."""
    from eval.encoding import encode_docs
    from eval.tasks.base import LoadOptions
    from eval.tasks.registry import get_task
    from orin_runner.model.gguf_file import GGUFFile
    from orin_runner.model.tokenizer import Tokenizer

    docs = get_task(task).load(LoadOptions(bench.args.data, limit)).docs
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(bench.model))
    return [question.request.prompt for question in encode_docs(docs, tokenizer)]


def hf(bench: Bench) -> None:
    import torch
    import transformers

    from benchmarks.random_gguf import hf_model
    from benchmarks.sides import last_logits

    small = bench.args.small
    device = "cpu" if small else "cuda"
    llm = hf_model(device, small=small)
    prompts = sorted(_prompts(bench, "mmlu", 20 if small else 512), key=len)

    def run(part: list[np.ndarray], size: int) -> float:
        before = time.perf_counter()
        last_logits(llm, part, size, device)
        return time.perf_counter() - before

    run(prompts[: len(prompts) // 8], 8)
    trial = prompts[:: max(1, len(prompts) // 64)]
    rates = {size: len(trial) / run(trial, size) for size in ((2, 4) if small else (4, 8, 16, 32))}
    best = max(rates, key=lambda size: rates[size])
    seconds = run(prompts, best)
    tokens = sum(len(row) for row in prompts)
    bench.record(
        transformers={
            "version": transformers.__version__,
            "torch": torch.__version__,
            "prompts": len(prompts),
            "trial_items_per_s": {str(k): round(v, 2) for k, v in rates.items()},
            "batch": best,
            "items_per_s": round(len(prompts) / seconds, 2),
            "tokens_per_s": round(tokens / seconds, 1),
        }
    )


def perplexity(bench: Bench) -> None:
    import gzip

    source = bench.args.data / "hellaswag" / "hellaswag_val.jsonl.gz"
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    limit = 20 if bench.args.small else HELLASWAG_TASKS
    rows = [rows[(i * len(rows)) // limit] for i in range(limit)]
    for name, n, extra in (
        ("defaults", limit // 5, []),
        ("tuned", limit // 2, "-np 128 -c 64 -b 2048 -ub 1024 --kv-unified".split()),
    ):
        text = bench.work / f"hellaswag-{name}.txt"
        with text.open("w", encoding="utf-8") as file:
            for row in rows[:: len(rows) // n]:
                fields = [f"{row['activity_label']}: {row['ctx']}", str(row["label"]), *row["endings"]]
                file.write("".join(field.replace("\n", " ") + "\n" for field in fields))
        command = [str(bench.args.tools / "llama-perplexity"), "-m", str(bench.model), "-ngl", "99", "-fa", "on"]
        command += ["-f", str(text), "--hellaswag", "--hellaswag-tasks", str(n), "--load-mode", "none", *extra]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        began = ended = 0.0
        done = 0
        tail: list[str] = []
        assert child.stdout is not None
        for line in child.stdout:
            tail = [*tail[-8:], line]
            if "calculating hellaswag" in line:
                began = time.perf_counter()
            found = re.match(r"(\d+)\t\s*[\d.]+%", line)
            if found:
                done, ended = int(found[1]), time.perf_counter()
        child.wait()
        if not done or not began:
            print("".join(tail))
            continue
        bench.record(**{f"perplexity_{name}": {"tasks": done, "tasks_per_s": round(done / (ended - began), 2)}})


def memory(bench: Bench) -> None:
    from orin_runner.batching.batch import BatchBuilder
    from orin_runner.engine.executor import Executor
    from orin_runner.model import llama, llama_library

    def used() -> float:
        gpu = [device for device in llama_library.devices() if device.is_gpu]
        return (gpu[0].total - gpu[0].free) / MIB if gpu else 0.0

    rng = np.random.default_rng(1)
    before = 0 if bench.args.small else used_mib()
    with llama.Model(bench.model) as loaded:
        rows: dict[str, Any] = {"before": before, "loaded": round(used())}
        settings = [(256, 512, 256), (512, 1024, 256), (512, 2048, 1300), (1024, 2048, 256), (1024, 2048, 1300)]
        for n_ubatch, n_batch, n_outputs in settings:
            shape = llama.ContextSettings(
                n_cells=6144, n_batch=n_batch, n_ubatch=n_ubatch, n_outputs=n_outputs, n_threads=8
            )
            with llama.Context(loaded, shape) as context:
                created = used()
                executor = Executor(context)
                for _ in range(2):
                    builder = BatchBuilder()
                    per = n_batch // 8
                    for seq in range(8):
                        builder.add(rng.integers(10, 30000, per).astype(np.int32), 0, seq)
                    builder.flag(np.arange(n_outputs)[:n_batch])
                    batch = builder.build()
                    context.clear()
                    executor.prepare(batch)
                    executor.submit(batch)
                    executor.rows(batch.n_outputs)
                context.clear()
                list(executor.canonical_rows([rng.integers(10, 30000, 3000).astype(np.int32)]))
                buffers = context.buffers
                name = f"ub{n_ubatch} nb{n_batch} out{n_outputs}"
                extra = used() - before - _weights(bench) - buffers["KV"] - _device_compute()
                rows[name] = {
                    "created": round(created),
                    "used": round(used()),
                    "kv": buffers["KV"],
                    "compute": _device_compute(),
                    "beside": round(extra, 1),
                }
    bench.record(memory=rows | {"weights": _weights(bench)})


def _weights(bench: Bench) -> float:
    from orin_runner.model.gguf_file import GGUFFile

    file = GGUFFile.open(bench.model)
    return round((file.data_bytes - file.embedding_bytes) / MIB, 1)


def _device_compute() -> float:
    """MiB of compute buffers on GPUs, from llama.cpp's log."""
    from orin_runner.model.llama_log import LOG

    found = LOG.find(r"(\S+)\s+compute buffer size =\s*([\d.]+) MiB")
    return sum(float(m[2]) for m in found if m[1].startswith("CUDA") and "Host" not in m[1])


def budgets(bench: Bench) -> None:
    bench.evaluate("tight", "mmlu", "--limit", "300", device="28200MiB")


def ballast(bench: Bench) -> None:
    with holding(29000):
        longest = bench.args.data / "cechallenge2024" / "sample_longest_data.jsonl"
        bench.evaluate("ballast_longest", "challenge", "--max-new-tokens", "8", data=longest)
        bench.evaluate("ballast_bbh", "bbh", "--max-new-tokens", "1")


def ballast_mmlu(bench: Bench) -> None:
    with holding(29000):
        bench.evaluate("ballast_mmlu", "mmlu")


def challenge(bench: Bench) -> None:
    data = str(bench.args.data / "cechallenge2024" / "test_dataset.jsonl")
    small = ["--device", "cpu", "--small"] if bench.args.small else []
    subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_challenge_gpu", "--gguf", str(bench.model), "--data", data, *small],
        check=True,
    )


def stolen(bench: Bench) -> None:
    # It strikes when the cache is allocated, before cuBLAS and the pool have taken what they need.
    code = f"""
import torch, time
torch.zeros(1, device="cuda")
while torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0] < {bench.model.stat().st_size} + (1 << 30):
    time.sleep(0.01)
held = torch.empty(torch.cuda.mem_get_info()[0] - (300 << 20), dtype=torch.uint8, device="cuda")
print("  taken:", held.numel() >> 20, "MiB", flush=True)
time.sleep(100)
"""
    thief = subprocess.Popen([sys.executable, "-c", code])
    try:
        bench.evaluate("stolen", "mmlu", "--limit", "1000")
    finally:
        thief.kill()
        thief.wait()


PARTS: dict[str, Callable[[Bench], None]] = {
    "model": model,
    "matmul": matmul,
    "bench": bench_prompt,
    "selftest": selftest,
    "letters": letters,
    "hf": hf,
    "hellaswag": hellaswag,
    "hellaswag-all": hellaswag_all,
    "perplexity": perplexity,
    "memory": memory,
    "bbh": bbh,
    "budgets": budgets,
    "challenge": challenge,
    "ballast": ballast,
    "ballast-mmlu": ballast_mmlu,
    "sustained": bench_sustained,
    "stolen": stolen,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="folder with the published data files")
    parser.add_argument("--tokenizer", type=Path, help="Phi-3-medium's tokenizer files")
    parser.add_argument("--tools", type=Path, help="folder with llama-bench and llama-perplexity")
    parser.add_argument("--work", type=Path, default=Path("/dev/shm/orin-bench"))  # noqa: S108 - 26 GiB, read often
    parser.add_argument("--type", default="BF16", choices=["BF16", "F16"])
    parser.add_argument("--parts", default=",".join(ORDER))
    parser.add_argument("--rounds", type=int, default=1, help="of all parts, one after another; medians at the end")
    parser.add_argument("--small", action="store_true", help="rehearse on a CPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--started", default=time.strftime("%Y%m%d-%H%M%S"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    bench = Bench(args)
    if args.part:
        PARTS[args.part](bench)
        return
    for part in args.parts.split(",") * args.rounds:
        before = time.perf_counter()
        print(f"== {part}", flush=True)
        words = [*sys.argv[1:], "--part", part, "--started", args.started]
        child = subprocess.Popen([sys.executable, "-m", "benchmarks.bench_gpu", *words], start_new_session=True)
        try:
            code = child.wait(timeout=LIMITS.get(part, 90))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)  # with the worker, which holds the GPU
            code = 124
        print(f"   {part}: exit {code}, {time.perf_counter() - before:.1f} s", flush=True)
    bench.print_medians()
    print(f"results: {bench.results}, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
