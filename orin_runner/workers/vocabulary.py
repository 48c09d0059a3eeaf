"""llama.cpp's own vocabulary of a GGUF, in a process of its own.

There are vocabularies and texts on which llama.cpp ends the process, and the parent opens no device: where llama.cpp is
loaded, a CUDA build would.
"""

from __future__ import annotations

import hashlib
import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.workers.death import LastWords
from orin_runner.workers.process import WorkerProcess

PATIENCE_S = 10.0
"""Seconds that the process has to end after its pipe is closed."""
NO_DEVICE = {"CUDA_VISIBLE_DEVICES": ""}
PROBE = "a"
"""A text by whose pieces it shows whether the vocabulary puts a space before a text."""


@dataclass(frozen=True, slots=True)
class _Texts:
    """Asks for the token ids of texts; ``special`` and ``parse`` as ``llama_vocabulary.Vocabulary`` has them."""

    texts: tuple[str, ...]
    special: bool
    parse: bool


class _Pieces:
    """Asks for ``llama_vocabulary.Vocabulary.pieces``."""


class LlamaVocabulary:
    """llama.cpp's own vocabulary of a file (``orin_runner.model.tokenizer.Vocabulary``).

    In plain text the names of special tokens are text. In a rendered conversation, which is encoded without BOS and
    EOS, they are the tokens.

    Attributes:
        kind, sha256: as a ``Vocabulary`` has them; the digest is over the file's keys of its vocabulary.

    Raises:
        UserError: llama.cpp cannot read the vocabulary, or ends on it.
    """

    kind = "llama.cpp"

    def __init__(self, file: GGUFFile) -> None:
        digests = {k: v for k, v in file.header.key_sha256.items() if k.startswith(gguf_keys.VOCABULARY)}
        self.sha256 = hashlib.sha256("".join(f"{key} {digests[key]}\n" for key in sorted(digests)).encode()).hexdigest()
        self._process = _VocabularyProcess(file.path, f"the vocabulary of {file.path}")
        self._pieces: list[bytes] = self._process.ask(_Pieces())
        self._adds_space = self._joined(self.encode([PROBE], special=False)[0]) == b" " + PROBE.encode()

    def encode(self, texts: Sequence[str], *, special: bool) -> list[list[int]]:
        found: list[list[int]] = self._process.ask(_Texts(tuple(texts), special, parse=not special))
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        text = self._joined(tokens)
        return (text.removeprefix(b" ") if self._adds_space else text).decode("utf-8", "replace")

    def _joined(self, tokens: Sequence[int]) -> bytes:
        return b"".join(self._pieces[token] for token in tokens)


def own_tokenizer(file: GGUFFile) -> Tokenizer:
    """The checkpoint's tokenizer that a GGUF carries; where it carries none, llama.cpp's vocabulary of it.

    Raises:
        UserError: it has neither, or a damaged one.
    """
    if file.keys.huggingface_tokenizer is not None:
        return Tokenizer.from_gguf(file)
    if file.keys.tokens is None:
        kind = file.keys.vocabulary_kind
        what = "no vocabulary" if kind is None else f"no vocabulary ({gguf_keys.VOCABULARY_KIND} is {kind})"
        raise UserError(f"{file.path} has {what}", "--tokenizer FOLDER names its checkpoint's own tokenizer")
    return Tokenizer.of(file, LlamaVocabulary(file))


def tokenized(path: Path, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of ``texts`` by llama.cpp's vocabulary of ``path``, special tokens parsed, without BOS and EOS.

    Raises:
        UserError: llama.cpp cannot read the vocabulary, or ends on it.
    """
    process = _VocabularyProcess(path, "the checkpoint's tokenizer")
    found: list[list[int]] = process.ask(_Texts(tuple(texts), special=False, parse=True))
    process.close()
    return found


class _VocabularyProcess:
    """A process that has loaded the vocabulary of a file and answers questions until its pipe is closed.

    Args:
        path: the file.
        name: what llama.cpp cannot use where the process ends, for the message.
    """

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        self._process = WorkerProcess(_serve, environment=NO_DEVICE)
        self.close = weakref.finalize(self, self._process.close, PATIENCE_S)
        self._process.connection.send(path)

    def ask(self, question: _Texts | _Pieces) -> list:  # type: ignore[type-arg]
        """The process's answer.

        Raises:
            UserError: llama.cpp cannot read the vocabulary, ends on it, or a text is no Unicode.
        """
        try:
            self._process.connection.send(question)
            answer = self._process.connection.recv()
        except (EOFError, OSError):
            answer = LastWords(str(self._process.death(None, PATIENCE_S)))
        if isinstance(answer, LastWords):
            self.close()
            raise UserError(
                f"llama.cpp cannot use {self._name}: {answer.text}", "--tokenizer FOLDER names the checkpoint's own"
            )
        return list(answer)


def _serve(connection: Connection, path: Path) -> None:
    from orin_runner.model.llama_vocabulary import Vocabulary  # noqa: PLC0415 - the caller loads no llama.cpp

    try:
        vocabulary = Vocabulary(path)
    except ValueError as error:
        connection.send(LastWords(str(error)))
        return
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        while True:
            try:
                question = connection.recv()
            except EOFError:
                return
            if isinstance(question, _Pieces):
                connection.send(vocabulary.pieces())
                continue

            def encoded(text: str, question: _Texts = question) -> list[int]:
                return vocabulary.encode(text, special=question.special, parse=question.parse)

            try:
                connection.send(list(pool.map(encoded, question.texts)))
            except UnicodeEncodeError as error:
                connection.send(LastWords(str(error)))
                return
