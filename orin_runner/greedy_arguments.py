"""The generation arguments of transformers at the values that mean greedy decoding."""

from __future__ import annotations

from typing import Any

GREEDY: dict[str, tuple[Any, ...]] = {
    "do_sample": (False, None),
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
    "temperature": (None, 0, 1),
    "top_k": (None,),
    "top_p": (None, 1),
    "repetition_penalty": (None, 1),
}
"""Any other value of such an argument means something else."""
