"""Byte-level BPE, as GPT-2, Llama 3, Qwen and OPT have: what llama.cpp calls tokenizer model ``gpt2``.

llama.cpp knows pre-tokenizers by name only (``llama-vocab.cpp``, ``llm_tokenizer_bpe``). The name is found by the
definition in the checkpoint's own tokenizer, never by the model's name.
"""

from __future__ import annotations

from typing import Any

from convert.vocab.rows import rows
from orin_runner.errors import UserError

MODEL = "gpt2"
"""llama.cpp's name of the tokenizer model."""

_SUFFIXES = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_LETTERS = _SUFFIXES + r"|[^\r\n\p{L}\p{N}]?\p{L}+"
_SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
_WORD_END = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
_WORD_BEGIN = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
_SLASHED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|"

_CL100K = _LETTERS + r"|\p{N}{1,3}" + _SIGNS + _SPACES
_QWEN2 = _LETTERS + r"|\p{N}" + _SIGNS + _SPACES
_TEKKEN = f"{_WORD_END}|{_WORD_BEGIN}" + r"|\p{N}" + _SLASHED + _SPACES
_O200K = f"{_WORD_END}{_SUFFIXES}?|{_WORD_BEGIN}{_SUFFIXES}?" + r"|\p{N}{1,3}" + _SLASHED + _SPACES

_GPT2 = "ByteLevel with GPT-2's pattern"
_DIGITS = "each digit alone"

PRE = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
    ((_CL100K,), True): "llama-bpe",
    ((_CL100K,), False): "dbrx",
    ((_QWEN2,), False): "qwen2",
    ((_O200K,), False): "gpt-4o",
    ((_TEKKEN,), True): "tekken",
}
"""llama.cpp's name by the splits that are made one after the other, and by whether a word that is a token as a whole is
taken without merging (``ignore_merges``)."""


def is_byte_level(description: dict[str, Any]) -> bool:
    """Whether ``description``, a serialized ``tokenizers.Tokenizer``, is of this kind."""
    model = description["model"]
    steps = _steps(description.get("pre_tokenizer"))
    return model.get("type") == "BPE" and any(step.get("type") == "ByteLevel" for step in steps)


def pre_tokenizer(description: dict[str, Any]) -> str:
    """llama.cpp's name of the pre-tokenizer that ``description``, a serialized ``tokenizers.Tokenizer``, defines.

    Raises:
        UserError: llama.cpp has none like it.
    """
    model = description["model"]
    splits = tuple(split for step in _steps(description["pre_tokenizer"]) for split in _splits(step))
    name = PRE.get((splits, bool(model.get("ignore_merges"))))
    normalizer = (description.get("normalizer") or {}).get("type", "NFC")
    if name is None or normalizer != "NFC" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        what = f"{normalizer} normalizer, " * (normalizer != "NFC") + ", then ".join(splits)
        raise UserError(
            f"the tokenizer's pre-tokenizer is none that llama.cpp is known to have: {what}",
            f"known: {', '.join(PRE.values())}; docs/adding.md says where another goes",
        )
    return name


def pieces(
    model: dict[str, Any], added_tokens: list[dict[str, Any]], n_rows: int
) -> tuple[list[str], list[int], list[str]]:
    """Text and ``gguf.TokenType`` of every token, one entry per embedding row, and the merges as ``"left right"``.

    Args:
        model, added_tokens: as in a serialized ``tokenizers.Tokenizer``.
        n_rows: rows of the embedding matrix; rows without a token become unused tokens.

    Raises:
        UserError: there are fewer rows than tokens.
    """
    tokens, types = rows(model["vocab"], added_tokens, n_rows)
    # Bytes stand as printable characters, a space as U+0120: no part of a merge holds a space.
    return tokens, types, [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]


def _steps(pre_tokenizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    if pre_tokenizer is None:
        return []
    return pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]


def _splits(step: dict[str, Any]) -> list[str]:
    """What one step splits, as the keys of ``PRE`` name it; anything else under a name that is no key's."""
    kind = step["type"]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return [_GPT2] if step.get("use_regex", True) else []
    if kind == "Digits" and step.get("individual_digits"):
        return [_DIGITS]
    # The known patterns match every character, so removing what lies between the matches is the same.
    whole = (step.get("behavior"), step.get("invert")) in {("Isolated", False), ("Removed", True)}
    if kind == "Split" and whole and "Regex" in step["pattern"]:
        return [step["pattern"]["Regex"]]
    return [str({key: value for key, value in step.items() if key != "trim_offsets"})]
