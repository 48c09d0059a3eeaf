"""What becomes of log-probabilities: choice, scores under each metric, margin, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from eval.encoding import Question
from eval.near_ties import NearTies
from eval.predict import predict
from eval.runs.prediction import Prediction
from eval.tasks.registry import get_task
from orin_runner.requests import Scored, ScoreRequest
from tests.support.choice_rows import choice_doc
from tests.support.predictions import prediction

CHOICES = (" a", " bb", " cc cc")


def answered(*logprobs: tuple[float, ...], task: str = "winogrande", **fields: Any) -> Prediction:
    """A choice of three, with so many log-probabilities each."""
    doc = choice_doc(**{"choices": CHOICES, **fields})
    request = ScoreRequest(np.array([1]), tuple(np.arange(len(each)) for each in logprobs))
    result = Scored(tuple(np.array(each) for each in logprobs), (False,) * len(logprobs))
    return predict(get_task(task), Question(doc, request), result, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("sums", "first"), [((-1.0, -1.0, -1.0), "A"), ((-2.0, -1.0, -1.0), "B")])
def test_of_tied_sums_the_first_is_chosen(sums: tuple[float, ...], first: str) -> None:
    """By argmax, as in the harness; the margin is none at all."""
    found = answered(*((value,) for value in sums))
    assert (found.prediction, found.margin) == (first, 0.0)


def test_sums_by_characters_bytes_and_tokens() -> None:
    """Each metric favours another choice; the space in front of a choice is no part of it.

    Characters, bytes and tokens are 1, 1, 2; 4, 8, 3; 9, 9, 20: by characters -4, -3.5 and -3.56; by bytes -4, -1.75
    and -3.56; by tokens -2, -4.67 and -1.6.
    """
    choices = (" a", " \u00e4\u00f6\u00fc\u00df", " nine long")
    logprobs = ((-2.0, -2.0), (-4.0, -5.0, -5.0), (-1.6,) * 20)
    found = answered(*logprobs, task="hellaswag", choices=choices, target="B")
    assert found.scores == {"acc": 0.0, "acc_norm": 1.0, "acc_bytes": 1.0, "acc_tokens": 0.0}
    assert answered(*logprobs, task="hellaswag", choices=choices, target="C").scores["acc_tokens"] == 1.0
    # Of 2 characters and 3 the sums -2.2 and -3.2 are -1.1 and -1.067; with the space, -0.73 and -0.8.
    found = answered((-2.2,), (-3.2,), (-99.0,), task="hellaswag", choices=(" ab", " abc", " x"), target="B")
    assert found.scores["acc_norm"] == found.scores["acc_bytes"] == 1.0
    # Of 2 and 3 characters and 4 and 3 bytes: characters favour the second, bytes the first.
    found = answered((-4.0,), (-3.3,), (-99.0,), task="hellaswag", choices=(" \u00e4\u00f6", " abc", " x"), target="A")
    assert (found.scores["acc_norm"], found.scores["acc_bytes"]) == (0.0, 1.0)


def test_the_mass_of_the_true_answers() -> None:
    """Probabilities 1/2, 1/4 and 1/4, of which the first and the last are true."""
    logprobs = ((np.log(0.4),), (np.log(0.2),), (np.log(0.2),))
    found = answered(*logprobs, task="truthfulqa_mc2", right=("A", "C"))
    assert found.scores == {"mc2": pytest.approx(0.75)}


def test_a_margin_moves_by_the_root_of_its_tokens() -> None:
    """Sums of -1, -3 and -9 of one, three and two tokens: the lead of 2 is over the second, of four tokens in all."""
    found = answered((-1.0,), (-1.0, -1.0, -1.0), (-4.0, -5.0))
    assert (found.prediction, found.margin) == ("A", 2.0)
    assert found.margin_scale == pytest.approx(np.sqrt(4))
    assert found.logprobs == (-1.0, -3.0, -9.0)


def test_a_near_tie_is_the_noise_of_one_token_times_that() -> None:
    """A lead below 0.6 of four tokens, where the noise of one is 0.3; of texts by the noise of texts."""
    noise = NearTies(scores=0.3, texts=0.1)
    items = [prediction(i, margin=margin, margin_scale=2.0) for i, margin in enumerate((0.59, 0.6, 0.61, 0.0))]
    assert [noise.holds(item) for item in items] == [True, False, False, True]
    texts = [prediction(i, margin=margin, margin_scale=1.0, text="x") for i, margin in enumerate((0.09, 0.1))]
    assert noise.count([*items, *texts]) == 3
    assert NearTies().count(items) is None, "nothing was measured"
    assert NearTies(scores=0.3).count([*items, *texts]) is None, "of texts nothing was"
