"""Ctrl-C amid the results of one batch, whose cost the runner tells of behind them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from eval.encoding import Question
from eval.evaluate import Prepared, evaluate
from eval.runs.writer import RunWriter
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.requests import Generated, GenerateRequest, Request, Result
from orin_runner.runner import OnProgress, Progress, RunStats, no_progress

PROMPT, TEXT = 3, 4
"""Tokens of each prompt, and of each text; a stop token ends it."""


class Texts:
    """Batches of two texts; interrupted before one of them, behind or amid a batch."""

    max_context = 64

    def __init__(self, stops_before: int) -> None:
        self.stats = RunStats()
        self._stops = stops_before

    def run(self, requests: Sequence[Request], on_progress: OnProgress = no_progress) -> Iterator[tuple[int, Result]]:
        asked = PROMPT * len(requests)
        self.stats = RunStats(sent=asked, unique=asked)
        on_progress(Progress(0, asked, asked))
        for i, _ in enumerate(requests):
            if i == self._stops:
                raise KeyboardInterrupt
            yield i, Generated(np.arange(TEXT, dtype=np.int32), stopped=True, margin=1.0, logprob=-1.0, decode_steps=4,
                               drafted=0)  # fmt: skip
            if i % 2 or i == len(requests) - 1:
                told = asked + TEXT * (i + 1)
                self.stats = RunStats(sent=told, unique=told, computed=told)
                on_progress(Progress(told, told, told))


class Words:
    """Texts are their tokens' numbers."""

    def decode(self, tokens: np.ndarray) -> str:
        return " ".join(map(str, tokens.tolist()))


def questions(n: int) -> list[Question]:
    docs = [Doc(str(i), "g", "?", "generate", (), (), "0 1 2 3", max_new_tokens=9) for i in range(n)]
    prompts = [np.array([i, 50, 51], dtype=np.int32) for i in range(n)]
    return [Question(doc, GenerateRequest(p, frozenset({9}), 9)) for doc, p in zip(docs, prompts, strict=True)]


@pytest.mark.parametrize("stops_before", [1, 2, 3, 4])
def test_texts_that_were_answered_are_counted(tmp_path: Path, stops_before: int) -> None:
    """Those of the batch that was broken off, too; when the run goes on, it has sent what it would have at once."""
    prepared = Prepared(get_task("challenge"), questions(5), {})
    for resume, items in ((False, stops_before), (True, 5)):
        with RunWriter(tmp_path, {"engine": "x", "time": "now"}, resume=resume) as writer:
            runner = Texts(99 if resume else stops_before)
            section = evaluate(prepared, Words(), runner, writer, {}, lambda _: None)  # type: ignore[arg-type]
        tokens = section["tokens"]
        assert section["items"] == items
        assert tokens["sent"] == tokens["unique"] == (PROMPT + TEXT) * items
