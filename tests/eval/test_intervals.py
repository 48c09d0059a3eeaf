"""Intervals and p-values: by hand, as published, and at their ends."""

from __future__ import annotations

import random
from itertools import product
from math import sqrt
from statistics import fmean, stdev

import pytest

from eval.intervals import (
    DRAWN,
    ENUMERATED,
    Z95,
    mcnemar_p,
    mean_interval,
    paired_interval,
    paired_test,
    sign_flip_interval,
    sign_flip_p,
    wilson_interval,
)


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


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (1, 0), (5, 0), (6, 1), (2, 8), (3, 3), (20, 8), (8, 30)])
def test_flipping_signs_is_mcnemar_on_right_and_wrong(lost: int, gained: int) -> None:
    """Differences of 0/1 scores: the same P, exact where few differ, else within three standard errors of drawing."""
    p, drawn = sign_flip_p([1.0] * lost + [-1.0] * gained + [0.0] * 50)
    expected = mcnemar_p(lost, gained)
    if lost + gained <= ENUMERATED:
        assert (p, drawn) == (expected, None)
    else:
        assert drawn == DRAWN
        assert p == pytest.approx(expected, abs=3 * sqrt(expected * (1 - expected) / DRAWN) + 1 / DRAWN)


def test_sign_flips_by_hand() -> None:
    """Of the eight signs of 0.1, 0.2, 0.3 and a tie by rounding: 0.6 and -0.6 are as far; of 0.1, 0.2, -0.3 all are."""
    assert sign_flip_p([0.1, 0.2, 0.3]) == (2 / 8, None)
    assert sign_flip_p([0.1, 0.2, -0.3]) == (1.0, None)
    # 0.1 + 0.2 - 0.3 + 0.5: as far are +-1.1 (2), +-0.9 (2), +-0.7 (2), and both ways to +-0.5 (4).
    assert sign_flip_p([0.1, 0.2, -0.3, 0.5]) == (10 / 16, None)
    assert sign_flip_p([]) == sign_flip_p([0.0] * 40) == (1.0, None)


def test_drawn_signs_are_always_the_same_and_never_prove_everything() -> None:
    """P cannot be below 1 in the number of patterns, the observed one counted."""
    differences = [0.001 * i for i in range(1, 101)]
    assert sign_flip_p(differences) == (1 / (DRAWN + 1), DRAWN)
    assert sign_flip_interval(differences) == sign_flip_interval(differences)


def all_means(differences: list[float]) -> list[float]:
    """Of every subset that has one, by a loop."""
    subsets = product((False, True), repeat=len(differences))
    chosen = [[d for d, take in zip(differences, subset, strict=True) if take] for subset in subsets]
    return sorted(fmean(subset) for subset in chosen if subset)


@pytest.mark.parametrize("n", [6, 10, 13])
def test_the_interval_is_what_the_test_does_not_refuse(n: int) -> None:
    """Just inside a limit P is above 5 %, just outside it is not; the limits are means of subsets."""
    drawn = random.Random(n)
    differences = [drawn.gauss(0.1, 0.2) for _ in range(n)]
    low, high = sign_flip_interval(differences)
    tail = (1 << n) // 40
    means = all_means(differences)
    assert (low, high) == pytest.approx((means[tail - 1], means[-tail]))
    for limit, inside in ((low, 1e-9), (high, -1e-9)):
        assert sign_flip_p([d - limit - inside for d in differences])[0] > 0.05
        assert sign_flip_p([d - limit + inside for d in differences])[0] <= 0.05


def test_the_interval_of_many_is_students() -> None:
    """817 normal differences: within 6 % of the mean -+ 1.963 standard errors, and it does not depend on scale."""
    drawn = random.Random(0)
    differences = [drawn.gauss(0.01, 0.05) for _ in range(817)]
    low, high = sign_flip_interval(differences)
    mean, half = fmean(differences), 1.963 * stdev(differences) / sqrt(817)
    assert (mean - low, high - mean) == pytest.approx((half, half), rel=0.06)
    assert sign_flip_interval([2 * d for d in differences]) == pytest.approx((2 * low, 2 * high))


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_the_interval_holds_the_mean_as_often_as_it_says(share: float) -> None:
    """100 samples of 60 scores, all or a tenth of which differ: 95 % less three standard errors, 6.5 %."""
    drawn = random.Random(1)

    def sample() -> tuple[list[float], list[float]]:
        first = [drawn.random() for _ in range(60)]
        return first, [drawn.random() if drawn.random() < share else score for score in first]

    found = [paired_test(*sample()).interval for _ in range(100)]
    assert sum(low <= 0.0 <= high for low, high in found) >= 89


@pytest.mark.parametrize("table", [(12, 0, 0, 0), (9, 2, 1, 6), (0, 6, 6, 0), (4, 9, 0, 2)])
def test_right_and_wrong_are_counted(table: tuple[int, int, int, int]) -> None:
    """Scores of 0 and 1 get McNemar's test and Newcombe's interval of their counts."""
    pairs = [
        pair for pair, n in zip(((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)), table, strict=True) for _ in range(n)
    ]
    found = paired_test(*zip(*pairs, strict=True))
    assert (found.name, found.p, found.drawn) == ("McNemar exact", mcnemar_p(table[1], table[2]), None)
    assert (found.interval_name, found.interval) == ("Newcombe", paired_interval(*table))


def test_few_differences_get_newcombes_interval() -> None:
    """Five of 20 masses differ: no test of five can say 95 %. With a sixth the test's interval is given."""
    first = [0.05 * i for i in range(20)]
    five, six = ([score + (0.01 if i < n else 0.0) for i, score in enumerate(first)] for n in (5, 6))
    found = paired_test(first, five)
    assert (found.name, found.interval_name, found.p) == ("sign-flip permutation", "Newcombe", 2 / 2**5)
    assert found.interval == pytest.approx(paired_interval(9.5, 0.0, 0.05, 10.45))
    assert found.interval[0] < -0.0025 < 0.0 < found.interval[1]
    found = paired_test(first, six)
    assert (found.interval_name, found.p) == ("sign-flip permutation", 2 / 2**6)
    assert -0.01 < found.interval[0] < -0.003 < found.interval[1] < 0.0


def test_scores_that_never_differ_have_a_width_and_no_rounding_trap() -> None:
    """Shares of an item that do not add up to whole items in floats."""
    for score in (0.1, 0.7, 1 / 3, 1.0 - 1e-16):
        low, high = paired_test([score] * 7, [score] * 7).interval
        assert low < 0.0 < high
