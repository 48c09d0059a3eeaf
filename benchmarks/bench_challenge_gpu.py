"""The challenge's prompts with forced new tokens: this engine beside transformers at batch 1, on one GPU.

    python -m benchmarks.bench_challenge_gpu --gguf M.gguf --data test_dataset.jsonl [--checkpoint FOLDER]

Without a checkpoint transformers gets random weights of the same shape. Random weights follow no choice, so the two
halves of a greedy text are measured apart as well: prefill with verification of every choice (one new token), and
batched decode (the difference between all the new tokens and one, without drafts). Stop tokens are ignored: every text
has exactly --new-tokens tokens on every side. Prints one table.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

from benchmarks.random_gguf import hf_model
from benchmarks.sides import Side, Texts, interleaved, supervisor_of, this_engine, transformers_generate
from eval.encoding import encode_docs
from eval.tasks.base import LoadOptions
from eval.tasks.challenge import Challenge
from orin_runner import __version__
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import GenerateRequest
from orin_runner.runner import RunStats

OURS = "orin-run"
VERIFY = "... prefill and verification of every choice"
BARE = "orin-run without drafts"
FIRST = "... prefill to the first token"
THEIRS = "transformers generate, batch 1, bf16, sdpa"


def forced(gguf: Path, data: Path, limit: int | None, new_tokens: int) -> list[GenerateRequest]:
    """The questions of ``data`` as requests without stop tokens."""
    docs = Challenge().load(LoadOptions(data, limit)).docs
    requests = []
    for question in encode_docs(docs, Tokenizer.from_gguf(GGUFFile.open(gguf))):
        assert isinstance(question.request, GenerateRequest)
        requests.append(replace(question.request, stop=frozenset(), max_new_tokens=new_tokens))
    return requests


def _theirs(args: argparse.Namespace) -> Any:
    if args.checkpoint is None:
        return hf_model(args.device, small=args.small)
    options = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    return AutoModelForCausalLM.from_pretrained(args.checkpoint, **options).to(args.device).eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, help="the same weights (default: random ones of that shape)")
    parser.add_argument("--small", action="store_true", help="random weights of a hundredth of the width")
    parser.add_argument("--data", type=Path, required=True, help="JSON lines of the challenge")
    parser.add_argument("--device", default="cuda", help="of transformers; this engine takes the GPU it was built for")
    parser.add_argument("--new-tokens", type=int, default=8)
    parser.add_argument("--questions", type=int, default=None, help="this many, evenly spread (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    whole = forced(args.gguf, args.data, args.questions, args.new_tokens)
    bare = [replace(request, candidates=()) for request in whole]
    parts = {
        OURS: whole,
        VERIFY: [replace(request, max_new_tokens=1) for request in whole],
        BARE: bare,
        FIRST: [replace(request, max_new_tokens=1) for request in bare],
    }
    stats: dict[str, RunStats] = {}
    with supervisor_of(args.gguf, whole) as supervisor:

        def with_stats(name: str, run: Side) -> Side:
            def kept() -> Texts:
                texts = run()
                stats[name] = supervisor.stats
                return texts

            return kept

        sides = {name: with_stats(name, this_engine(supervisor, requests)) for name, requests in parts.items()}
        for run in sides.values():
            run()
        sides[THEIRS] = transformers_generate(_theirs(args), whole, args.device)
        seconds, texts = interleaved(sides, args.rounds)
        loaded = supervisor.loaded
    n = len(whole)
    devices = ", ".join(f"{device.name} ({device.description})" for device in loaded.devices)
    theirs = torch.cuda.get_device_name() if args.device.startswith("cuda") else args.device
    print(
        f"{platform.machine()}, {devices}, {loaded.gpu_layers}/{loaded.n_layers} layers on the GPU; llama-cpp-python "
        f"{llama_library.version()}, transformers {transformers.__version__}, torch {torch.__version__} on {theirs}, "
        f"orin-run {__version__}"
    )
    print(
        f"{n} prompts, {args.new_tokens} forced new tokens each; {stats[OURS].sent:,} tokens sent, "
        f"{stats[OURS].unique:,} unique with the choices, {stats[OURS].computed:,} computed"
    )
    rows = {
        OURS: seconds[OURS],
        VERIFY: seconds[VERIFY],
        BARE: seconds[BARE],
        FIRST: seconds[FIRST],
        "... batched decode of the other tokens": seconds[BARE] - seconds[FIRST],
        THEIRS: seconds[THEIRS],
    }
    print(f"| part | median s of {args.rounds} | s/item | times as long as {OURS} |")
    print("| --- | --- | --- | --- |")
    for name, took in rows.items():
        print(f"| {name} | {took:.3f} | {took / n:.4f} | {took / rows[OURS]:.2f} |")
    for name, of in stats.items():
        clocks = ", ".join(f"{clock} {took:.3f}" for clock, took in of.clocks.items())
        print(
            f"{name}, last round: {clocks} s; of decode {of.settle_s:.3f} s for {of.settled} near-ties computed alone; "
            f"noise {of.text_noise.largest:.2g}"
        )
    same = {name: sum(a == b for a, b in zip(texts[name], texts[THEIRS], strict=True)) for name in (OURS, BARE)}
    own = sum(a == b for a, b in zip(texts[OURS], texts[BARE], strict=True))
    print(
        f"texts equal to transformers' in bf16: {OURS} {same[OURS]}/{n}, {BARE} {same[BARE]}/{n}; "
        f"equal with and without drafts: {own}/{n}"
    )


if __name__ == "__main__":
    main()
