"""What ``orin-run eval`` says before a run of a dropped window, and of texts that no token ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from eval.encoding import Question
from eval.evaluate import Prepared
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.cli.eval import window_warning
from orin_runner.cli.tokenizer import stop_warning
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.huggingface_vocabulary import HuggingFaceVocabulary
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import GenerateRequest, Request, ScoreRequest, Tokens
from tests.support.gguf_bytes import tokenizer_json


@dataclass(frozen=True)
class File:
    """What is asked of a GGUF here."""

    dropped_window: int | None


def tokens(n: int) -> Tokens:
    return np.arange(n, dtype=np.int32)


def warning(window: int | None, *requests: Request) -> str | None:
    doc = Doc("", "g", "?", "choose", ("A",), ("A",), "A")
    prepared = Prepared(get_task("hellaswag"), [Question(doc, request) for request in requests], {})
    return window_warning(prepared, cast("GGUFFile", File(window)))


def test_choices_cross_a_window_too() -> None:
    """Positions beyond it see too much: those of the prompt, and of all but the last token of the longest choice."""
    within = ScoreRequest(tokens(6), (tokens(3), tokens(1)))
    beyond = ScoreRequest(tokens(6), (tokens(1), tokens(4)))
    contexts = ScoreRequest(tokens(2), (tokens(8), tokens(3)), (1, 1))
    assert warning(8, within) is None
    said = warning(8, within, beyond, contexts)
    assert said is not None
    assert said.startswith("2 of 3 hellaswag prompts, with their choices, are longer than the model's 8-token")
    assert warning(None, beyond) is None


def test_of_texts_the_prompt_counts() -> None:
    """How long they become is not known before."""
    texts = [GenerateRequest(tokens(n), frozenset(), 500) for n in (8, 9)]
    assert warning(8, texts[0]) is None
    assert str(warning(8, *texts)).startswith("1 of 2 ")


def test_texts_without_end_are_announced() -> None:
    """Where no token ends a text and there are texts; scores need no end."""
    doc = Doc("", "g", "?", "generate", (), (), "A")
    texts = [Question(doc, GenerateRequest(tokens(3), frozenset(), n)) for n in (40, 500)]
    scores = [Question(doc, ScoreRequest(tokens(3), (tokens(1),)))]
    without, with_one = (
        Tokenizer(HuggingFaceVocabulary(tokenizer_json()), None, {}, stop) for stop in (frozenset(), frozenset({2}))
    )
    task = get_task("gsm8k")
    said = stop_warning(Prepared(task, [*texts, *scores], {}), without)
    assert said is not None
    assert "the 2 texts of gsm8k run to a stop text of the task, or to their bound of 500 tokens" in said
    assert stop_warning(Prepared(task, texts, {}), with_one) is None
    assert stop_warning(Prepared(task, scores, {}), without) is None
