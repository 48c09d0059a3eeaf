"""``make bench-challenge``: greedy texts in the challenge's form on a CPU, four sides in one run.

    python -m benchmarks.bench_challenge [--items N] [--rounds N] [--new-tokens N] [--data FOLDER]

On the exam's text items with the tiny model, and on the challenge's public questions (from ORIN_DATA or --data) with a
random model of some 100 million parameters: this engine; this engine without drafts; llama.cpp in a plain loop, one
prompt and then one token at a time; and transformers' pipeline as the organisers call it (batch 1, max_new_tokens 500,
in the faster of float32 and bfloat16). A random model does not stop, so there every side makes the same few tokens.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import transformers

from benchmarks.bench import TINY, make_model
from benchmarks.sides import Side, interleaved, plain_loop, supervisor_of, this_engine, transformers_pipeline
from eval.encoding import encode_docs
from eval.tasks.base import LoadOptions, spread
from eval.tasks.challenge import Challenge
from eval.tasks.doc import Doc
from eval.tasks.exam import Exam
from orin_runner import __version__
from orin_runner.machine.devices import cpu_threads
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import GenerateRequest, context_tokens

OURS, BARE, LOOP = "orin-run", "orin-run without drafts", "llama.cpp, a plain loop at batch 1"


def compare(title: str, checkpoint: Path, docs: Sequence[Doc], rounds: int) -> None:
    """Run all sides on ``docs`` and print their table. A random model's texts have ``docs``' own bound."""
    threads = cpu_threads()
    with tempfile.TemporaryDirectory() as folder:
        gguf = Path(folder) / "model.gguf"
        subprocess.run([sys.executable, "-m", "convert", checkpoint, gguf], check=True, capture_output=True)
        tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
        requests = [q.request for q in encode_docs(docs, tokenizer) if isinstance(q.request, GenerateRequest)]
        cells = -(-max(map(context_tokens, requests)) // 256) * 256
        one = ContextSettings(n_cells=cells, n_batch=cells, n_ubatch=512, n_outputs=1, n_seq=1, n_threads=threads)
        with (
            supervisor_of(gguf, requests) as ours,
            supervisor_of(gguf, requests, draft=False) as bare,
            Model(gguf) as model,
            Context(model, one) as context,
        ):
            sides: dict[str, Side] = {
                OURS: this_engine(ours, requests),
                BARE: this_engine(bare, requests),
                LOOP: plain_loop(context, requests),
            }
            name, sides[name] = transformers_pipeline(checkpoint, docs)
            seconds, texts = interleaved(sides, rounds)
            stats = ours.stats
    n = len(requests)
    print(
        f"\n{title}: {n} items, {sum(map(len, texts[LOOP])) / n:.1f} new tokens an item; "
        f"{sum(len(request.prompt) for request in requests):,} prompt tokens sent, "
        f"{stats.unique:,} unique with the choices, {stats.computed:,} computed"
    )
    print(f"| side | median s of {rounds} | items/s | times as long | same texts |")
    print("| --- | --- | --- | --- | --- |")
    shown = {
        side: [text if isinstance(text, str) else tokenizer.decode(np.array(text, dtype=np.int32)) for text in found]
        for side, found in texts.items()
    }
    for side, took in seconds.items():
        same = sum(a == b for a, b in zip(shown[side], shown[OURS], strict=True))
        print(f"| {side} | {took:.1f} | {n / took:.2f} | {took / seconds[OURS]:.2f} | {same}/{n} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=120, help="exam items, evenly spread over its texts")
    parser.add_argument("--new-tokens", type=int, default=8, help="of each text of the random model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"), help="folder with cechallenge2024/")
    args = parser.parse_args()
    torch.set_num_threads(cpu_threads())
    print(
        f"{platform.machine()}, {llama_library.devices()[-1].description}, {cpu_threads()} threads, llama-cpp-python "
        f"{llama_library.version()}, torch {torch.__version__}, transformers {transformers.__version__}, "
        f"orin-run {__version__}"
    )
    texts = [doc for doc in Exam().load(LoadOptions()).docs if doc.mode == "generate"]
    compare("exam, tiny trained model", TINY, spread(texts, args.items), args.rounds)
    if args.data is None:
        print("the public questions are left out: neither ORIN_DATA nor --data names their folder")
        return
    public = Challenge().load(LoadOptions(Path(args.data) / "cechallenge2024" / "test_dataset.jsonl")).docs
    public = [replace(doc, max_new_tokens=args.new_tokens) for doc in public]
    with tempfile.TemporaryDirectory() as folder:
        compare("public questions, random model of 97 M parameters", make_model(Path(folder)), public, args.rounds)


if __name__ == "__main__":
    main()
