"""What a person who waits is told: accuracy so far, rate, tokens saved, how much is left."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.encoding import Question
from eval.evaluate import Prepared, evaluate
from eval.predict import unanswered
from eval.progress import Status
from eval.runs.prediction import Prediction
from eval.runs.writer import RunWriter
from eval.tasks.base import Task
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.batching.packer import Budget
from orin_runner.engine.engine import Engine
from orin_runner.requests import Failed, GenerateRequest, Request, Result, Scored, ScoreRequest
from orin_runner.runner import OnProgress, Progress, RunStats, no_progress
from tests.support.fake_llama import FakeContext


def test_what_is_computed_twice_is_not_saved() -> None:
    """90 of 300 tokens computed although 75 are unique."""
    assert Status(4, 3, 10, 90, 75, 300, 0).saved == pytest.approx(0.7)


def test_the_words_of_a_task() -> None:
    """By hand: 3 of 4 right, 2 of them answered now in 8 s, 75 of 300 tokens sent must be computed."""
    status = Status(done=4, right=3, items=10, computed=50, unique=75, sent=300, resumed=2)
    assert status.words(8.0) == "4/10 items, 75.0% right, 0.2 items/s, 75% of tokens saved"
    # Nothing answered or counted yet: nothing is said of it.
    assert Status(0, 0, 10, 0, 0, 0, 0).words(0.0) == "0/10 items"


class Answering:
    """Answers B to everything, with a batch of tokens each."""

    max_context = 64

    def __init__(self) -> None:
        self.stats = RunStats()

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        for i, _ in enumerate(requests):
            yield i, Scored(tuple(np.array([x]) for x in (-2.0, -1.0, -3.0, -4.0, -5.0)), (False,) * 5)
            self.stats = RunStats(computed=10 * (i + 1), unique=20, sent=40)
            on_progress(Progress(10 * (i + 1), 20, 40))


class NoText:
    """An encoder that is not asked."""


class CheckingItself(Answering):
    """Answers, except the last one, for which memory is short, and gets a Ctrl-C in its self-check."""

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        yield from super().run(requests[:-1], on_progress)
        yield len(requests) - 1, Failed("needs 9 tokens of context, memory now allows 8")
        raise KeyboardInterrupt


def three_questions() -> list[Question]:
    request = ScoreRequest(np.array([1, 2], np.int32), tuple(np.array([k], np.int32) for k in range(5)))
    return [
        Question(Doc(str(i), "g", "?", "choose", tuple("ABCDE"), tuple("ABCDE"), target), request)
        for i, target in enumerate("BBA")
    ]


def test_ctrl_c_behind_the_last_answer_is_noticed(tmp_path: Path) -> None:
    """Nothing is missing, but the tasks after this one must not begin; what memory denied is a failed item."""
    prepared = Prepared(get_task("commonsense_qa"), three_questions(), {}, "validation", 1221)
    with RunWriter(tmp_path, {"engine": "x", "time": "now"}) as writer:
        section = evaluate(prepared, NoText(), CheckingItself(), writer, {}, lambda _: None)  # type: ignore[arg-type]
    assert (section["items"], section["unanswered"], section["failed"]) == (3, 0, 1)
    assert (section["tokens"]["sent"], section["tokens"]["unique"]) == (4, 2), "one prompt, twice"
    assert section["tokens"]["computed"] == 20
    assert (section["split"], section["rows"]) == ("validation", 1221)
    assert "memory now allows 8" in (tmp_path / "predictions.jsonl").read_text()


def test_time_for_predictions_is_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It passes while scores or texts are computed: the clocks add up to no more than the run took."""

    def slow(task: Task, question: Question, *_: object) -> Prediction:
        time.sleep(0.01)
        return unanswered(task, question, "-")

    monkeypatch.setattr("eval.evaluate.predict", slow)
    prompts = [np.array([i % 32, 1, 2, 3, i % 7], dtype=np.int32) for i in range(20)]
    choices = (prompts[0][:1], prompts[0][1:2])
    for requests in (
        [GenerateRequest(prompt, frozenset({7}), 3, choices) for prompt in prompts],
        [ScoreRequest(prompt, choices) for prompt in prompts],
    ):
        doc = Doc("", "g", "?", "choose", tuple("AB"), tuple("AB"), "A")
        questions = [Question(replace(doc, id=str(i)), request) for i, request in enumerate(requests)]
        engine = Engine([FakeContext(400, n_batch=32)], Budget(400, 32, 64, 64), n_chunk=4, n_positions=64)
        before = time.perf_counter()
        with RunWriter(tmp_path / type(requests[0]).__name__, {"engine": "x", "time": "now"}) as writer:
            prepared = Prepared(get_task("commonsense_qa"), questions, {})
            section = evaluate(prepared, NoText(), engine, writer, {}, lambda _: None)  # type: ignore[arg-type]
        assert section["clocks"]["score"] >= 20 * 0.01
        assert section["clocks"]["challenge 2024"] <= time.perf_counter() - before


def test_evaluate_says_where_it_is(tmp_path: Path) -> None:
    """One item answered before, two answered now: B is right for the first of these only."""
    task = get_task("commonsense_qa")
    questions = three_questions()
    said: list[Status] = []
    header = {"engine": "x", "time": "now"}
    for part in (questions[:1], questions):
        said.clear()
        with RunWriter(tmp_path, header, resume=len(part) > 1) as writer:
            evaluate(Prepared(task, part, {}), NoText(), Answering(), writer, {}, said.append)  # type: ignore[arg-type]
    assert [(s.done, s.right, s.resumed) for s in said] == [(2, 2, 1), (2, 2, 1), (3, 2, 1), (3, 2, 1)]
    assert said[-1] == Status(done=3, right=2, items=3, computed=20, unique=20, sent=40, resumed=1, asked=20)
