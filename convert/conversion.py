"""What a conversion is made of, decided before a byte is written. Writing and verifying both go by this value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from convert.checkpoint import Checkpoint
from convert.layouts.layout import Layout
from convert.vocab.vocabulary import Vocabulary

Report = Callable[[str, str, int], None]
"""Called with (stage, tensor name, bytes done) as tensors are checked, written and verified."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """One checkpoint and the GGUF it becomes.

    Attributes:
        checkpoint: where the values come from.
        layout: the GGUF's tensors, of which ``checkpoint`` has every source in the right shape.
        vocabulary: the tokenizer.
        types: safetensors name (F16, BF16, F32) of the type that each source is stored as.
        altered: number of values that the types round.
    """

    checkpoint: Checkpoint
    layout: Layout
    vocabulary: Vocabulary
    types: dict[str, str]
    altered: int

    @property
    def main_type(self) -> str:
        """Type of the largest checkpoint tensor, by which llama.cpp names the whole file's."""
        return self.types[max(self.types, key=lambda name: self.checkpoint.tensors[name].n_bytes)]
