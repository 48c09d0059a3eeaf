"""Published models' config.json in full size: llama.cpp takes the layout, and weights and cache are as large as known.

The files have no data, and a vocabulary of ``N_TOKENS``, because writing and reading 200,000 tokens takes seconds. MiB
of 16-bit weights and KiB of cache a token are arithmetic over the published sizes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from tests.support.shapes import PHI3_MEDIUM, header_only

N_TOKENS = 500
LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def config(
    kind: str, width: int, n_ff: int, n_layers: int, heads: tuple[int, int], n_vocab: int, n_ctx: int, **more: Any
) -> dict[str, Any]:
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "hidden_size": width,
        "intermediate_size": n_ff,
        "num_hidden_layers": n_layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": n_vocab,
        "max_position_embeddings": n_ctx,
        "rms_norm_eps": 1e-5,
        **more,
    }


LONG = {"original_max_position_embeddings": 4096, "rope_scaling": LONGROPE, "sliding_window": 262144}
PUBLISHED: dict[str, tuple[dict[str, Any], str, int | None, int, int]] = {
    # name: config, graph, window, MiB of weights, KiB of cache a token
    "Llama-3.1-8B": (
        config("Llama", 4096, 14336, 32, (32, 8), 128256, 131072, rope_theta=5e5, rope_scaling=LLAMA3),
        *("llama", None, 15317, 128),
    ),
    "SmolLM2-135M": (
        config("Llama", 576, 1536, 30, (9, 3), 49152, 8192, rope_theta=1e5, tie_word_embeddings=True),
        *("llama", None, 257, 22),
    ),
    "Mistral-7B-v0.1": (
        config("Mistral", 4096, 14336, 32, (32, 8), 32000, 32768, sliding_window=4096),
        *("granite_swa", 4096, 13813, 128),
    ),
    "Mistral-Nemo": (
        config("Mistral", 5120, 14336, 40, (32, 8), 131072, 131072, head_dim=128, sliding_window=None),
        *("llama", None, 23361, 160),
    ),
    "Qwen2.5-7B": (
        config(
            *("Qwen2", 3584, 18944, 28, (28, 4), 152064, 32768),
            use_sliding_window=False,
            sliding_window=131072,
            max_window_layers=28,
        ),
        *("qwen2", None, 14525, 56),
    ),
    "Qwen3-8B": (config("Qwen3", 4096, 12288, 36, (32, 8), 151936, 40960, head_dim=128), "qwen3", None, 15623, 144),
    "Phi-3-medium-4k": (PHI3_MEDIUM, "granite_swa", 2047, 26627, 200),
    "Phi-3.5-mini": (config("Phi3", 3072, 8192, 32, (32, 32), 32064, 131072, **LONG), "phi3", None, 7288, 384),
    "Phi-4": (config("Phi3", 5120, 17920, 40, (40, 10), 100352, 16384, sliding_window=None), "phi3", None, 27961, 200),
    "Phi-4-mini": (
        config(
            *("Phi3", 3072, 8192, 32, (24, 8), 200064, 131072),
            **{**LONG, "tie_word_embeddings": True, "partial_rotary_factor": 0.75},
        ),
        *("phi3", None, 7317, 128),
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_llama_cpp_takes_it(name: str, tmp_path: Path) -> None:
    """Tensors of the shapes that its graph wants, and no other."""
    settings, architecture, window, weights, cache = PUBLISHED[name]
    file = GGUFFile.open(header_only(tmp_path / "m.gguf", {**settings, "vocab_size": N_TOKENS}))
    assert (file.architecture, file.window) == (architecture, window)
    assert file.dropped_window is None
    tables = 1 if settings.get("tie_word_embeddings") else 2
    left_out = tables * (settings["vocab_size"] - N_TOKENS) * settings["hidden_size"] * 2
    assert (file.data_bytes + left_out) / 2**20 == pytest.approx(weights, abs=2)  # vectors are F32
    assert file.original_context == (4096 if settings.get("rope_scaling") is LONGROPE else None)
    cells = 4096
    simulated = llama.simulate(file.path, llama.ContextSettings(cells, 512, 256, 256))
    assert round(simulated.kv / cells / 1024) == pytest.approx(cache, abs=1)
