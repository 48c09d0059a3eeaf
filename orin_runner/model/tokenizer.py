"""Text to token ids, as Hugging Face does it, from the tokenizer inside the GGUF. No torch, no transformers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox
import numpy as np
import tokenizers

from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Tokens

Message = dict[str, str]

BATCH = 256
"""Texts given to the library at a time: its encodings take eighty bytes a token, which all of MMLU would need 0.9 GiB
for, and fresh memory costs time."""


class Tokenizer:
    """The checkpoint's own tokenizer and chat template.

    Args:
        serialized: a ``tokenizers.Tokenizer`` as JSON.
        chat_template: Jinja source, None where the model has none.
        special: texts of bos_token, eos_token and so on, for the template.
        stop: token ids that end a generation.

    Attributes:
        stop: as given.
    """

    def __init__(
        self, serialized: str, chat_template: str | None, special: dict[str, str], stop: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizers.Tokenizer.from_str(serialized)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = special
        self._template = None if chat_template is None else _compile(chat_template)
        self.stop = stop

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Tokenizer:
        """The tokenizer a GGUF carries.

        Raises:
            UserError: the file has none (it was not converted by this tool).
        """
        serialized = file.metadata.get(gguf_keys.HUGGINGFACE_TOKENIZER)
        if serialized is None:
            raise UserError(
                f"{file.path} does not carry its checkpoint's tokenizer", "convert the checkpoint with make convert"
            )
        tokens = file.metadata.get(gguf_keys.TOKENS)
        if tokens is None:
            raise UserError(f"{file.path} has no vocabulary", "convert it again")
        special = {}
        for name, key in gguf_keys.SPECIAL_TOKENS.items():
            token = file.metadata.get(key)
            if token is not None:
                special[f"{name}_token"] = tokens[int(token)]
        stop = file.metadata.get(gguf_keys.STOP_TOKENS) or []
        return cls(serialized, file.metadata.get(gguf_keys.CHAT_TEMPLATE), special, frozenset(int(t) for t in stop))

    @property
    def has_chat_template(self) -> bool:
        """Whether the model says how a conversation is written."""
        return self._template is not None

    def chat(self, messages: Sequence[Message]) -> str:
        """The text of a conversation, up to where the assistant's answer begins.

        Raises:
            UserError: there is no template, or it refuses the conversation.
        """
        if self._template is None:
            raise UserError("this model has no chat template", "use a task that does not need one")
        try:
            return self._template.render(messages=list(messages), add_generation_prompt=True, **self._special)
        except jinja2.TemplateError as error:
            raise UserError(f"the chat template refuses this conversation: {error}") from error

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        """Token ids of each text.

        Args:
            texts: what to encode.
            special: add BOS and EOS where the tokenizer does for plain text. Rendered chats have theirs already.
        """
        found: list[Tokens] = []
        for part in (list(texts[a : a + BATCH]) for a in range(0, len(texts), BATCH)):
            encoded = self._tokenizer.encode_batch_fast(part, add_special_tokens=special)
            found += [np.array(encoding.ids, dtype=np.int32) for encoding in encoded]
        return found

    def decode(self, tokens: Tokens) -> str:
        """The text of ``tokens``, special tokens left out."""
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))


def _compile(source: str) -> jinja2.Template:
    # The same environment as transformers' apply_chat_template (utils/chat_template_utils.py).
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise UserError(f"the chat template is not valid Jinja: {error}") from error
