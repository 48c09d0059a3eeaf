"""``answers.jsonl``: an answer is used for what was asked, and for nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.harness.answers import Answers, digest
from orin_runner.errors import UserError
from orin_runner.requests import Generated, GenerateRequest, Request, Scored, ScoreRequest


def ids(*tokens: int) -> np.ndarray:
    return np.array(tokens, np.int32)


SCORES = ScoreRequest(ids(1, 2), (ids(3), ids(4, 5)))
SCORED = Scored((np.array([-0.1]), np.array([-1.25, -3.0000000000000004])), (True, False))
TEXT = GenerateRequest(ids(1, 2), frozenset({7, 9}), 5, until=("\n",))
GENERATED = Generated(ids(3, 4), True, 0.5, -1.0, 2, 0)


def test_answers_are_those_that_were_added(tmp_path: Path) -> None:
    """To the last digit; of a text its tokens and what ended it."""
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        assert answers.known(SCORES) is None
        assert not path.exists()
        answers.add(SCORES, SCORED)
        answers.add(TEXT, GENERATED)
    with Answers(path) as answers:
        assert len(answers) == 2
        scored, text = answers.known(SCORES), answers.known(replace(TEXT, candidates=(ids(3),)))
        assert answers.used == 2
    assert isinstance(scored, Scored)
    assert [values.tolist() for values in scored.logprobs] == [values.tolist() for values in SCORED.logprobs]
    assert scored.greedy == SCORED.greedy
    assert isinstance(text, Generated)
    assert (text.tokens.tolist(), text.stopped) == ([3, 4], True)


OTHERS: list[tuple[Request, Request]] = [
    (SCORES, replace(SCORES, prompt=ids(1))),
    (SCORES, replace(SCORES, continuations=(ids(3), ids(4, 6)))),
    (SCORES, ScoreRequest(ids(1, 2, 3), (ids(4, 5),))),
    (SCORES, ScoreRequest(ids(1, 2), (ids(3, 4), ids(5)))),
    (ScoreRequest(ids(1), (ids(2, 3), ids(4)), (1, 1)), ScoreRequest(ids(1), (ids(2), ids(3, 4)), (1, 1))),
    (ScoreRequest(ids(1), (ids(2, 3),)), ScoreRequest(ids(1), (ids(2, 3),), (1,))),
    (TEXT, replace(TEXT, prompt=ids(1, 3))),
    (TEXT, replace(TEXT, stop=frozenset({7}))),
    (TEXT, replace(TEXT, max_new_tokens=6)),
    (TEXT, replace(TEXT, until=("\n", "x"))),
    (GenerateRequest(ids(1), frozenset(), 1), ScoreRequest(ids(1), (ids(1),))),
]


@pytest.mark.parametrize(("one", "other"), OTHERS)
def test_other_requests_are_told_apart(one: Request, other: Request) -> None:
    """By each part that decides the answer, and by where one part ends and the next begins."""
    assert digest(one) != digest(other)


def test_a_torn_line_is_dropped(tmp_path: Path) -> None:
    """And what is added stands in its place."""
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        answers.add(SCORES, SCORED)
        answers.add(TEXT, GENERATED)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with Answers(path) as answers:
        assert len(answers) == 1
        assert answers.known(TEXT) is None
        answers.add(TEXT, GENERATED)
    assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace(b"[-0.1]", b'["x"]'),
        lambda line: b"{}\n" + line,
        lambda line: b"\n" + line,
        lambda line: line.replace(b"-0.1", b"NaN"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        answers.add(SCORES, SCORED)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UserError, match="line 1: not an answer"):
        Answers(path)


def test_an_answer_of_another_form_is_none(tmp_path: Path) -> None:
    """Fewer numbers than tokens: it is asked again."""
    path = tmp_path / "answers.jsonl"
    with Answers(path) as answers:
        answers.add(SCORES, Scored((np.array([-0.1]), np.array([-1.25])), (True, False)))
    with Answers(path) as answers:
        assert answers.known(SCORES) is None
