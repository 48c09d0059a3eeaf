"""A tokenizer of Hugging Face's tokenizers library. The only module that imports it for the runner."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import tokenizers

from orin_runner.errors import UserError, first_line
from orin_runner.files import silence
from orin_runner.model.gguf_digests import text_digest

PROBE = "a"
"""A text that every tokenizer has tokens for."""


class HuggingFaceVocabulary:
    """Text to token ids and back, as Hugging Face does it.

    Args:
        serialized: a ``tokenizers.Tokenizer`` as JSON.
        name: whose tokenizer it is, for messages.

    Attributes:
        kind, sha256: of ``orin_runner.model.tokenizer.Vocabulary``; the digest is over ``serialized``.

    Raises:
        UserError: ``serialized`` is not what the tokenizers library takes.
    """

    kind = "huggingface"

    def __init__(self, serialized: str, name: str = "this model") -> None:
        self._name = name
        with self._called("is damaged"), silence():
            self._tokenizer = tokenizers.Tokenizer.from_str(serialized)
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            # Most of what is damaged shows here, and not after the tasks have been read.
            for special_too in (False, True):
                self._tokenizer.decode(self._tokenizer.encode(PROBE, add_special_tokens=special_too).ids)
        self.sha256 = str(text_digest(serialized))

    def encode(self, texts: Sequence[str], *, special: bool) -> list[Sequence[int]]:
        with self._called("cannot encode a text"), silence():
            return [found.ids for found in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=special)]

    def decode(self, tokens: Sequence[int]) -> str:
        with self._called("cannot decode its tokens"):
            return str(self._tokenizer.decode(tokens, skip_special_tokens=True))

    def pieces(self) -> dict[str, int]:
        """Token by text, those that were added to the vocabulary too."""
        with self._called("is damaged"):
            return dict(self._tokenizer.get_vocab(with_added_tokens=True))

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
