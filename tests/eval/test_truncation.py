"""What becomes of prompts that are longer than the model's context, by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.encoding import Question
from eval.evaluate import Prepared, evaluate
from eval.report.section import task_report
from eval.runs.resume import read_earlier
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from eval.tasks.registry import get_task
from eval.truncation import TooLong, fitted, n_truncated, shortened, too_long_lines
from orin_runner.errors import UserError
from orin_runner.requests import GenerateRequest, Request, Result, Scored, ScoreRequest, Tokens
from orin_runner.runner import OnProgress, Progress, RunStats, no_progress
from tests.support.choice_rows import choice_doc
from tests.support.predictions import NO_TOKENS, prediction

BOS = 1


def tokens(*ids: int) -> Tokens:
    return np.array(ids, dtype=np.int32)


def prompt(n: int) -> Tokens:
    """BOS and the numbers from 11 on."""
    return tokens(BOS, *range(11, 10 + n))


def letters(n: int) -> ScoreRequest:
    return ScoreRequest(prompt(n), (tokens(5), tokens(6)))


def item(*requests: Request, task: str = "winogrande") -> Prepared:
    questions = [Question(replace(choice_doc(), id=f"q{i}"), request) for i, request in enumerate(requests)]
    return Prepared(get_task(task), questions, {"tokenize": 1.0}, None, len(questions))


def paths(request: Request | None) -> list[list[int]]:
    assert isinstance(request, ScoreRequest)
    return [np.concatenate([request.prompt, each]).tolist() for each in request.continuations]


def test_a_letter_is_only_predicted() -> None:
    """A prompt as long as the context fits; of one that is longer the first tokens go, BOS too."""
    whole = letters(4)
    assert shortened(whole, 4) is whole
    found = shortened(letters(6), 4)
    assert paths(found) == [[12, 13, 14, 15, 5], [12, 13, 14, 15, 6]]
    assert isinstance(found, ScoreRequest)
    assert found.prompt.tolist() == [12, 13, 14, 15], "one prompt for both letters"
    assert found.scored == ()


def test_each_choice_keeps_as_much_of_the_prompt_as_its_length_leaves() -> None:
    """Of five positions: choices of one and four tokens after a prompt of six keep five and two of it."""
    request = ScoreRequest(prompt(6), (tokens(5), tokens(5, 6, 7, 8)))
    found = shortened(request, 5)
    assert paths(found) == [[11, 12, 13, 14, 15, 5], [14, 15, 5, 6, 7, 8]]
    assert isinstance(found, ScoreRequest)
    assert found.n_scored == (1, 4)


def test_a_choice_that_fits_keeps_its_whole_prompt() -> None:
    found = shortened(ScoreRequest(prompt(3), (tokens(5), tokens(5, 6, 7))), 4)
    assert paths(found) == [[BOS, 11, 12, 5], [11, 12, 5, 6, 7]]


def test_contexts_of_the_choices_own_are_cut_one_by_one() -> None:
    """Contexts of four and seven tokens with two tokens to score after each: of five positions, four remain."""
    request = ScoreRequest(tokens(1, 2), (tokens(3, 4, 8, 9), tokens(5, 6, 7, 3, 4, 8, 9)), (2, 2))
    found = shortened(request, 5)
    assert paths(found) == [[1, 2, 3, 4, 8, 9], [6, 7, 3, 4, 8, 9]]
    assert isinstance(found, ScoreRequest)
    assert found.n_scored == (2, 2)


def test_a_text_keeps_room_for_as_many_tokens_as_it_may_have() -> None:
    request = GenerateRequest(prompt(8), frozenset({2}), 3, (tokens(5),), ("\n",))
    found = shortened(request, 10)
    assert isinstance(found, GenerateRequest)
    assert found.prompt.tolist() == prompt(8)[1:].tolist()
    assert replace(found, prompt=request.prompt) == request
    assert shortened(request, 11) is request
    assert shortened(request, 3) is None


@pytest.mark.parametrize("rule", TooLong)
def test_what_fits_is_left_as_it_is(rule: TooLong) -> None:
    given = item(letters(4), GenerateRequest(prompt(2), frozenset(), 2))
    found = fitted(given, 4, rule)
    assert found.questions == given.questions
    assert not found.skipped
    assert too_long_lines(found, 4) == []


def test_what_is_cut_is_counted() -> None:
    """Two of three, by 2 and 4 tokens; the longer choice decides."""
    given = item(letters(4), letters(6), ScoreRequest(prompt(6), (tokens(5), tokens(5, 6, 7))))
    found = fitted(given, 4, TooLong.TRUNCATE)
    assert [question.truncated for question in found.questions] == [0, 2, 4]
    assert n_truncated(found) == 2
    assert found.clocks["tokenize"] > 1.0
    (line,) = too_long_lines(found, 4)
    assert line == (
        "2 of 3 winogrande prompts, with what is asked behind them, are longer than the model's 4 tokens of context: "
        "they lose their beginning, at most 4 tokens, as in lm-evaluation-harness (--too-long truncate)"
    )


def test_what_is_skipped_is_not_asked() -> None:
    found = fitted(item(letters(4), letters(6)), 4, TooLong.SKIP)
    assert [question.doc.id for question in found.questions] == ["q0"]
    assert [(question.doc.id, reason) for question, reason in found.skipped] == [
        ("q1", "needs 6 tokens of context, the model has 4")
    ]
    assert found.n_items == 2
    (line,) = too_long_lines(found, 4)
    assert line == (
        "1 of 2 winogrande prompts, with what is asked behind them, are longer than the model's 4 tokens of context: "
        "they are not asked and in no accuracy"
    )


def test_a_choice_longer_than_the_context_cannot_be_truncated() -> None:
    """The item is skipped, and the others go on."""
    found = fitted(item(letters(6), ScoreRequest(prompt(2), (tokens(5), prompt(5)))), 4, TooLong.TRUNCATE)
    assert [question.doc.id for question in found.questions] == ["q0"]
    assert [question.doc.id for question, _ in found.skipped] == ["q1"]
    cut, left = too_long_lines(found, 4)
    assert cut.startswith("1 of 2 ")
    assert left.endswith("tokens of context, and a choice of each alone, too: they are not asked and in no accuracy")


def test_refusal_names_task_number_longest_and_option() -> None:
    with pytest.raises(UserError) as refusal:
        fitted(item(letters(5), letters(4), letters(7), letters(6)), 4, TooLong.REFUSE)
    assert refusal.value.message == (
        "3 of 4 winogrande prompts, with what is asked behind them, are longer than the model's 4 tokens of context; "
        "the longest, q2, needs 7"
    )
    assert "--too-long" in str(refusal.value.hint)


@pytest.mark.parametrize("rule", TooLong)
def test_texts_as_long_as_the_context_leave_no_prompt(rule: TooLong) -> None:
    """A mistake in the settings, not in a prompt; as with the harness nothing is asked."""
    given = item(letters(2), GenerateRequest(prompt(2), frozenset(), 8), task="bbh")
    with pytest.raises(UserError, match="bbh: texts of up to 8 tokens leave no room") as refusal:
        fitted(given, 8, rule)
    assert refusal.value.hint == "--max-new-tokens 4"


def test_accuracy_is_of_what_was_asked_and_truncated_prompts_apart() -> None:
    """Right, wrong, wrong; the last two truncated; one more skipped."""
    answers = [
        prediction(0, scores={"acc": 1.0}),
        prediction(1, "B", scores={"acc": 0.0}, truncated=3, group="even"),
        prediction(2, "B", scores={"acc": 0.0}, truncated=4),
        prediction(3, "", skipped="needs 9 tokens", scores={}, group="another"),
    ]
    section = task_report(answers, NO_TOKENS, {})
    assert (section["items"], section["skipped"], section["failed"]) == (3, 1, 0)
    assert section["accuracy"] == pytest.approx(1 / 3)
    assert list(section["groups"]) == ["even"]
    assert section["metrics"]["acc"]["value"] == pytest.approx(1 / 3)
    truncated = section["truncated"]
    assert (truncated["items"], truncated["accuracy"], truncated["tokens"]) == (2, 0.0, 7)
    assert task_report(answers[:1], NO_TOKENS, {})["truncated"] is None


class Runner:
    """Favours the first choice of each request; may be interrupted before one."""

    max_context = 64

    def __init__(self, stops_before: int | None = None) -> None:
        self.stats = RunStats()
        self.seen: list[Request] = []
        self._stops = stops_before

    def run(self, requests: Sequence[Request], on_progress: OnProgress = no_progress) -> Iterator[tuple[int, Result]]:
        for i, request in enumerate(requests):
            if i == self._stops:
                raise KeyboardInterrupt
            self.seen.append(request)
            yield i, Scored((np.array([-1.0]), np.array([-2.0])), (True, False))
        on_progress(Progress(len(requests), len(requests), len(requests)))


def ran(folder: Path, given: Prepared, runner: Runner, *, resume: bool = False) -> dict[str, Any]:
    with RunWriter(folder, {"time": "now", "settings": {}}, resume=resume) as writer:
        section = evaluate(given, None, runner, writer, {}, lambda _: None)  # type: ignore[arg-type]
        writer.report({"tasks": {"winogrande": section}})
    return section


def test_every_item_has_its_line_and_skipped_ones_are_written_once(tmp_path: Path) -> None:
    """Of four items one is truncated and one skipped; interrupted after one answer, and resumed."""
    given = fitted(item(letters(4), letters(6), letters(3)), 4, TooLong.TRUNCATE)
    skipped = fitted(item(letters(9)), 4, TooLong.SKIP).skipped[0]
    given = replace(given, skipped=[(replace(skipped[0], doc=replace(skipped[0].doc, id="long")), skipped[1])], rows=4)
    section = ran(tmp_path, given, Runner(stops_before=1))
    assert (section["items"], section["skipped"], section["unanswered"], section["without_record"]) == (1, 1, 2, 0)
    rest = Runner()
    section = ran(tmp_path, given, rest, resume=True)
    assert rest.seen == [question.request for question in given.questions[1:]]
    assert (section["items"], section["skipped"], section["resumed"], section["without_record"]) == (3, 1, 1, 0)
    assert section["truncated"]["items"] == 1
    run = Run.open(tmp_path)
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == len(run.predictions) == 4
    marks = {name: (found.truncated, found.skipped) for (_, name), found in run.predictions.items()}
    assert marks == {
        "q0": (0, None),
        "q1": (2, None),
        "q2": (0, None),
        "long": (0, "needs 9 tokens of context, the model has 4"),
    }
    assert run.predictions["winogrande", "q1"].n_tokens == 4
    assert read_earlier(tmp_path, {"settings": {}}).is_complete({"winogrande": given.n_items})


def test_a_task_of_which_nothing_fits_has_a_section(tmp_path: Path) -> None:
    given = fitted(item(letters(6), letters(7)), 4, TooLong.SKIP)
    section = ran(tmp_path, given, Runner())
    assert (section["items"], section["skipped"], section["accuracy"]) == (0, 2, 0.0)


def test_another_rule_is_not_gone_on_with(tmp_path: Path) -> None:
    """A run that names none was made when prompts that were too long were refused: none of its prompts was cut."""
    for name, settings in {"new": {"too_long": "skip"}, "old": {}}.items():
        with RunWriter(tmp_path / name, {"settings": settings}):
            pass
    read_earlier(tmp_path / "old", {"settings": {"too_long": "truncate"}})
    for name, rule in {"new": "truncate", "old": "skip"}.items():
        with pytest.raises(UserError, match=rf"a run with --too-long \w+, not {rule}"):
            read_earlier(tmp_path / name, {"settings": {"too_long": rule}})
