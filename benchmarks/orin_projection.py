"""What an Orin should take: counted tokens times what a token takes of the device's limits. Nothing is measured.

    python -m benchmarks.orin_projection --data FOLDER > docs/submission/projection.md

FOLDER holds the public data and the tokenizer of Phi-3-medium (ORIN_DATA). Tokens are counted as the engine would
compute them. The limits and the costs are ``orin_runner.machine.roofline``'s, as in ``orin-run plan``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.random_gguf import PHI3_MEDIUM, header
from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.sent_tokens import AskedTokens
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.machine.roofline import (
    ATTENTION_SHARE,
    KERNEL_SHARE,
    ORIN_BYTES,
    ORIN_MODES,
    PRODUCT_SHARE,
    WEIGHT_SHARE,
    Limits,
    TokenCost,
)
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import GenerateRequest, Request

MODES = ORIN_MODES["orin-32gb"]
H100 = Limits.of_tensor_cores("H100", 989e12, 3.35e12, "NVIDIA's data sheet, SXM")
PROMPT = 2048
"""Tokens of llama-bench's prompt, whose rate on an H100 is in benchmarks/RESULTS.md."""
PUBLISHED = 5.4
"""Tokens/s of one text: published for a 16-bit 14 B model on the 64GB module."""
PAGE = """\
# Projection for the Jetson AGX Orin 32GB

Nothing here was measured on an Orin. Tokens are counted (Phi-3-medium's tokenizer, the engine's own tree). The
device's limits are NVIDIA's. The shares of them that llama.cpp reaches are those of an H100. Made by
`benchmarks/orin_projection.py`; `orin-run plan TASK --device orin-32gb` projects any task the same way.

## What a token takes

{token}

The bytes of the other kernels (norms, the products' operands, RoPE and cache, SwiGLU, additions) are counted in
`orin_runner/machine/roofline.py`.

## What the device can do

{limits}

* Products: {products} of the tensor peak. cuBLAS sustained 693 of an H100's 989 TFLOP/s.
* Attention: {attention} of that peak, as in MMLU's packed batches on an H100, where more than half of what is computed
  is masked.
* Other kernels: {kernels} of {bandwidth:g} GB/s, as an H200's moved 60 GB in 25 ms of its 4.8 TB/s.
* Decode steps: {read_share} of it. Others published {published} tokens/s of one text on the 64GB module, which has the
  same memory: x {weights:.1f} GB = {read:.0f} GB/s.
* Both are the same in every mode here. Should a mode lower the memory's clock, they take longer.
* A decode step at the whole bandwidth takes {step_ms:.0f} ms: one text at a time gets at most {rate:.1f} tokens/s.

## A prompt of 2,048 tokens

{prompt}

* On an H100 llama-bench measured 15,238 tokens/s.
* On an H200 the kernels of one decode of that size, one after the other, took 0.070 s for products, 0.015 s for
  attention, 0.025 s for all others (in ms: SwiGLU 7, RoPE 5, additions 4, conversions 4, norms 3, scaling 2).
* Figures published by others for 16-bit 14 B models on the 64GB module, scaled to this one's clocks in MAXN, come to
  320 to 390 tokens/s.

## Data sets

{counts}

Seconds are unique tokens times what a token takes. Loading the model is not counted.

{tasks}

Texts come on top. All of a batch take their decode steps together: one or two where each is one of its choices, which
is verified in one step, else as many as the longest of them has tokens.

{alone}
"""


def shape_of(tokenizer: Path) -> GGUFFile:
    """The header of Phi-3-medium's GGUF."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "phi3-medium.gguf"
        header(tokenizer, path, "BF16", PHI3_MEDIUM)
        return GGUFFile.open(path)


def parts_s(cost: TokenCost, limits: Limits, tokens: int, context: float) -> tuple[float, float, float]:
    """Seconds of products, attention and other kernels of ``tokens`` with ``context`` before each, on average."""
    products, kernels = cost.products / limits.products, cost.kernels / limits.kernels
    return tokens * products, tokens * (cost.token_s(limits, context) - products - kernels), tokens * kernels


def token_table(cost: TokenCost, file: GGUFFile) -> str:
    """What a token takes, with its arithmetic."""
    sizes = file.sizes
    heads, size, layers = sizes.head_count, sizes.head_size, sizes.block_count
    e, f, q, k = sizes.embedding_length, sizes.feed_forward_length, heads * size, (sizes.head_count_kv or heads) * size
    of_layer = f"52 x {e:,} + 22 x {q:,} + 20 x {k:,} + 18 x {f:,}"
    attention = f"{cost.attention / 1e6:.2f} MFLOP for each token before it"
    return _table(
        ("part", "takes", "arithmetic"),
        (
            ("matrix products", f"{cost.products / 1e9:.1f} GFLOP", f"2 x {cost.products / 2:,.0f} values"),
            ("attention", attention, f"4 x {heads} heads x {size} x {layers} layers"),
            ("other kernels", f"{cost.kernels / 1e6:.1f} MB read and written", f"{layers} layers x ({of_layer}) bytes"),
            ("a decode step, whatever its batch", f"{cost.weights / 1e9:.1f} GB read", "all weights"),
        ),
    )


def limits_table(cost: TokenCost) -> str:
    """What the power modes can do."""
    return _table(
        ("mode", "tensor peak", "products", "attention", "other kernels", "a decode step"),
        (
            (
                mode.name,
                mode.basis.rpartition(",")[0],
                f"{mode.products / 1e12:.1f} TFLOP/s",
                f"{mode.attention / 1e12:.2f} TFLOP/s",
                f"{mode.kernels / 1e9:.0f} GB/s",
                f"{cost.step_s(mode) * 1000:.0f} ms",
            )
            for mode in MODES
        ),
    )


def prompt_table(cost: TokenCost) -> str:
    """A prompt of ``PROMPT`` tokens in each mode, and on the GPU whose shares are taken."""
    found = {limits.name: parts_s(cost, limits, PROMPT, (PROMPT - 1) / 2) for limits in (*MODES, H100)}
    return _table(
        ("on", "products, s", "attention, s", "other kernels, s", "in all, s", "tokens/s"),
        (
            (name, *(f"{part:.3f}" for part in (*parts, sum(parts))), f"{PROMPT / sum(parts):,.0f}")
            for name, parts in found.items()
        ),
    )


def tasks_table(cost: TokenCost, counts: Mapping[str, AskedTokens]) -> str:
    """Each data set in each mode."""
    found = [
        (title, mode.name, asked.requests, parts_s(cost, mode, asked.unique, asked.context))
        for title, asked in counts.items()
        for mode in MODES
    ]
    return _table(
        ("prompts", "mode", "products, s", "attention, s", "other kernels, s", "in all, s", "s an item"),
        (
            (title, mode, *map(_seconds, (*parts, sum(parts))), f"{sum(parts) / items:.3f}")
            for title, mode, items, parts in found
        ),
    )


def one_at_a_time(cost: TokenCost, requests: Sequence[Request]) -> str:
    """Questions as the organisers' script asks them, in the fastest mode."""
    mode = MODES[0]
    texts = [request for request in requests if isinstance(request, GenerateRequest)]
    n = float(np.mean([len(candidate) for text in texts for candidate in text.candidates]))
    lengths = [len(text.prompt) for text in texts]
    prefill = sum(length * cost.token_s(mode, (length - 1) / 2) for length in lengths)
    step = cost.step_s(mode)
    decode = len(texts) * n * step
    alone = prefill + decode
    return (
        f"One item at a time in {mode.name}, for comparison: {sum(lengths):,} tokens of prompts take {prefill:.1f} s, "
        f"{len(texts)} texts x\n{n:.1f} tokens (the choices' average) x {step:.3f} s are {decode:.1f} s: "
        f"{alone:.1f} s, {alone / len(texts):.2f} s an item."
    )


def page(file: GGUFFile, requests: Mapping[str, Sequence[Request]]) -> str:
    """projection.md.

    Args:
        file: the model's header.
        requests: of each data set, by its title; the challenge's first.
    """
    cost = TokenCost.of(file)
    counts = {title: AskedTokens.of(asked) for title, asked in requests.items()}
    step = cost.weights / ORIN_BYTES
    return PAGE.format(
        token=token_table(cost, file),
        limits=limits_table(cost),
        products=_percent(PRODUCT_SHARE),
        attention=_percent(ATTENTION_SHARE),
        kernels=_percent(KERNEL_SHARE),
        read_share=_percent(WEIGHT_SHARE),
        bandwidth=ORIN_BYTES / 1e9,
        step_ms=step * 1000,
        rate=1 / step,
        published=PUBLISHED,
        weights=cost.weights / 1e9,
        read=PUBLISHED * cost.weights / 1e9,
        prompt=prompt_table(cost),
        counts=_table(
            ("prompts", "items", "tokens sent", "unique", "tokens before each, on average"),
            (
                (title, *(f"{n:,}" for n in (asked.requests, asked.sent, asked.unique)), f"{asked.context:,.0f}")
                for title, asked in counts.items()
            ),
        ),
        tasks=tasks_table(cost, counts),
        alone=one_at_a_time(cost, next(iter(requests.values()))),
    )


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (heading, ["---"] * len(heading), *rows))


def _seconds(number: float) -> str:
    return f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def _percent(share: float) -> str:
    return f"{share * 100:g} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"))
    args = parser.parse_args()
    tokenizer = args.data / "tokenizers" / "phi-3-medium"
    encoder = HFEncoder(tokenizer, frozenset())
    public = args.data / "cechallenge2024" / "test_dataset.jsonl"
    requests = {
        title: [question.request for question in encode_docs(get_task(name).load(LoadOptions(data)).docs, encoder)]
        for title, name, data in (("30 public questions", "challenge", public), ("MMLU, 5-shot", "mmlu", args.data))
    }
    print(page(shape_of(tokenizer), requests), end="")


if __name__ == "__main__":
    main()
