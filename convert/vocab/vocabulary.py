"""The checkpoint's tokenizer, as the GGUF carries it.

Two forms are written. ``tokenizer.huggingface.json`` is the tokenizer exactly as the installed transformers builds it;
the runner encodes with that, so its token ids are Hugging Face's. llama.cpp's own vocabulary is written for every other
tool; it differs where llama.cpp does (white space after special tokens, for one). Each kind of tokenizer that llama.cpp
can express has a file here; ``read_vocabulary`` recognises the kind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from convert.schemas import DAMAGED
from convert.vocab import byte_level, sentencepiece
from convert.vocab.sample import reread
from convert.vocab.special_tokens import Conflict, conflicts, read_generation_config, refuse_empty, stop_tokens
from orin_runner.errors import UserError, first_line
from orin_runner.files import need_utf8, read_json, silence
from orin_runner.model import gguf_keys

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")
"""``vocab.json`` comes with ``merges.txt``: what GPT-2 and OPT are published with."""

PHI3_MARKS = ("phi-3", "phi3")
PHI3_TOKENS = ("</s>", "<unk>", "<s>", "<|endoftext|>")

END_OF_TURN = ("<|end|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>")
"""Names under which the common chat models end a turn; llama.cpp has a key of its own for that token."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the GGUF says of the tokenizer.

    Attributes:
        huggingface_json: serialized ``tokenizers.Tokenizer``.
        model, pre: llama.cpp's names of the tokenizer model and of its pre-tokenizer.
        tokens, types: llama.cpp's own vocabulary, one entry per embedding row.
        scores, merges: what ranks its merges: a score per row, or pairs as ``"left right"``. The other one is empty.
        special: token id by GGUF key, None where there is none.
        add_bos, add_eos: whether plain text gets them.
        stop: token ids that end a generation.
        chat_template: Jinja source, None where there is none.
        built_by: the library and version that built it.
        conflicts: special tokens that the checkpoint's other files name otherwise.
    """

    huggingface_json: str
    model: str
    pre: str
    tokens: list[str]
    scores: list[float]
    types: list[int]
    merges: list[str]
    special: dict[str, int | None]
    add_bos: bool
    add_eos: bool
    stop: list[int]
    chat_template: str | None
    built_by: str
    conflicts: tuple[Conflict, ...] = ()

    def model_name(self, name: str) -> str:
        """``name``, so that llama.cpp strips the white space after special tokens if the tokenizer does.

        llama.cpp does so under a name with one of ``PHI3_MARKS`` only (llama-vocab.cpp), and refuses a vocabulary
        without ``PHI3_TOKENS`` under such a name.
        """
        added = json.loads(self.huggingface_json)["added_tokens"]
        strips = any(token["special"] and token["rstrip"] for token in added) and {*PHI3_TOKENS} <= {*self.tokens}
        marked = any(mark in name.lower() for mark in PHI3_MARKS)
        if strips and not marked:
            return f"{PHI3_MARKS[0]} {name}"
        return name if strips or not marked else re.sub("(?i)(phi)-?(3)", r"\1 \2", name)


def read_vocabulary(directory: Path, n_rows: int, config: Mapping[str, Any] = MappingProxyType({})) -> Vocabulary:
    """Read a checkpoint's tokenizer and generation config.

    Args:
        directory: the checkpoint folder; one of ``TOKENIZER_FILES`` must be there.
        n_rows: rows of the embedding matrix; rows without a token become unused tokens.
        config: its parsed ``config.json``, whose special tokens are compared with the tokenizer's.

    Raises:
        UserError: as ``load_tokenizer``, or llama.cpp cannot express it.
    """
    tokenizer, serialized = load_tokenizer(directory, n_rows)
    with library_errors(f"transformers cannot load the tokenizer of {directory}"):
        # Not all that transformers loads can be read again from what it is serialized to, as the runner reads it.
        again = reread(serialized)
        plain = again.encode("a", add_special_tokens=False).ids
        framed = again.encode("a", add_special_tokens=True).ids
    at = next((i for i in range(len(framed)) if plain and framed[i : i + len(plain)] == plain), None)
    if at is None:
        reason = f"the tokenizer of {directory} encodes 'a' as {framed}, without the tokens {plain} of the text"
        raise UserError(reason, DAMAGED)
    description = json.loads(serialized)
    model, added_tokens = description["model"], description["added_tokens"]
    scores: list[float] = []
    merges: list[str] = []
    if sentencepiece.is_sentencepiece(model):
        kind, pre = sentencepiece.MODEL, sentencepiece.PRE
        tokens, scores, types = sentencepiece.pieces(model, added_tokens, n_rows, tokenizer.unk_token_id)
    elif byte_level.is_byte_level(description):
        kind, pre = byte_level.MODEL, byte_level.pre_tokenizer(description)
        tokens, types, merges = byte_level.pieces(model, added_tokens, n_rows)
    else:
        raise UserError(
            f"the tokenizer of {directory} is of kind {model.get('type')}, which llama.cpp cannot express as it is",
            "BPE is supported: byte-level as GPT-2's, or with byte fallback as Llama 2's",
        )
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in gguf_keys.SPECIAL_TOKENS}
    generation = read_generation_config(directory)
    stop = stop_tokens(generation, special["eos"], n_rows)
    eot = next((tokens.index(name) for name in END_OF_TURN if name in tokens and tokens.index(name) in stop), None)
    return Vocabulary(
        huggingface_json=serialized,
        model=kind,
        pre=pre,
        tokens=tokens,
        scores=scores,
        types=types,
        merges=merges,
        special={
            **{key: special[name] for name, key in gguf_keys.SPECIAL_TOKENS.items()},
            gguf_keys.END_OF_TURN: eot,
        },
        add_bos=at > 0,
        add_eos=at + len(plain) < len(framed),
        stop=stop,
        chat_template=_chat_template(directory, tokenizer.chat_template),
        built_by=f"transformers {transformers.__version__}",
        conflicts=conflicts(config, generation, special),
    )


def load_tokenizer(directory: Path, n_rows: int) -> tuple[PreTrainedTokenizerBase, str]:
    """A checkpoint's tokenizer as transformers builds it, and the ``tokenizers.Tokenizer`` in it, serialized.

    Args:
        directory: the checkpoint folder; one of ``TOKENIZER_FILES`` must be there.
        n_rows: rows of the embedding matrix.

    Raises:
        UserError: no tokenizer, one transformers cannot load, or one with ids beyond the rows; or a name that is no
            UTF-8.
    """
    need_utf8(directory)
    if not any((directory / name).exists() for name in TOKENIZER_FILES):
        raise UserError(f"{directory} has neither {' nor '.join(TOKENIZER_FILES)}", DAMAGED)
    _check_ids(directory, n_rows)
    refuse_empty(directory)
    with library_errors(message := f"transformers cannot load the tokenizer of {directory}"):
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        reason = f"the tokenizer of {directory} has no fast implementation in transformers"
        raise UserError(reason, "name a copy of the checkpoint that has a tokenizer.json")
    with library_errors(message):
        return tokenizer, backend.to_str()


def _check_ids(directory: Path, n_rows: int) -> None:
    """Refuse token ids without a row before the tokenizers library, which makes room for all ids up to the highest."""
    path = directory / "tokenizer.json"
    if not path.exists():
        return
    definition = read_json(path, DAMAGED)
    model, added = definition.get("model"), definition.get("added_tokens")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    ids = [*vocabulary.values()] if isinstance(vocabulary, dict) else []
    ids += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    highest = max((number for number in ids if isinstance(number, int)), default=0)
    if highest >= n_rows:
        raise UserError(f"the tokenizer has a token {highest}, the embeddings only {n_rows} rows", DAMAGED)


@contextmanager
def library_errors(message: str) -> Iterator[None]:
    """Turn what transformers and tokenizers raise into a UserError; what they write beside that is not shown.

    Args:
        message: of the error; the library's reason follows.
    """
    try:
        with silence():
            yield
    except BaseException as error:
        # tokenizers raises plain Exception, and where its Rust code panics one that is not even derived from that.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(f"{message}: {first_line(error)}", DAMAGED) from error


def _chat_template(directory: Path, template: object) -> str | None:
    if not isinstance(template, str):
        return None
    try:
        template.encode()
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise UserError(f"the chat template of {directory} is not valid Unicode: {error}", DAMAGED) from error
    return template
