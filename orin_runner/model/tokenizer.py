"""Text to token ids and back, and conversations to text, for one GGUF. No torch, no transformers.

Which vocabulary encodes is behind ``Vocabulary``: the checkpoint's own tokenizer, or llama.cpp's of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from orin_runner.errors import UserError
from orin_runner.model.chat_template import ChatTemplate, Message
from orin_runner.model.gguf_digests import text_digest
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.huggingface_vocabulary import HuggingFaceVocabulary
from orin_runner.requests import Tokens

BATCH, BATCH_CHARACTERS = 256, 1 << 21
"""Texts given to a vocabulary at a time, and their characters where it is more than one: a library's encodings take
eighty bytes a token, which all of MMLU would need 0.9 GiB for, and fresh memory costs time."""


class Vocabulary(Protocol):
    """Text to token ids and back.

    Attributes:
        kind: ``"huggingface"``, or ``"llama.cpp"`` for llama.cpp's own vocabulary.
        sha256: digest of all that decides the ids.
    """

    kind: str
    sha256: str

    def encode(self, texts: Sequence[str], *, special: bool) -> Sequence[Sequence[int]]:
        """Token ids of each text; ``special``: with BOS and EOS where plain text has them.

        Raises:
            UserError: a text cannot be encoded.
        """

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of ``tokens``, special tokens left out.

        Raises:
            UserError: they cannot be decoded.
        """


@dataclass(frozen=True, slots=True)
class Declared:
    """What is said of a vocabulary beside it; the arguments of ``Tokenizer``."""

    chat_template: str | None = None
    special: Mapping[str, str] = field(default_factory=dict)
    stop: frozenset[int] = frozenset()
    prefix: int | None = None


class Tokenizer:
    """A vocabulary with what the model's file says of BOS, stop tokens and conversations.

    Args:
        vocabulary: what encodes.
        chat_template: Jinja source, None where the model has none.
        special: texts of bos_token, eos_token and so on, for the template.
        stop: token ids that end a generation.
        prefix: the token that stands for a context without one: BOS, else EOS; None where the model has neither.
        n_vocab: token ids that the model knows, from 0; None where it is not known.
        name: whose tokenizer it is, for messages.

    Attributes:
        vocabulary, chat_template, special, stop, prefix: as given.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        chat_template: str | None,
        special: dict[str, str],
        stop: frozenset[int],
        *,
        prefix: int | None = None,
        n_vocab: int | None = None,
        name: str = "this model",
    ) -> None:
        self._name, self._n_vocab = name, n_vocab
        self._template = None if chat_template is None else ChatTemplate(chat_template, special, name)
        self.vocabulary, self.chat_template, self.special = vocabulary, chat_template, special
        self.stop, self.prefix = stop, prefix

    @classmethod
    def from_gguf(cls, file: GGUFFile) -> Tokenizer:
        """The tokenizer a GGUF carries.

        Raises:
            UserError: the file has none, or a damaged one.
        """
        if file.keys.huggingface_tokenizer is None:
            raise UserError(
                f"{file.path} does not carry its checkpoint's tokenizer",
                "--tokenizer FOLDER names the checkpoint's own",
            )
        if file.keys.tokens is None:
            raise UserError(f"{file.path} has no vocabulary", "convert it again")
        return cls.of(file, HuggingFaceVocabulary(file.keys.huggingface_tokenizer, str(file.path)))

    @classmethod
    def of(cls, file: GGUFFile, vocabulary: Vocabulary, otherwise: Declared | None = None) -> Tokenizer:
        """``vocabulary`` with BOS, stop tokens, chat template and special tokens of ``file``.

        Args:
            otherwise: what holds where the file says nothing.
        """
        keys, otherwise = file.keys, otherwise or Declared()
        tokens = keys.tokens or []
        special = {f"{name}_token": tokens[token] for name, token in keys.special_tokens.items() if tokens}
        return cls(
            vocabulary,
            otherwise.chat_template if keys.chat_template is None else keys.chat_template,
            {**otherwise.special, **special},
            frozenset(file.stop_tokens) or otherwise.stop,
            prefix=keys.special_tokens.get("bos", keys.special_tokens.get("eos", otherwise.prefix)),
            n_vocab=file.n_vocab,
            name=str(file.path),
        )

    @property
    def header(self) -> dict[str, str | None]:
        """What ``run.json`` says of it under ``model``."""
        return {
            "tokenizer": self.vocabulary.kind,
            "tokenizer_sha256": self.vocabulary.sha256,
            "chat_template_sha256": text_digest(self.chat_template),
        }

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
        """Token ids of each text, int32.

        Args:
            texts: what to encode.
            special: add BOS and EOS where the tokenizer does for plain text. Rendered chats have theirs already.

        Raises:
            UserError: the tokenizer cannot encode one, or gives it an id that the model does not know.
        """
        return [self._known(ids) for part in _parts(texts) for ids in self.vocabulary.encode(part, special=special)]

    def decode(self, tokens: Tokens) -> str:
        """The text of ``tokens``, special tokens left out.

        Raises:
            UserError: the tokenizer cannot decode them.
        """
        return self.vocabulary.decode(tokens.tolist())

    def _known(self, ids: Sequence[int]) -> Tokens:
        """``ids`` as int32, after a look at whether the model has a row for each."""
        if self._n_vocab is not None and max(ids, default=0) >= self._n_vocab:
            raise UserError(
                f"the tokenizer of {self._name} makes the token {max(ids)}, and the model knows {self._n_vocab}",
                "convert it again, or name its own with --tokenizer",
            )
        return np.array(ids, dtype=np.int32)


def _parts(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """``texts`` in batches."""
    begin = characters = 0
    for end, text in enumerate(texts):
        if end > begin and (end - begin == BATCH or characters + len(text) > BATCH_CHARACTERS):
            yield texts[begin:end]
            begin, characters = end, 0
        characters += len(text)
    if texts:
        yield texts[begin:]
