"""The checkpoint families that can be converted: one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from convert.layouts.layout import Layout
from convert.layouts.llama import llama
from convert.layouts.phi3 import phi3
from orin_runner.errors import UserError

FAMILIES: dict[str, Callable[[dict[str, Any], str], Layout]] = {
    "LLaMAForCausalLM": llama,
    "LlamaForCausalLM": llama,
    "Phi3ForCausalLM": phi3,
}
"""Builder by the name in config.json's ``architectures``; it takes what ``layout_for`` takes."""


def layout_for(config: dict[str, Any], window: str) -> Layout:
    """The layout for a checkpoint's ``config.json``.

    Args:
        config: the parsed file.
        window: ``"exact"`` honours the model's sliding window, ``"off"`` writes llama.cpp's own plain layout.

    Raises:
        UserError: the architecture or one of its settings is not supported.
    """
    names = config.get("architectures") or [config.get("model_type")]
    builder = FAMILIES.get(str(names[0]))
    if builder is None:
        raise UserError(f"architecture {names[0]} is not supported", f"supported: {', '.join(sorted(FAMILIES))}")
    return builder(config, window)
