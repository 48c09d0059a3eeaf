"""A checkpoint's tokenizer as transformers loads it. Knows no weights and no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from convert.vocab.vocabulary import library_errors, load_tokenizer
from orin_runner.model.chat_template import ChatTemplate, Message
from orin_runner.model.gguf_digests import text_digest
from orin_runner.requests import Tokens

MAX_ROWS = 1 << 24
"""Of any embeddings."""


class HFEncoder:
    """The tokenizer (``eval.encoding.Encoder``).

    Args:
        directory: the checkpoint folder.
        stop: tokens that end a text.
        n_rows: of the embeddings.

    Raises:
        UserError: there is no tokenizer, transformers cannot load it, or it has ids beyond the rows.
    """

    def __init__(self, directory: Path, stop: frozenset[int], n_rows: int = MAX_ROWS) -> None:
        self._tokenizer, serialized = load_tokenizer(directory, n_rows)
        self.tokenizer_sha256 = text_digest(serialized)  # as the converter writes it
        self.stop = stop
        self.eos: int | None = self._tokenizer.eos_token_id
        bos = self._tokenizer.bos_token_id
        self.prefix: int | None = self.eos if bos is None else bos

    @property
    def has_chat_template(self) -> bool:
        return self._tokenizer.chat_template is not None

    @property
    def chat_template(self) -> str | None:
        """Jinja source, None where there is none or several are named, which no GGUF of ours has."""
        template = self._tokenizer.chat_template
        return template if isinstance(template, str) else None

    def chats(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        # transformers renders without limits: what does not end within the runner's is refused first.
        special = {name: str(token) for name, token in self._tokenizer.special_tokens_map.items()}
        ChatTemplate(self._tokenizer.get_chat_template(), special, self._tokenizer.name_or_path).render(conversations)
        chats = [list(messages) for messages in conversations]
        return list(self._tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True))

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        if not texts:
            return []
        with library_errors(f"the tokenizer of {self._tokenizer.name_or_path} cannot encode a text"):
            encoded = self._tokenizer(
                list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False
            )
        return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def decode(self, tokens: Tokens) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def holds(self, tokens: Tokens, texts: Sequence[str]) -> bool:
        """Whether the text of ``tokens``, special tokens by their names, has one of ``texts`` in it."""
        text = str(self._tokenizer.decode(tokens.tolist()))
        return any(wanted in text for wanted in texts)
