"""What an answer is likely to be, as tokens. Candidates are verified instead of decoded; they never change a text."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from typing import Protocol

from orin_runner.requests import Tokens

CHOICES = re.compile(r"^choices: (\[.*\])\s*$", re.MULTILINE)


class Encode(Protocol):
    """The ``encode`` of a tokenizer."""

    def __call__(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]: ...


def choices_in(content: str) -> tuple[str, ...]:
    """The choices that a prompt of the 2024 challenge lists; empty where there is no such list, or one Python refuses.

    Its last line is ``choices:`` with a Python list. An answer is one of the list's texts.
    """
    found = CHOICES.findall(content)
    if not found:
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape such as \d is a warning, and the prompt's own affair
            values = ast.literal_eval(found[-1])
        return tuple(str(value) for value in values) if isinstance(values, list) else ()
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # the last two: nested too deep
        return ()


def candidates(answers: Sequence[str], encode: Encode) -> tuple[Tokens, ...]:
    """Likely answers as the tokens that stand right after the assistant's token, int32, each once.

    A model may begin its answer with a leading space or without: both spellings are candidates.
    """
    if not answers:
        return ()
    spaced = encode(answers, special=False)
    # A newline is a token of its own, so what follows it is encoded without the tokenizer's leading space.
    (newline,) = encode(["\n"], special=False)
    bare = [tokens[len(newline) :] for tokens in encode([f"\n{answer}" for answer in answers], special=False)]
    return tuple({tokens.tobytes(): tokens for tokens in [*spaced, *bare] if len(tokens)}.values())
