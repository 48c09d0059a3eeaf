"""Log-probabilities of real llama.cpp against transformers in float32, on random models with sharp logits.

Prompts of 8 to 3,500 tokens, all prefixes of one text, so that they also share one path of the tree.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.requests import Scored
from tests.support.checkpoints import llama, phi3
from tests.support.runs import run_gguf, whole_rows

WINDOW = 512
WITHIN = (8, 100, 512)
BEYOND = (513, 900, 3500)
TOKENS = np.random.default_rng(4).integers(259, 3000, 3500).tolist()
VOCABULARY = range(0, 3072, 8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A 4-layer Phi-3 whose weights float16 holds exactly, its logits spread over some 30 nats."""
    directory = tmp_path_factory.mktemp("sharp") / "m"
    return phi3(directory, tiny, window=WINDOW, layers=4, hidden=256, exact_in_f16=True, sharpness=2.5)


def transformers_rows(checkpoint: Path, at: tuple[int, ...], dtype: torch.dtype = torch.float32) -> np.ndarray:
    """Log-probabilities of ``VOCABULARY`` after the prefixes, ``[len(at), len(VOCABULARY)]``."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
    with torch.no_grad():
        logits = model(torch.tensor([TOKENS[: max(at)]])).logits[0].double()
    rows = torch.log_softmax(logits, dim=-1)[[n - 1 for n in at]]
    return rows[:, list(VOCABULARY)].numpy()


def gguf_rows(
    checkpoint: Path, at: tuple[int, ...], tmp_path: Path, options: Options, *, exact: bool = False
) -> np.ndarray:
    """The same from a conversion with ``options``."""
    out = tmp_path / f"{options.outtype}-{options.window}.gguf"
    convert(Checkpoint.open(checkpoint), out, options)
    results, _ = run_gguf(out, whole_rows(TOKENS, at, VOCABULARY), exact=exact)
    return np.array([[float(logprob[0]) for logprob in r.logprobs] for r in results if isinstance(r, Scored)])


@pytest.mark.parametrize(("window", "lengths"), [("exact", WITHIN + BEYOND), ("off", WITHIN)])
def test_f32_is_within_a_thousandth(checkpoint: Path, tmp_path: Path, window: str, lengths: tuple[int, ...]) -> None:
    """F32 GGUF, F32 cache, no flash attention: both layouts up to the window, the exact one beyond it."""
    found = gguf_rows(checkpoint, lengths, tmp_path, Options("f32", window=window), exact=True)
    assert np.abs(found - transformers_rows(checkpoint, lengths)).max() < 1e-3


def test_the_plain_layout_fails_beyond_the_window(checkpoint: Path, tmp_path: Path) -> None:
    """What --window off costs: not rounding, another answer."""
    found = gguf_rows(checkpoint, BEYOND, tmp_path, Options("f32", window="off"), exact=True)
    assert np.abs(found - transformers_rows(checkpoint, BEYOND)).max() > 1.0


def test_f16_at_default_settings_is_within_two_percent_of_the_spread(checkpoint: Path, tmp_path: Path) -> None:
    """F16 weights, F16 cache, flash attention."""
    lengths = WITHIN + BEYOND
    expected = transformers_rows(checkpoint, lengths)
    found = gguf_rows(checkpoint, lengths, tmp_path, Options("f16"))
    assert np.abs(found - expected).max() < 0.02 * (expected.max() - expected.min())


def test_bf16_is_no_farther_than_transformers_in_bfloat16(checkpoint: Path, tmp_path: Path) -> None:
    """Both round activations to eight bits; ours may be at most half as far off again."""
    lengths = WITHIN + BEYOND
    expected = transformers_rows(checkpoint, lengths)
    theirs = np.abs(transformers_rows(checkpoint, lengths, torch.bfloat16) - expected).max()
    found = gguf_rows(checkpoint, lengths, tmp_path, Options("bf16"))
    assert np.abs(found - expected).max() < 1.5 * theirs


def test_bfloat16_is_loaded_not_cast(checkpoint: Path) -> None:
    """Casting a float32 model also rounds its rotary frequencies, an error that grows with position."""
    loaded = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.bfloat16)
    frequencies = [buffer for name, buffer in loaded.named_buffers() if name.endswith("inv_freq")]
    assert frequencies
    assert all(buffer.dtype == torch.float32 for buffer in frequencies)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_llama_is_within_a_thousandth(tmp_path: Path, tiny: Path, kv_heads: int) -> None:
    """The q/k permutation, end to end."""
    directory = llama(tmp_path / "m", tiny, kv_heads=kv_heads, sharpness=2.5)
    lengths = (8, 100, 1500)
    found = gguf_rows(directory, lengths, tmp_path, Options("f32"), exact=True)
    assert np.abs(found - transformers_rows(directory, lengths)).max() < 1e-3
