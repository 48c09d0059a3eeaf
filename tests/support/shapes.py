"""GGUF files that have a real model's header and no data: sparse, so that 26 GiB take no space on disk."""

from __future__ import annotations

import os
from pathlib import Path

from convert.checkpoint import Checkpoint
from convert.header import open_gguf
from convert.layouts.families import layout_for
from convert.vocab.vocabulary import Vocabulary

PHI3_MEDIUM = {
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 5120,
    "intermediate_size": 17920,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 10,
    "vocab_size": 32064,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "sliding_window": 2047,
}


def header_only(
    path: Path, config: dict[str, object], window: str = "exact", vocabulary: Vocabulary | None = None
) -> Path:
    """A GGUF of ``config``'s layout in BF16 whose tensor data is a hole in the file."""
    layout = layout_for(Checkpoint(path, config, {}, ""), window)
    sources = layout.sources()
    types = {name: "F32" if len(shape) == 1 else "BF16" for name, shape in sources.items()}
    vocabulary = vocabulary or _vocabulary(sources["model.embed_tokens.weight"][0])
    with open_gguf(path, "phi3", layout, vocabulary, types, "BF16", 0) as gguf:
        size = sum(tensor.nbytes + 32 for tensor in gguf.tensors[0].values())  # data is aligned to 32 bytes
    os.truncate(path, path.stat().st_size + size)
    return path


def _vocabulary(n_tokens: int) -> Vocabulary:
    names = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
    return Vocabulary(
        huggingface_json='{"added_tokens": []}',
        model="llama",
        pre="default",
        tokens=[*names, *(f"t{i}" for i in range(len(names), n_tokens))],
        scores=[0.0] * n_tokens,
        types=[1] * n_tokens,
        merges=[],
        special={},
        add_bos=False,
        add_eos=False,
        stop=[],
        chat_template=None,
        built_by="",
    )
