"""The checkpoint's tokenizer, as the GGUF carries it.

Two forms are written. ``tokenizer.huggingface.json`` is the tokenizer exactly as the installed transformers builds it;
the runner encodes with that, so its token ids are Hugging Face's. llama.cpp's own vocabulary is written for every other
tool; it differs where llama.cpp does (white space after special tokens, for one). Each kind of tokenizer that llama.cpp
can express has a file here; ``read_vocabulary`` recognises the kind.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import transformers
from transformers import AutoTokenizer

from convert.checkpoint import DAMAGED
from convert.vocab import sentencepiece
from orin_runner.errors import UserError
from orin_runner.files import read_json
from orin_runner.model import gguf_keys

END_OF_TURN = ("<|end|>", "<|eot_id|>", "<|im_end|>", "<end_of_turn>")
"""Names under which the common chat models end a turn; llama.cpp has a key of its own for that token."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What the GGUF says of the tokenizer.

    Attributes:
        huggingface_json: serialized ``tokenizers.Tokenizer``.
        model, pre: llama.cpp's names of the tokenizer model and of its pre-tokenizer.
        tokens, scores, types: llama.cpp's own vocabulary, one entry per embedding row.
        special: token id by GGUF key, None where there is none.
        add_bos, add_eos: whether plain text gets them.
        stop: token ids that end a generation, from the generation config.
        chat_template: Jinja source, None where there is none.
        built_by: the library and version that built it.
    """

    huggingface_json: str
    model: str
    pre: str
    tokens: list[str]
    scores: list[float]
    types: list[int]
    special: dict[str, int | None]
    add_bos: bool
    add_eos: bool
    stop: list[int]
    chat_template: str | None
    built_by: str


def read_vocabulary(directory: Path, n_rows: int) -> Vocabulary:
    """Read a checkpoint's tokenizer and generation config.

    Args:
        directory: the checkpoint folder; ``tokenizer.json`` or ``tokenizer.model`` must be there.
        n_rows: rows of the embedding matrix; rows without a token become unused tokens.

    Raises:
        UserError: no tokenizer, one transformers cannot load, or one that is not SentencePiece-like BPE.
    """
    if not any((directory / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise UserError(f"{directory} has neither tokenizer.json nor tokenizer.model", "download the checkpoint again")
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # the tokenizers library raises plain Exception
        reason = str(error).splitlines()[0]
        raise UserError(f"transformers cannot load the tokenizer of {directory}: {reason}") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"the tokenizer of {directory} has no fast implementation in transformers")
    serialized = backend.to_str()
    description = json.loads(serialized)
    model, added_tokens = description["model"], description["added_tokens"]
    if not sentencepiece.is_sentencepiece(model):
        raise UserError(f"the tokenizer of {directory} is not SentencePiece BPE with byte fallback, as Llama's is")
    tokens, scores, types = sentencepiece.pieces(model, added_tokens, n_rows, tokenizer.unk_token_id)
    plain = backend.encode("a", add_special_tokens=False).ids
    framed = backend.encode("a", add_special_tokens=True).ids
    at = next(i for i in range(len(framed)) if framed[i : i + len(plain)] == plain)
    stop = _stop_tokens(directory, tokenizer.eos_token_id)
    special = {key: getattr(tokenizer, f"{name}_token_id") for name, key in gguf_keys.SPECIAL_TOKENS.items()}
    eot = next((tokens.index(name) for name in END_OF_TURN if name in tokens and tokens.index(name) in stop), None)
    return Vocabulary(
        huggingface_json=serialized,
        model=sentencepiece.MODEL,
        pre=sentencepiece.PRE,
        tokens=tokens,
        scores=scores,
        types=types,
        special={**special, gguf_keys.END_OF_TURN: eot},
        add_bos=at > 0,
        add_eos=at + len(plain) < len(framed),
        stop=stop,
        chat_template=tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None,
        built_by=f"transformers {transformers.__version__}",
    )


def _stop_tokens(directory: Path, eos: int | None) -> list[int]:
    path = directory / "generation_config.json"
    declared = read_json(path, DAMAGED).get("eos_token_id") if path.exists() else None
    if declared is None:
        declared = eos
    if declared is None:
        return []
    return sorted(set(declared)) if isinstance(declared, list) else [declared]
