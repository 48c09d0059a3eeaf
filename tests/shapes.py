"""GGUF files that have a real model's header and no data: sparse, so that 26 GiB take no space on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from convert.layouts.layout import layout_for

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


def header_only(path: Path, config: dict[str, object], window: str = "exact") -> Path:
    """A GGUF of ``config``'s layout in BF16 whose tensor data is a hole in the file."""
    layout = layout_for(config, window)
    writer = GGUFWriter(path, layout.architecture)
    writer.add_name("phi3")
    for key, value in layout.metadata.items():
        full = f"{layout.architecture}.{key}"
        if isinstance(value, float):
            writer.add_float32(full, value)
        elif isinstance(value, int):
            writer.add_uint32(full, value)
        else:
            writer.add_array(full, value)
    n_vocab = layout.tensors[0].shape[0]
    names = ["<unk>", "<s>", "</s>", "<|endoftext|>"]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*names, *(f"t{i}" for i in range(len(names), n_vocab))])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([1] * n_vocab)
    size = 0
    for tensor in [*layout.tensors, *layout.added]:
        f32 = len(tensor.shape) == 1
        dtype = np.dtype(np.float32 if f32 else np.uint16)
        kind = GGMLQuantizationType.F32 if f32 else GGMLQuantizationType.BF16
        n_bytes = int(np.prod(tensor.shape)) * dtype.itemsize
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, n_bytes, raw_dtype=kind)
        size += n_bytes + 32  # data is aligned to 32 bytes
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, path.stat().st_size + size)
    return path
