"""``make bench``: this engine, llama.cpp one prompt at a time, and transformers, on the same items in one run.

    python -m benchmarks.bench [--subjects N] [--questions N] [--rounds N] [--mmlu N] [--data DIR] [--no-loop]

A random Phi-3 of some 100 million parameters is made on the spot and converted. The items are shaped like 5-shot MMLU:
subjects with a long shared prefix of random tokens, questions of some 60 tokens, four letters to score. With --mmlu
they are N questions of MMLU itself, 5-shot, evenly spread over its subjects, from --data or ORIN_DATA. Every round
runs all three sides one after the other; the table gives medians over the rounds. transformers runs in the better of
float32 and bfloat16 at the best of several batch sizes, which trial runs on some twelve of the items find.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import GenerationConfig, Phi3Config, Phi3ForCausalLM

from benchmarks.asked import requests_of
from benchmarks.sides import last_logits
from orin_runner import __version__
from orin_runner.engine.executor import Executor
from orin_runner.machine.devices import cpu_threads
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.requests import Scored, ScoreRequest
from orin_runner.workers.messages import Job
from orin_runner.workers.supervisor import Supervisor

TINY = Path(__file__).parent.parent / "tests" / "tiny_phi3" / "checkpoint"
BATCH_SIZES = (1, 4, 12)
LETTERS = 4
LOOP = "llama.cpp, one prompt at a time"


def make_model(folder: Path) -> Path:
    """A random Phi-3 of about 100 million parameters in bfloat16, with the tiny model's tokenizer."""
    config = Phi3Config(
        vocab_size=3072,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=8,
        num_attention_heads=16,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        original_max_position_embeddings=4096,
        sliding_window=2047,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=3000,
        pad_token_id=3000,
    )
    torch.manual_seed(1)
    model = Phi3ForCausalLM(config).to(torch.bfloat16)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[3000], pad_token_id=3000)
    model.save_pretrained(folder)
    for path in TINY.glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def make_items(subjects: int, questions: int) -> list[ScoreRequest]:
    rng = np.random.default_rng(1)
    letters = tuple(np.array([token], dtype=np.int32) for token in rng.integers(300, 2900, LETTERS))
    items = []
    for _ in range(subjects):
        worked = rng.integers(300, 2900, int(rng.integers(350, 650))).astype(np.int32)
        for _ in range(questions):
            question = rng.integers(300, 2900, int(rng.integers(30, 90))).astype(np.int32)
            items.append(ScoreRequest(np.concatenate([worked, question]), letters))
    return items


def mmlu_items(n: int, data: Path | None, model: Path) -> list[ScoreRequest]:
    return [
        request for request in requests_of("mmlu", GGUFFile.open(model), data, n) if isinstance(request, ScoreRequest)
    ]


def this_engine(model: Path, items: list[ScoreRequest]) -> tuple[Callable[[], list[int]], Supervisor]:
    supervisor = Supervisor(Job.of(GGUFFile.open(model), items), print)
    supervisor.start()

    def run() -> list[int]:
        answers = [0] * len(items)
        for i, result in supervisor.run(items):
            assert isinstance(result, Scored)
            answers[i] = int(np.argmax([logprobs[0] for logprobs in result.logprobs]))
        return answers

    return run, supervisor


def one_at_a_time(context: Context, items: list[ScoreRequest]) -> Callable[[], list[int]]:
    executor = Executor(context, 2048)

    def run() -> list[int]:
        rows = [row for item in items for row in executor.canonical_rows([item.prompt])]
        return [int(np.argmax([row[c[0]] for c in item.continuations])) for row, item in zip(rows, items, strict=True)]

    return run


def in_transformers(source: Path, dtype: torch.dtype, items: list[ScoreRequest], size: int) -> Callable[[], list[int]]:
    model = Phi3ForCausalLM.from_pretrained(source, dtype=dtype).eval()

    def run() -> list[int]:
        rows = last_logits(model, [item.prompt for item in items], size)
        return [int(np.argmax([float(row[c[0]]) for c in i.continuations])) for row, i in zip(rows, items, strict=True)]

    return run


def timed(run: Callable[[], list[int]]) -> tuple[float, list[int]]:
    before = time.perf_counter()
    answers = run()
    return time.perf_counter() - before, answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--subjects", type=int, default=2)
    parser.add_argument("--questions", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mmlu", type=int, metavar="N", help="questions of MMLU instead")
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"), help="folder with mmlu/")
    parser.add_argument("--no-loop", action="store_true", help="leave llama.cpp one prompt at a time out")
    args = parser.parse_args()
    threads = cpu_threads()
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        source = make_model(Path(folder) / "hf")
        gguf = Path(folder) / "model.gguf"
        subprocess.run([sys.executable, "-m", "convert", str(source), str(gguf)], check=True, capture_output=True)
        items = mmlu_items(args.mmlu, args.data, gguf) if args.mmlu else make_items(args.subjects, args.questions)
        best: dict[str, tuple[float, int]] = {}
        dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
        for name, dtype in dtypes.items():
            for size in BATCH_SIZES:
                tried, _ = timed(in_transformers(source, dtype, items[:: max(1, len(items) // 12)], size))
                best[name] = min(best.get(name, (float("inf"), 0)), (tried, size))
        name = min(best, key=lambda key: best[key][0])
        cells = max(2048, -(-max(len(item.prompt) for item in items) // 256) * 256)
        settings = ContextSettings(n_cells=cells, n_batch=2048, n_ubatch=512, n_outputs=256, n_threads=threads)
        engine, supervisor = this_engine(gguf, items)
        with supervisor, Model(gguf) as model, Context(model, settings) as context:
            sides = {
                "orin-run": engine,
                LOOP: one_at_a_time(context, items),
                f"transformers {name}, batch {best[name][1]}": in_transformers(
                    source, dtypes[name], items, best[name][1]
                ),
            }
            if args.no_loop:
                del sides[LOOP]
            seconds: dict[str, list[float]] = {side: [] for side in sides}
            answers: dict[str, list[int]] = {}
            for _ in range(args.rounds):
                for side, run in sides.items():
                    took, answers[side] = timed(run)
                    seconds[side].append(took)
            stats = supervisor.stats
        first = next(iter(sides))
        medians = {side: statistics.median(took) for side, took in seconds.items()}
        print(
            f"{platform.machine()}, {threads} threads, llama-cpp-python {llama_library.version()}, "
            f"torch {torch.__version__}, "
            f"transformers {transformers.__version__}, orin-run {__version__}; model "
            f"{sum(size for _, size in GGUFFile.open(gguf).tensor_types.values()) / 2e6:.0f} M parameters"
        )
        print(f"{len(items)} items, {stats.sent:,} tokens sent, {stats.unique:,} unique, {stats.computed:,} computed")
        print(f"| side | median s of {args.rounds} | items/s | times as long | same letters |")
        print("| --- | --- | --- | --- | --- |")
        for side, median in medians.items():
            same = sum(a == b for a, b in zip(answers[side], answers[first], strict=True))
            print(
                f"| {side} | {median:.1f} | {len(items) / median:.2f} | {median / medians[first]:.2f} | "
                f"{same}/{len(items)} |"
            )


if __name__ == "__main__":
    main()
