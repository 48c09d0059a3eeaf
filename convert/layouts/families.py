"""The checkpoint families that can be converted: one row each."""

from __future__ import annotations

from collections.abc import Callable

from convert.checkpoint import Checkpoint
from convert.layouts.layout import Layout
from convert.layouts.llama import llama
from convert.layouts.mistral import mistral
from convert.layouts.opt import opt
from convert.layouts.phi3 import phi3
from convert.layouts.qwen2 import qwen2
from convert.layouts.qwen3 import qwen3
from orin_runner.errors import UserError

FAMILIES: dict[str, Callable[[Checkpoint, str], Layout]] = {
    "LLaMAForCausalLM": llama,
    "LlamaForCausalLM": llama,
    "MistralForCausalLM": mistral,
    "OPTForCausalLM": opt,
    "Phi3ForCausalLM": phi3,
    "Qwen2ForCausalLM": qwen2,
    "Qwen3ForCausalLM": qwen3,
}
"""Builder by the name in config.json's ``architectures``; it takes what ``layout_for`` takes."""


def layout_for(checkpoint: Checkpoint, window: str) -> Layout:
    """The layout for a checkpoint.

    Args:
        checkpoint: an opened checkpoint; most layouts follow from its ``config.json`` alone.
        window: ``"exact"`` honours the model's sliding window, ``"off"`` writes llama.cpp's own plain layout.

    Raises:
        UserError: the architecture or one of its settings is not supported.
    """
    config = checkpoint.config
    names = config.get("architectures") or [config.get("model_type")]
    builder = FAMILIES.get(str(names[0]))
    if builder is None:
        raise UserError(f"architecture {names[0]} is not supported", f"supported: {', '.join(sorted(FAMILIES))}")
    if config.get("quantization_config"):
        raise UserError("config.json has a quantization_config", "name the checkpoint that it was quantized from")
    return builder(checkpoint, window)
