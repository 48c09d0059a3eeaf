"""Factor tensors of the rotary embeddings against transformers' own frequencies, with published models' numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from transformers import LlamaConfig, Phi3Config
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from convert.layouts.rope import DEFAULT, LLAMA3, LONGROPE, Rope
from orin_runner.errors import UserError

LLAMA_31 = {"factor": 8.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
LLAMA_32 = {**LLAMA_31, "factor": 32.0}


def unscaled(theta: float, n_rot: int) -> np.ndarray:
    return theta ** -(np.arange(0, n_rot, 2) / n_rot)


@pytest.mark.parametrize(("scaling", "head_dim"), [(LLAMA_31, 128), (LLAMA_32, 64)])
@pytest.mark.parametrize("old", [True, False])
def test_llama_3(scaling: dict[str, Any], head_dim: int, old: bool) -> None:
    """3.1 and 3.2, in both spellings of the config."""
    rope = {"rope_type": "llama3", **scaling}
    sizes = {"head_dim": head_dim, "max_position_embeddings": 131072}
    config = (
        {**sizes, "rope_theta": 500000.0, "rope_scaling": rope}
        if old
        else {**sizes, "rope_parameters": {"rope_theta": 500000.0, **rope}}
    )
    found = Rope.of(config, head_dim, 131072, (DEFAULT, LLAMA3), partial=False)
    theirs, factor = ROPE_INIT_FUNCTIONS["llama3"](LlamaConfig(**config), "cpu")
    ours = unscaled(found.theta, found.n_rot) / np.array(found.factors["rope_freqs.weight"])
    assert np.allclose(ours, theirs.numpy(), rtol=1e-6, atol=0)
    assert factor == 1.0 == found.attention_factor
    assert len(set(np.round(found.factors["rope_freqs.weight"], 3))) > 3
    assert found.original_context is None


@pytest.mark.parametrize("share", [1.0, 0.75])
@pytest.mark.parametrize("explicit", [{}, {"attention_factor": 1.19}])
def test_long_rope(share: float, explicit: dict[str, float]) -> None:
    """Phi-3.5-mini's sizes, and Phi-4-mini's partly rotated heads; the attention factor is theirs, too."""
    n_rot = int(96 * share)
    short, long = ([1.0 + step * i for i in range(n_rot // 2)] for step in (0.01, 1.3))
    config = {
        "hidden_size": 3072,
        "num_attention_heads": 32,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "partial_rotary_factor": share,
        "rope_scaling": {"type": "longrope", "short_factor": short, "long_factor": long, **explicit},
    }
    found = Rope.of(config, 96, 131072, (LONGROPE,), partial=True)
    assert (found.n_rot, found.original_context) == (n_rot, 4096)
    for name, length in (("short", 4096), ("long", 4097)):
        theirs, factor = ROPE_INIT_FUNCTIONS["longrope"](Phi3Config(**config), "cpu", seq_len=length)
        ours = unscaled(found.theta, n_rot) / np.array(found.factors[f"rope_factors_{name}.weight"])
        assert np.allclose(ours, theirs.numpy(), rtol=1e-6, atol=0)
        assert found.attention_factor == pytest.approx(factor, rel=1e-12)


def test_the_older_name_of_long_rope() -> None:
    """The first Phi-3 128k checkpoints call it su."""
    scaling = {"type": "su", "short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    config = {"rope_scaling": scaling, "original_max_position_embeddings": 4096}
    assert Rope.of(config, 8, 131072, (LONGROPE,), partial=False).original_context == 4096


@pytest.mark.parametrize("kind", ["linear", "dynamic", "yarn", "llama3"])
def test_other_kinds_are_refused_by_name(kind: str) -> None:
    """And what is supported is said."""
    config = {"architectures": ["Qwen2ForCausalLM"], "rope_scaling": {"type": kind, "factor": 4.0}}
    with pytest.raises(UserError, match=f"'{kind}' is not supported for Qwen2ForCausalLM") as error:
        Rope.of(config, 8, 4096, (DEFAULT,), partial=False)
    assert error.value.hint == "supported there: default"
