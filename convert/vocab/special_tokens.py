"""BOS, EOS and PAD, and the tokens that end a text, where the files of a checkpoint say different things.

The tokenizer is believed: it gives the token ids that the model was trained on, and config.json is often another
checkpoint's. generation_config.json is believed on what ends a text, but not where a program has copied config.json's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert.schemas import DAMAGED, GenerationConfig, check
from orin_runner.errors import UserError
from orin_runner.files import parse_json, read_bytes, read_json

COMPARED = ("bos", "eos", "pad")
GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A token that ``file`` names as ``named``, one id or several, and the tokenizer, which is believed, otherwise."""

    token: str
    file: str
    named: int | list[int]
    tokenizer: int


def read_generation_config(directory: Path) -> GenerationConfig:
    """A checkpoint's generation config; an empty one where there is none.

    Raises:
        UserError: it is damaged.
    """
    path = directory / GENERATION_CONFIG
    return check(GenerationConfig, read_json(path, DAMAGED) if path.exists() else {}, path)


def conflicts(
    config: Mapping[str, Any], generation: GenerationConfig, tokenizer: Mapping[str, int | None]
) -> tuple[Conflict, ...]:
    """Where the files name another token than the tokenizer; a file or a tokenizer that names none agrees with all.

    Args:
        config: a parsed ``config.json``.
        generation: the generation config.
        tokenizer: its token ids by ``COMPARED``.
    """
    claims = [(name, "config.json", config.get(f"{name}_token_id")) for name in COMPARED]
    if generation.from_model_config:
        claims.append(("eos", GENERATION_CONFIG, generation.eos_token_id))
    return tuple(
        Conflict(name, file, named, believed)
        for name, file, named in claims
        if named is not None and (believed := tokenizer[name]) is not None and _others_only(named, believed)
    )


def stop_tokens(generation: GenerationConfig, eos: int | None, n_rows: int) -> list[int]:
    """The tokens that end a text, sorted: the generation config's, else the tokenizer's ``eos``.

    Args:
        generation: the generation config.
        eos: the tokenizer's, None where it has none.
        n_rows: rows of the embedding matrix.

    Raises:
        UserError: a token has no row.
    """
    declared = generation.eos_token_id
    copied = generation.from_model_config and eos is not None and _others_only(declared, eos)
    if declared is None or copied:
        declared = eos
    stop = sorted(set(_ids(declared)))
    if stop and stop[-1] >= n_rows:
        raise UserError(
            f"the checkpoint names a stop token {stop[-1]}, the embeddings have only {n_rows} rows", DAMAGED
        )
    return stop


def refuse_empty(directory: Path) -> None:
    """Refuse a tokenizer with a special token of no text, as the first conversions of LLaMA-1 have them.

    transformers takes such a token for the unknown one, or does not come to an end.

    Raises:
        UserError: there is one.
    """
    path = directory / "tokenizer_config.json"
    try:
        content = parse_json(read_bytes(path))
    except (OSError, ValueError, UserError):
        return  # it is missing, or transformers says what is wrong with it
    for key in [f"{name}_token" for name in (*COMPARED, "unk")] if isinstance(content, dict) else []:
        token = content.get(key)
        if (token.get("content") if isinstance(token, dict) else token) == "":
            raise UserError(
                f"{path} has an empty {key}, which transformers takes for another token",
                "delete that entry: the tokenizer's own token is taken then",
            )


def _ids(named: int | list[int] | None) -> list[int]:
    return [] if named is None else named if isinstance(named, list) else [named]


def _others_only(named: int | list[int] | None, token: int) -> bool:
    """Whether ``named`` are tokens, and ``token`` none of them; negative ids mean that there is none."""
    ids = [each for each in _ids(named) if each >= 0]
    return bool(ids) and token not in ids
