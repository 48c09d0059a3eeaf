"""Which tokenizer a model is run with, and the lines that say so.

A checkpoint's own that is named is built by transformers, as the converter builds it, and must fit the GGUF.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from eval.evaluate import Prepared
from orin_runner.console import Notes
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.huggingface_vocabulary import HuggingFaceVocabulary
from orin_runner.model.tokenizer import Declared, Tokenizer
from orin_runner.requests import GenerateRequest
from orin_runner.workers.vocabulary import LlamaVocabulary, own_tokenizer

UNUSED = 5
"""``gguf.TokenType.UNUSED``: rows of the embedding without a token."""
SPACE = "\u2581"
"""As which SentencePiece writes a space in a piece."""
OTHER = "name the tokenizer of the checkpoint that the GGUF was made from"

NamedTokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        metavar="FOLDER|HUB-ID",
        help="The checkpoint's own Hugging Face tokenizer, for a GGUF that does not carry it (default: llama.cpp's "
        "vocabulary of that file).",
    ),
]


def open_tokenizer(notes: Notes, file: GGUFFile, named: str | None) -> Tokenizer:
    """The tokenizer ``named``, else the one that the file carries, else llama.cpp's; a line says which if not its own.

    Raises:
        UserError: there is none, it is damaged, or it is another model's.
    """
    if named is not None:
        tokenizer = _named(file, named)
        notes.note(f"tokenizer: {named}, sha256 {tokenizer.vocabulary.sha256[:12]}")
        return tokenizer
    tokenizer = own_tokenizer(file)
    if tokenizer.vocabulary.kind == LlamaVocabulary.kind:
        kind = ", ".join(filter(None, (file.keys.vocabulary_kind, file.keys.pre_tokenizer)))
        notes.note(
            f"tokenizer: llama.cpp's own vocabulary of this file ({kind}), which carries no Hugging Face tokenizer; "
            f"--tokenizer names the checkpoint's own"
        )
    return tokenizer


def stop_warning(item: Prepared, tokenizer: Tokenizer) -> str | None:
    """What it means for a task's texts that no token ends them; None where one does, or there are no texts."""
    texts = [question.request for question in item.questions if isinstance(question.request, GenerateRequest)]
    if tokenizer.stop or not texts:
        return None
    bound = max(request.max_new_tokens for request in texts)
    return (
        f"the file names no token that ends a text: the {len(texts)} texts of {item.task.name} run to a stop text of "
        f"the task, or to their bound of {bound} tokens"
    )


def _named(file: GGUFFile, named: str) -> Tokenizer:
    try:
        from convert.download import HUB_ID, TOKENIZER, download  # noqa: PLC0415 - most runs do without
        from convert.vocab.vocabulary import load_tokenizer  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise UserError(f"--tokenizer needs transformers ({error})", "pip install 'orin-run[convert]'") from error
    folder = Path(named)
    if not folder.exists() and HUB_ID.fullmatch(named):
        folder = download(named, TOKENIZER)
    if not folder.is_dir():
        raise UserError(f"--tokenizer {named} is no folder", "name the checkpoint's folder, or OWNER/NAME on the hub")
    theirs, serialized = load_tokenizer(folder, file.n_vocab)
    vocabulary = HuggingFaceVocabulary(serialized, named)
    _check_pieces(file, vocabulary.pieces(), named)
    eos, bos, template = theirs.eos_token_id, theirs.bos_token_id, theirs.chat_template
    declared = Declared(
        chat_template=template if isinstance(template, str) else None,
        special={name: str(token) for name, token in theirs.special_tokens_map.items() if isinstance(token, str)},
        stop=frozenset() if eos is None else frozenset({eos}),
        prefix=eos if bos is None else bos,
    )
    return Tokenizer.of(file, vocabulary, declared)


def _check_pieces(file: GGUFFile, pieces: Mapping[str, int], named: str) -> None:
    """Refuse a tokenizer whose tokens are not those of the file's vocabulary.

    Raises:
        UserError: they are not; the first that differs is named.
    """
    texts = {token: piece for piece, token in pieces.items()}
    if (highest := max(texts, default=0)) >= file.n_vocab:
        reason = f"it has a token {highest}, and the model knows {file.n_vocab}"
        raise UserError(f"{named} is not the tokenizer of {file.path}: {reason}", OTHER)
    for token, text in enumerate(file.keys.tokens or ()):
        if file.keys.token_types is not None and file.keys.token_types[token] == UNUSED:
            continue
        # Other converters write the spaces of added tokens as they stand.
        if texts.get(token, "").replace(SPACE, " ") != text.replace(SPACE, " "):
            reason = f"its token {token} is {texts.get(token)!r}, and the file's {text!r}"
            raise UserError(f"{named} is not the tokenizer of {file.path}: {reason}", OTHER)
