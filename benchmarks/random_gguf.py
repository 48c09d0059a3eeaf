"""A random model of a real shape, made in seconds: what speed and memory are measured on.

    python -m benchmarks.random_gguf header TOKENIZER_DIR OUT.gguf [--shape phi3-medium] [--type BF16] [--layers N]
    python -m benchmarks.random_gguf fill OUT.gguf
    python -m benchmarks.random_gguf prove OUT.gguf

``header`` writes the shape's metadata and tensor table (a sparse file); ``fill`` writes random weights into it,
drawn on the GPU where there is one: matrices from N(0, 0.02²), norms 1, sinks as the converter has them. The embeddings
are so large that they outweigh what the layers add, and the output head holds each token's predecessor: the greedy
token is the next one in the vocabulary, by a clear lead, as a trained model's is, and the benchmark does not measure
how near-ties are settled. ``prove`` writes a manifest of what lies there, to measure what comparing it costs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader
from transformers import Phi3Config, Phi3ForCausalLM

from convert.checkpoint import Checkpoint
from convert.header import open_gguf, stamp
from convert.layouts.families import layout_for
from convert.vocab.vocabulary import read_vocabulary
from orin_runner.model.gguf_digests import MANIFEST_FORMAT, manifest_path, metadata_digests
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.gguf_header import TensorInfo
from orin_runner.model.gguf_keys import CHECKPOINT_SHA256, MANIFEST_SHA256

PHI3_MEDIUM: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
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
LLAMA_30B: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 6656,
    "intermediate_size": 17920,
    "num_hidden_layers": 60,
    "num_attention_heads": 52,
    "num_key_value_heads": 52,
    "vocab_size": 32064,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
}
"""LLaMA-1-30B, but for its vocabulary, which is that of the tokenizer at hand (32,000 there)."""
OPT_30B: dict[str, Any] = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "hidden_size": 7168,
    "word_embed_proj_dim": 7168,
    "ffn_dim": 28672,
    "num_hidden_layers": 48,
    "num_attention_heads": 56,
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
}
SHAPES = {"phi3-medium": PHI3_MEDIUM, "llama-30b": LLAMA_30B, "opt-30b": OPT_30B}
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2}
"""A hundredth of the width, to try things on a CPU."""
STOP = [32000, 32001, 32007]
EMBEDDING_SCALE = 200.0
"""Forty random layers add some 13 to a residual stream of unit tokens."""
CHUNK = 1 << 25  # values drawn at a time
WRITERS = 8


def header(tokenizer: Path, out: Path, type_name: str, config: dict[str, Any]) -> None:
    """Metadata and tensor table of ``config``'s layout, the data a hole in the file."""
    tensors = _opt_zeros(config) if config["model_type"] == "opt" else {}
    layout = layout_for(Checkpoint(tokenizer, config, tensors, ""), "exact")
    vocabulary = replace(read_vocabulary(tokenizer, config["vocab_size"]), stop=STOP)
    types = {name: "F32" if len(shape) == 1 else type_name for name, shape in layout.sources().items()}
    with open_gguf(out, f"random {config['model_type']}", layout, vocabulary, types, type_name, altered=0):
        pass
    os.truncate(out, 1 << 36)  # long enough for the table to be read
    os.truncate(out, max(int(t.data_offset) + int(t.n_bytes) for t in GGUFReader(out).tensors))


@dataclass(frozen=True)
class _Zeros:
    """A checkpoint's tensor of zeros."""

    shape: tuple[int, ...]
    dtype: str = "F32"

    def read(self) -> np.ndarray:
        return np.zeros(self.shape, dtype=np.float32)


def _opt_zeros(config: dict[str, Any]) -> Any:
    """What OPT's layout reads of a checkpoint to choose its power of two: with zeros it is the largest."""
    width = config["hidden_size"]
    found = {}
    for n in range(config["num_hidden_layers"]):
        for projection, norm in (("self_attn.v_proj", "self_attn_layer_norm"), ("fc1", "final_layer_norm")):
            stem = f"model.decoder.layers.{n}"
            found[f"{stem}.{projection}.weight"] = _Zeros((1, width))
            found[f"{stem}.{projection}.bias"] = _Zeros((1,))
            found |= {f"{stem}.{norm}.{kind}": _Zeros((width,)) for kind in ("weight", "bias")}
    return found


def fill(path: Path) -> None:
    """Random weights for every tensor of ``path``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(1)
    kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    tensors = [(t.name, t.shape, t.tensor_type.name, int(t.data_offset)) for t in GGUFReader(path).tensors]
    width, n_vocab = next([int(n) for n in shape] for name, shape, _, _ in tensors if name == "token_embd.weight")
    embedding = torch.randn(n_vocab * width, generator=generator, device=device, dtype=torch.float32)
    special = {
        "token_embd.weight": embedding * EMBEDDING_SCALE,
        "output.weight": embedding.roll(width) * 0.02,
    }
    data = np.memmap(path, dtype=np.uint8, mode="r+")
    # First touches of the file's pages take longest, and several threads take them at once.
    staging = _Staging()
    copying, waiting = ThreadPoolExecutor(WRITERS), deque[Future[None]]()
    for name, shape, type_name, at in tensors:
        count, kind = int(np.prod(shape)), kinds[type_name]
        for start in range(0, count, CHUNK):
            n = min(CHUNK, count - start)
            if name in special:
                values = special[name][start : start + n].to(kind)
            elif len(shape) == 1:
                values = torch.full((n,), -1e30 if "sinks" in name else 1.0)
            else:
                values = torch.randn(n, generator=generator, device=device, dtype=kind).mul_(0.02)
            item = values.element_size()
            target = data[at + start * item : at + (start + n) * item]
            waiting.append(copying.submit(staging.copy, values, target))
            if len(waiting) > WRITERS:
                waiting.popleft().result()
    for future in waiting:
        future.result()
    copying.shutdown()


class _Staging(threading.local):
    """Host memory of each writer, kept: new pages for every chunk would cost as much as those of the file."""

    def __init__(self) -> None:
        self.buffer = torch.empty(4 * CHUNK, dtype=torch.uint8, pin_memory=torch.cuda.is_available())

    def copy(self, values: torch.Tensor, target: np.ndarray) -> None:
        """Bring ``values`` to the host and into ``target``."""
        staged = self.buffer[: len(target)].copy_(values.view(torch.uint8))
        np.copyto(target, staged.numpy())


def prove(path: Path) -> None:
    """A manifest beside ``path``, of its data as it is; there is no checkpoint, whose digest is zeros."""
    header = GGUFFile.open(path).header
    data = np.memmap(path, dtype=np.uint8, mode="r")

    def record(tensor: TensorInfo) -> dict[str, Any]:
        digest = hashlib.sha256(data[tensor.offset : tensor.offset + tensor.n_bytes].data).hexdigest()
        shape = list(reversed(tensor.shape))
        return {"name": tensor.name, "type": tensor.type, "shape": shape, "sha256": digest}

    with ThreadPoolExecutor() as hashing:
        tensors = list(hashing.map(record, header.tensors))
    checkpoint = "0" * 64
    manifest = {
        "format": MANIFEST_FORMAT,
        "checkpoint": {"sha256": checkpoint},
        "metadata_sha256": metadata_digests(header),
        "tensor_table_sha256": header.table_sha256,
        "tensors": tensors,
        "added": [],
    }
    content = json.dumps(manifest).encode()
    manifest_path(path).write_bytes(content)
    stamp(path, {MANIFEST_SHA256: hashlib.sha256(content).hexdigest(), CHECKPOINT_SHA256: checkpoint})


def hf_model(device: str, *, small: bool = False) -> Phi3ForCausalLM:
    """The same shape as a transformers model with random weights in bfloat16, made on ``device``."""
    shape = {key: value for key, value in PHI3_MEDIUM.items() if key not in {"architectures", "model_type"}}
    shape |= {**SMALL, "num_hidden_layers": 2} if small else {}
    config = Phi3Config(**shape, attn_implementation="sdpa", bos_token_id=1, eos_token_id=STOP[0], pad_token_id=STOP[0])
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return Phi3ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("header")
    one.add_argument("tokenizer", type=Path)
    one.add_argument("out", type=Path)
    one.add_argument("--type", default="BF16", choices=["BF16", "F16"])
    one.add_argument("--shape", default="phi3-medium", choices=list(SHAPES))
    one.add_argument("--layers", type=int)
    one.add_argument("--small", action="store_true", help="a hundredth of the width, to try things on a CPU")
    for name in ("fill", "prove"):
        commands.add_parser(name).add_argument("out", type=Path)
    args = parser.parse_args()
    if args.command != "header":
        {"fill": fill, "prove": prove}[args.command](args.out)
        return
    config = dict(SHAPES[args.shape])
    config |= {} if args.layers is None else {"num_hidden_layers": args.layers}
    if args.small:
        config |= SMALL
    header(args.tokenizer, args.out, args.type, config)


if __name__ == "__main__":
    main()
