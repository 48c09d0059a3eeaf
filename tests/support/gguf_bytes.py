"""GGUF files written byte by byte, so that they can say what no writer would; and a small whole one."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY, UINT64, INT64 = 4, 5, 6, 7, 8, 9, 10, 11
CODES = {UINT32: "I", INT32: "i", FLOAT32: "f", BOOL: "?", UINT64: "Q", INT64: "q"}
TOKENS = ["<unk>", "<s>", "</s>", "a", "b", "ab", "c", " "]


@dataclass(frozen=True)
class Typed:
    """A value of a GGUF type; of an array also the type of what is in it."""

    kind: int
    value: Any
    inner: int | None = None


@dataclass(frozen=True)
class Raw:
    """A type and whatever bytes follow it."""

    kind: int
    content: bytes


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: Sequence[int]
    kind: int = 0
    offset: int = 0


def tokenizer_json(**changed: Any) -> str:
    """A BPE tokenizer of ``TOKENS``, with other values of its parts."""
    special = [
        {"id": i, "content": TOKENS[i], "special": True}
        | dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        for i in range(3)
    ]
    parts = {
        "version": "1.0",
        "added_tokens": special,
        **dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder")),
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "vocab": {token: i for i, token in enumerate(TOKENS)},
            "merges": ["a b"],
        },
    }
    return json.dumps({**parts, **changed})


KEYS: dict[str, Typed | Raw] = {
    "general.architecture": Typed(STRING, "llama"),
    "llama.context_length": Typed(UINT32, 64),
    "llama.block_count": Typed(UINT32, 1),
    "llama.embedding_length": Typed(UINT32, 4),
    "llama.feed_forward_length": Typed(UINT32, 8),
    "llama.attention.head_count": Typed(UINT32, 1),
    "llama.attention.head_count_kv": Typed(UINT32, 1),
    "tokenizer.ggml.tokens": Typed(ARRAY, TOKENS, STRING),
    "tokenizer.ggml.scores": Typed(ARRAY, [0.0] * len(TOKENS), FLOAT32),
    "tokenizer.ggml.token_type": Typed(ARRAY, [1] * len(TOKENS), INT32),
    "tokenizer.ggml.bos_token_id": Typed(UINT32, 1),
    "tokenizer.ggml.eos_token_id": Typed(UINT32, 2),
    "tokenizer.huggingface.json": Typed(STRING, tokenizer_json()),
    "tokenizer.chat_template": Typed(STRING, "{{ messages[0].content }}"),
    "orin.generation.stop_token_ids": Typed(ARRAY, [2], INT32),
    "orin.altered_values": Typed(UINT64, 0),
}
TENSORS = (Tensor("token_embd.weight", (4, len(TOKENS))), Tensor("output_norm.weight", (4,), offset=128))


def gguf(
    changed: dict[str, Typed | Raw | None] | None = None,
    tensors: Sequence[Tensor] = TENSORS,
    *,
    version: int = 3,
    counts: tuple[int, int] | None = None,
    twice: str | None = None,
    data: int = 4096,
) -> bytes:
    """A whole small file, or one with other keys (None: without it), tensors, counts, or a key that stands twice.

    Args:
        counts: of tensors and keys, as the file says.
        data: bytes behind the header.
    """
    keys = {name: value for name, value in {**KEYS, **(changed or {})}.items() if value is not None}
    pairs = [*keys.items(), *([] if twice is None else [(twice, keys[twice])])]
    n_tensors, n_keys = counts or (len(tensors), len(pairs))
    written = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)
    written += b"".join(_text(name) + _value(value) for name, value in pairs)
    written += b"".join(_row(tensor) for tensor in tensors)
    return written + bytes(-len(written) % 32 + data)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _value(value: Typed | Raw) -> bytes:
    if isinstance(value, Raw):
        return struct.pack("<I", value.kind) + value.content
    if value.inner is None:
        return struct.pack("<I", value.kind) + _plain(value.kind, value.value)
    elements: Iterable[bytes] = (_plain(value.inner, each) for each in value.value)
    return struct.pack("<IIQ", ARRAY, value.inner, len(value.value)) + b"".join(elements)


def _plain(kind: int, value: Any) -> bytes:
    return _text(value) if kind == STRING else struct.pack(f"<{CODES[kind]}", value)


def _row(tensor: Tensor) -> bytes:
    shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
    return _text(tensor.name) + shape + struct.pack("<IQ", tensor.kind, tensor.offset)
