"""What an Orin should take: measured token counts times the roofline. A projection, not a measurement.

    python -m benchmarks.orin_projection --data FOLDER > docs/submission/projection.md

FOLDER holds the public data and the tokenizer of Phi-3-medium (ORIN_DATA). Tokens are counted as the engine would
compute them; nothing is run.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.batching.tree import TokenTree
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.requests import GenerateRequest, Request

PARAMETERS = 13_960_238_080
GFLOP = 2 * PARAMETERS / 1e9
"""Of one token: a multiplication and an addition with every weight; attention not counted."""
RATES = {"MAXN, tensor peak": 26.7, "30 W (default), tensor peak": 10.0}
"""Dense FP16 TFLOP/s: SMs x 1,024 x 2 x clock."""
PUBLISHED = (320, 390)
"""Tokens/s of prefill: published 16-bit figures of a 14 B model on the 64 GB module, scaled to this one's clocks."""
DECODE_S = 0.137
"""One decode step whatever its batch: 26,627 MiB of weights at 204.8 GB/s."""


def tokens_of(requests: Sequence[Request]) -> tuple[int, int]:
    """(prompt tokens sent, unique tokens with everything that is verified or scored)."""
    texts = [request for request in requests if isinstance(request, GenerateRequest)]
    verified = [np.concatenate([request.prompt, text]) for request in texts for text in request.candidates]
    sent = sum(len(request.prompt) for request in requests)
    prompts = [request.prompt for request in texts]
    return sent, TokenTree([*WantedTokens(requests).paths, *prompts, *verified]).n_unique


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"))
    args = parser.parse_args()
    encoder = HFEncoder(args.data / "tokenizers" / "phi-3-medium", frozenset())
    public = args.data / "cechallenge2024" / "test_dataset.jsonl"
    counts = {}
    answers = 0.0
    for title, name, data in (("30 public prompts", "challenge", public), ("MMLU, 5-shot", "mmlu", args.data)):
        requests = [question.request for question in encode_docs(get_task(name).load(LoadOptions(data)).docs, encoder)]
        counts[title] = (len(requests), *tokens_of(requests))
        if name == "challenge":
            texts = [r.candidates for r in requests if isinstance(r, GenerateRequest)]
            answers = float(np.mean([len(text) for candidates in texts for text in candidates]))
    rates = {mode: peak * 1000 / GFLOP for mode, peak in RATES.items()}
    lines = [
        "# Projection for the Jetson AGX Orin 32GB",
        "",
        "Nothing here was measured on an Orin. Token counts are measured (Phi-3-medium's tokenizer, the engine's own",
        "tree); the rates are the machine's limits or published figures. Made by `benchmarks/orin_projection.py`.",
        "",
        f"* A token takes 2 x {PARAMETERS:,} = {GFLOP:.1f} GFLOP.",
        *(
            f"* {mode}: {peak} TFLOP/s / {GFLOP:.1f} GFLOP = {rates[mode]:.0f} tokens/s."
            for mode, peak in RATES.items()
        ),
        f"* Published 16-bit prefill of a 14 B model, scaled down to it: {PUBLISHED[0]} to {PUBLISHED[1]} tokens/s.",
        f"* A decode step reads every weight: 26,627 MiB / 204.8 GB/s = {DECODE_S * 1000:.0f} ms, whatever its batch;",
        f"  one text at a time gets at most {1 / DECODE_S:.1f} tokens/s.",
        "",
        "Projected seconds = unique tokens / rate. Loading the model is not counted.",
        "",
        "| prompts | items | tokens sent | unique | rate | tokens/s | projected s | s/item |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rates |= {"published, scaled: low": PUBLISHED[0], "published, scaled: high": PUBLISHED[1]}
    for title, (items, sent, unique) in counts.items():
        for name, rate in rates.items():
            lines.append(
                f"| {title} | {items:,} | {sent:,} | {unique:,} | {name} | {rate:.0f} | {unique / rate:,.1f} | "
                f"{unique / rate / items:.3f} |"
            )
    items, sent, _ = counts["30 public prompts"]
    prefill, steps = sent / PUBLISHED[1], answers * items * DECODE_S
    lines += [
        "",
        "The public set's rows hold where every text is one of its choices. All texts that are not take their decode",
        f"steps together: {DECODE_S} s a step, as many steps as the longest of them has tokens left.",
        "",
        f"One item at a time, for comparison: {sent:,} tokens / {PUBLISHED[1]} tokens/s + {items} texts x",
        f"{answers:.1f} tokens (the choices' average) x {DECODE_S} s = {prefill:.1f} + {steps:.1f}",
        f"= {prefill + steps:.1f} s, {(prefill + steps) / items:.2f} s an item.",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
