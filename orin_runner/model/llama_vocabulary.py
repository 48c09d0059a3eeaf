"""llama.cpp's own vocabulary of a GGUF."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import llama_cpp

from orin_runner.model.llama_log import LOG


class Vocabulary:
    """llama.cpp's own vocabulary of a GGUF, of which nothing else is read; no device is used.

    Raises:
        ValueError: llama.cpp cannot read it, or there is none.
    """

    def __init__(self, path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        LOG.lines.clear()
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self._model:
            raise ValueError(f"llama.cpp cannot read the vocabulary of {path}: {LOG.tail()}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        if llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise ValueError(f"{path} has no vocabulary of llama.cpp's")

    def encode(self, text: str, *, special: bool, parse: bool) -> list[int]:
        """Token ids of ``text``; many threads may call this at once.

        Args:
            special: add BOS and EOS where the file says so for plain text.
            parse: take the names of special tokens in the text for these tokens.
        """
        return token_ids(self._vocab, text, special=special, parse=parse)

    def pieces(self) -> list[bytes]:
        """By token its bytes in a text, leading space included; nothing of a special token."""
        return [
            piece(self._vocab, token, special=False) for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab))
        ]


def token_ids(vocab: Any, text: str, *, special: bool, parse: bool) -> list[int]:
    """Token ids of ``text`` by a vocabulary of llama.cpp's, as ``Vocabulary.encode``."""
    data = text.encode()
    size = len(data) + 16
    while True:
        buffer = (llama_cpp.llama_token * size)()
        n = int(llama_cpp.llama_tokenize(vocab, data, len(data), buffer, size, special, parse))
        if n >= 0:
            return list(buffer[:n])
        size = -n  # what llama.cpp says it needs


def piece(vocab: Any, token: int, *, special: bool) -> bytes:
    """The bytes of ``token`` in a text, leading space included; of a special token its name, or nothing."""
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = int(llama_cpp.llama_token_to_piece(vocab, token, buffer, size, 0, special))
        if n >= 0:
            return buffer.raw[:n]
        size = -n  # what llama.cpp says it needs
