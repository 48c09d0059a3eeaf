"""Intervals and p-values: by hand, as published, and at their ends."""

from __future__ import annotations

from math import sqrt

import pytest

from eval.intervals import Z95, mcnemar_p, mean_interval, paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 * 1 / 2
        (5, 0, 1 / 16),  # 2 * 1 / 32
        (6, 1, 1 / 8),  # 2 * (1 + 7) / 128
        (1, 6, 1 / 8),
        (2, 8, 7 / 64),  # 2 * (1 + 10 + 45) / 1024
        (3, 3, 1.0),  # 2 * (1 + 6 + 15 + 20) / 64 = 84 / 64, and no probability is more than 1
    ],
)
def test_mcnemar_by_hand(lost: int, gained: int, p: float) -> None:
    """Both tails of the binomial distribution with 1/2."""
    assert mcnemar_p(lost, gained) == p


def test_mcnemar_of_many_flips() -> None:
    """2^n is beyond a float's range."""
    assert mcnemar_p(1000, 1000) == 1.0
    assert mcnemar_p(2000, 0) == 0.0


@pytest.mark.parametrize(("right", "n"), [(1, 3), (5, 10), (9, 10), (479, 480)])
def test_wilson_limits_are_where_the_score_test_turns(right: int, n: int) -> None:
    """Its definition: |right / n - p| is z standard errors of p."""
    low, high = wilson_interval(right, n)
    assert 0 < low < right / n < high < 1
    for p in (low, high):
        assert (right / n - p) ** 2 == pytest.approx(Z95**2 * p * (1 - p) / n)


def test_wilson_at_the_ends() -> None:
    """None or all right: z^2 / (n + z^2) wide; with z = 2, 4 / 16 of 12 items."""
    assert wilson_interval(0, 12, 2.0) == pytest.approx((0.0, 0.25))
    assert wilson_interval(12, 12, 2.0) == pytest.approx((0.75, 1.0))


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # All right in both: phi is 0, each Wilson interval is 0.25 wide on one side.
        ((12, 0, 0, 0), -0.25, 0.25),
        # All lost: Wilson [0.75, 1] and [0, 0.25], phi 0.
        ((0, 12, 0, 0), 1 - sqrt(2) / 4, 1.0),
        # Half and half, Wilson 1/2 +- 1/4. ad - bc = 36, less n/2 = 30, of 36: phi 5/6.
        ((6, 0, 0, 6), -0.25 * sqrt(1 / 3), 0.25 * sqrt(1 / 3)),
        # No correlation.
        ((3, 3, 3, 3), -sqrt(2) / 4, sqrt(2) / 4),
        # ad - bc = 4 * 4 - 2 * 2 = 12, less n/2 is 6, of 36: phi 1/6.
        ((4, 2, 2, 4), -0.25 * sqrt(5 / 3), 0.25 * sqrt(5 / 3)),
        # phi -1 is not corrected.
        ((0, 6, 6, 0), -0.5, 0.5),
    ],
)
def test_newcombe_by_hand(table: tuple[int, int, int, int], low: float, high: float) -> None:
    """With z = 2 and 12 items Wilson's limits are simple fractions."""
    assert paired_interval(*table, 2.0) == pytest.approx((low, high))


def test_a_small_correlation_is_corrected_to_none() -> None:
    """ad - bc = 2 is less than n/2 = 4.5: the same as phi 0, both accuracies 5/9 and 5/9."""
    low, high = wilson_interval(5, 9)
    below, above = 5 / 9 - low, high - 5 / 9
    wide = sqrt(below**2 + above**2)
    assert paired_interval(3, 2, 2, 2) == pytest.approx((-wide, wide))


def test_newcombe_as_published() -> None:
    """Complete response to therapy (59, 6, 16, 80) in Fagerland, Lydersen and Laake, chapter 8: -0.119 to -0.005."""
    assert paired_interval(59, 6, 16, 80) == pytest.approx((-0.1186, -0.0046), abs=5e-5)
    low, high = paired_interval(59, 16, 6, 80)
    assert (-high, -low) == pytest.approx((-0.1186, -0.0046), abs=5e-5)


def test_the_interval_of_a_mean() -> None:
    """Distances 3 and 4 below, 6 and 8 above, of two values: 5/2 and 10/2."""
    assert mean_interval([10.0, 20.0], [(7.0, 16.0), (16.0, 28.0)]) == pytest.approx((12.5, 20.0))
