"""Text to token ids, as Hugging Face does it, from the tokenizer inside the GGUF. No torch, no transformers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import tokenizers

from orin_runner.errors import UserError, first_line
from orin_runner.files import without_stderr
from orin_runner.model.chat_template import ChatTemplate, Message
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Tokens

BATCH = 256
"""Texts given to the library at a time: its encodings take eighty bytes a token, which all of MMLU would need 0.9 GiB
for, and fresh memory costs time."""
PROBE = "a"
"""A text that every tokenizer has tokens for."""


class Tokenizer:
    """The checkpoint's own tokenizer and chat template.

    Args:
        serialized: a ``tokenizers.Tokenizer`` as JSON.
        chat_template: Jinja source, None where the model has none.
        special: texts of bos_token, eos_token and so on, for the template.
        stop: token ids that end a generation.
        prefix: the token that stands for a context without one: BOS, else EOS; None where the model has neither.
        n_vocab: token ids that the model knows, from 0; None where it is not known.
        name: whose tokenizer it is, for messages.

    Attributes:
        stop, prefix: as given.

    Raises:
        UserError: ``serialized`` is not what the tokenizers library takes.
    """

    def __init__(
        self,
        serialized: str,
        chat_template: str | None,
        special: dict[str, str],
        stop: frozenset[int],
        *,
        prefix: int | None = None,
        n_vocab: int | None = None,
        name: str = "this model",
    ) -> None:
        self._name, self._n_vocab = name, n_vocab
        with self._called("is damaged"), without_stderr():
            self._tokenizer = tokenizers.Tokenizer.from_str(serialized)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            # Most of what is damaged shows here, and not after the tasks have been read.
            for special_too in (False, True):
                self._tokenizer.decode(self._tokenizer.encode(PROBE, add_special_tokens=special_too).ids)
        self._template = None if chat_template is None else ChatTemplate(chat_template, special, name)
        self.stop, self.prefix = stop, prefix

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Tokenizer:
        """The tokenizer a GGUF carries.

        Raises:
            UserError: the file has none (it was not converted by this tool), or a damaged one.
        """
        keys = file.keys
        if keys.huggingface_tokenizer is None:
            raise UserError(
                f"{file.path} does not carry its checkpoint's tokenizer", "convert the checkpoint with make convert"
            )
        if keys.tokens is None:
            raise UserError(f"{file.path} has no vocabulary", "convert it again")
        special = {f"{name}_token": keys.tokens[token] for name, token in keys.special_tokens.items()}
        return cls(
            keys.huggingface_tokenizer,
            keys.chat_template,
            special,
            frozenset(keys.stop_tokens),
            prefix=keys.special_tokens.get("bos", keys.special_tokens.get("eos")),
            n_vocab=file.n_vocab,
            name=str(file.path),
        )

    @property
    def has_chat_template(self) -> bool:
        """Whether the model says how a conversation is written."""
        return self._template is not None

    def chat(self, messages: Sequence[Message]) -> str:
        """The text of a conversation, up to where the assistant's answer begins.

        Raises:
            UserError: there is no template, or it has no text for the conversation (``ChatTemplate``).
        """
        return self.chats([messages])[0]

    def chats(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """The texts of many conversations, faster than one after the other; raises as ``chat`` does."""
        if self._template is None:
            raise UserError("this model has no chat template", "use a task that does not need one")
        return self._template.render(conversations)

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        """Token ids of each text.

        Args:
            texts: what to encode.
            special: add BOS and EOS where the tokenizer does for plain text. Rendered chats have theirs already.

        Raises:
            UserError: the tokenizer cannot encode one, or gives it an id that the model does not know.
        """
        found: list[Tokens] = []
        for part in (list(texts[a : a + BATCH]) for a in range(0, len(texts), BATCH)):
            with self._called("cannot encode a text"), without_stderr():
                encoded = self._tokenizer.encode_batch_fast(part, add_special_tokens=special)
            found += [self._known(encoding.ids) for encoding in encoded]
        return found

    def decode(self, tokens: Tokens) -> str:
        """The text of ``tokens``, special tokens left out.

        Raises:
            UserError: the tokenizer cannot decode them.
        """
        with self._called("cannot decode its tokens"):
            return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def _known(self, ids: Sequence[int]) -> Tokens:
        """``ids`` as int32, after a look at whether the model has a row for each."""
        if self._n_vocab is not None and max(ids, default=0) >= self._n_vocab:
            raise UserError(
                f"the tokenizer of {self._name} makes the token {max(ids)}, and the model knows {self._n_vocab}",
                "convert it again",
            )
        return np.array(ids, dtype=np.int32)

    @contextmanager
    def _called(self, failed: str) -> Iterator[None]:
        """Around a call of the library, which raises plain ``Exception``, and pyo3's panics, which are none."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise UserError(
                f"the tokenizer of {self._name} {failed}: {first_line(error)}", "convert it again"
            ) from error
