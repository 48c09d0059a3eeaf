"""Numbers of a task's figures."""

from __future__ import annotations

import math

import pytest

from eval.near_ties import NearTies
from eval.report.figures import calibration, margins, wilson
from tests.support.pages import item


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_intervals_are_wilsons(right: int, n: int, low: float, high: float) -> None:
    assert wilson(right / n, n) == pytest.approx((low, high), abs=5e-5)


def test_calibration_of_known_confidences() -> None:
    """Odds of 3 : 1 are a confidence of 0.75; half of those right is an error of 0.25."""
    known = (math.log(0.6), math.log(0.2))
    items = [item(0, logprobs=known, scores={"acc": float(i)}) for i in range(2)]
    found = calibration([*items, item(1, logprobs=None), item(2, logprobs=known, scores={"mc2": 0.5})])
    assert found is not None
    assert found["items"] == 2
    assert found["ece"] == pytest.approx(0.25)
    half = 1.96 * math.sqrt(0.25 / 2 + 1.96**2 / 16) / (1 + 1.96**2 / 2)  # Wilson's, of one in two
    interval = pytest.approx((0.5 - half, 0.5 + half), abs=1e-4)
    known_bin = {"from": 0.7, "items": 2, "confidence": pytest.approx(0.75), "accuracy": 0.5, "interval": interval}
    assert found["bins"] == [known_bin]


def test_calibration_weighs_bins_by_items_and_keeps_certainty() -> None:
    """A confidence of exactly 1 has a bin; errors of 0 (three items) and of 0.5 (one item) make 0.125."""
    sure, torn = (0.0, -math.inf), (-1.0, -1.0)
    items = [item(i, logprobs=sure, scores={"acc": 1.0}) for i in range(3)]
    found = calibration([*items, item(3, logprobs=torn, scores={"acc": 1.0})])
    assert found is not None
    assert [(row["from"], row["items"]) for row in found["bins"]] == [(0.5, 1), (0.9, 3)]
    assert found["ece"] == pytest.approx(0.125)
    assert calibration([item(0, logprobs=None), item(1, logprobs=(math.nan, -1.0))]) is None


def test_margins_count_every_item_once_and_near_ties() -> None:
    """The threshold is shown where it is one for all items."""
    items = [item(i, margin=value, correct=value > 0.5) for i, value in enumerate([0.0, 0.02, 0.6, 12.0])]
    found = margins([*items, item(9, margin=None)], NearTies(0.03))
    assert found is not None
    assert found["near_tie"] == 0.03
    assert (sum(found["right"]), sum(found["wrong"]), found["below"]) == (2, 2, 2)
    assert (found["wrong"][0], found["right"][1], found["right"][-1]) == (2, 1, 1)
    assert margins([item(0, margin=None)], NearTies(0.03)) is None
    wider = margins([*items, item(9, margin=0.1, margin_scale=4.0)], NearTies(0.03))
    assert wider is not None
    assert (wider["near_tie"], wider["below"]) == (None, 3)


def test_nothing_is_known_of_no_items() -> None:
    """An interval from none to all."""
    assert wilson(0.0, 0) == (0.0, 1.0)
