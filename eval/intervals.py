"""Tests and intervals for proportions and for means of paired scores. Knows numbers only, neither runs nor items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Z95 = NormalDist().inv_cdf(0.975)
"""Standard normal quantile of a two-sided 95 % interval, 1.95996."""

MCNEMAR, SIGN_FLIP, NEWCOMBE = "McNemar exact", "sign-flip permutation", "Newcombe"
"""Names of the tests, and of the interval where it is not the test's."""

FEWEST = 6
"""Values that must differ from 0 before flipping signs can say more than 95 %: 2 / 2^6 is 3 %, 2 / 2^5 is 6 %."""
ENUMERATED = 13
"""Values of which all subsets are taken: 2^13 = 8,192 are fewer than would be drawn."""
DRAWN = 9_999
"""Subsets drawn where there are more values: with the observed one 10,000, so p comes in steps of 0.0001."""
ROWS = 250
"""Subsets drawn at once: about 20 MB for 10,000 values."""


@dataclass(frozen=True, slots=True)
class PairedTest:
    """How sure the difference of two means of paired scores is.

    Attributes:
        name: ``MCNEMAR`` where all scores are 0 or 1, else ``SIGN_FLIP``.
        p: two-sided.
        drawn: random sign patterns that p rests on, so its steps are 1 / (drawn + 1); None where it is exact.
        interval: 95 %, of the first mean minus the second.
        interval_name: ``NEWCOMBE`` or ``SIGN_FLIP``.
    """

    name: str
    p: float
    drawn: int | None
    interval: tuple[float, float]
    interval_name: str


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """The test and the interval that fit scores between 0 and 1 of the same n >= 1 items.

    Scores of 0 and 1 are counts: McNemar's exact test and Newcombe's interval. For others (probabilities, F1) the
    hypothesis is that the two scores of an item could as well stand the other way round. Flipping the signs of
    differences tests it on the means, without a distribution, and is McNemar's exact test where all scores are 0 or 1;
    Wilcoxon's test is of ranks, not of means. Its interval is the test's own, the drops that it does not refuse at 5 %,
    and where fewer than ``FEWEST`` items differ, which the test can say nothing of, Newcombe's with the scores' shares
    in place of counts: too wide rather than none.
    """
    pairs = list(zip(first, second, strict=True))
    shares = [(min(a, b), max(0.0, a - b), max(0.0, b - a), 1.0 - max(a, b)) for a, b in pairs]
    both, lost, gained, neither = (math.fsum(column) for column in zip(*shares, strict=True))
    newcombe = paired_interval(both, lost, gained, neither)
    if all(score in (0.0, 1.0) for pair in pairs for score in pair):
        return PairedTest(MCNEMAR, mcnemar_p(int(lost), int(gained)), None, newcombe, NEWCOMBE)
    differences = [a - b for a, b in pairs]
    p, drawn = sign_flip_p(differences)
    if sum(difference != 0.0 for difference in differences) < FEWEST:
        return PairedTest(SIGN_FLIP, p, drawn, newcombe, NEWCOMBE)
    return PairedTest(SIGN_FLIP, p, drawn, sign_flip_interval(differences), SIGN_FLIP)


def mcnemar_p(lost: int, gained: int) -> float:
    """Two-sided exact P that two equally good runs differ in this way or a more lopsided one.

    min(1, 2 sum_{k <= min(b, c)} C(b + c, k) / 2^(b + c)) for the discordant counts b and c, the binomial form of
    McNemar, Psychometrika 12 (1947) 153-157. 1 where no item is discordant.
    """
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / (1 << n))


def wilson_interval(right: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion ``right`` / ``n``: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    Args:
        right: successes, or the sum of scores between 0 and 1; 0 to ``n``.
        n: trials, at least 1.
        z: normal quantile.
    """
    middle = 2 * right + z * z
    half = z * math.sqrt(z * z + 4 * right * max(0.0, n - right) / n)
    return max(0.0, (middle - half) / (2 * (n + z * z))), min(1.0, (middle + half) / (2 * (n + z * z)))


def sign_flip_p(differences: Sequence[float]) -> tuple[float, int | None]:
    """Two-sided P that random signs of ``differences`` make their sum as far from 0 as it is, or farther.

    Fisher's randomization test of paired values (The Design of Experiments, 1935, section 21): of all sign patterns
    where at most ``ENUMERATED`` differences are not 0, else of ``DRAWN`` random ones, always the same, and the observed
    one (Dwass, Ann. Math. Stat. 28 (1957) 181-187). Sums that differ by rounding only count as equal.

    Returns:
        P, and how many patterns were drawn, None where P is exact.
    """
    values = np.array([difference for difference in differences if difference != 0.0])
    sums, _ = _subsets(values)
    total = float(values.sum())
    # A subset whose signs are flipped takes twice its sum away.
    far = np.abs(total - 2 * sums) >= abs(total) - 1e-12 * float(np.abs(values).sum())
    count = int(far.sum())
    if len(values) <= ENUMERATED:
        return count / len(sums), None
    return (count + 1) / (DRAWN + 1), DRAWN


def sign_flip_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of ``differences``, of which at least ``FEWEST`` are not 0.

    The test of ``sign_flip_p`` turned around. Of differences less m, flipping a subset moves their sum beyond the
    observed one just where the subset's mean is beyond m; so the limits are the quantiles of the means of random
    subsets, each value in it or not with 1/2: the typical values of Hartigan, J. Am. Stat. Assoc. 64 (1969) 1303-1317,
    of which M cut the line into M + 1 parts that hold the mean with the same probability. Assumes, as the test does,
    that a difference lies as often so far above the mean as below.
    """
    sums, sizes = _subsets(np.array(differences))
    means = np.sort(sums[sizes > 0] / sizes[sizes > 0])
    tail = (len(means) + 1) // 40
    return float(means[tail - 1]), float(means[-tail])


def _subsets(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Sums and sizes of subsets of ``values``: of all of them, or of ``DRAWN`` random ones."""
    if len(values) <= ENUMERATED:
        taken = (np.arange(1 << len(values))[:, None] >> np.arange(len(values))) & 1
        return taken @ values, taken.sum(axis=1)
    # Of zeros, which most differences are, only their number in the subset matters.
    others = values[values != 0.0]
    generator = np.random.default_rng(0)
    sums, sizes = np.empty(DRAWN), generator.binomial(len(values) - len(others), 0.5, DRAWN)
    for start in range(0, DRAWN, ROWS):
        rows = slice(start, min(start + ROWS, DRAWN))
        taken = generator.integers(0, 2, (rows.stop - start, len(others)), dtype=np.int8)
        sums[rows] = taken @ others
        sizes[rows] += taken.sum(axis=1, dtype=np.int64)
    return sums, sizes


def paired_interval(both: float, lost: float, gained: float, neither: float, z: float = Z95) -> tuple[float, float]:
    """Score interval of (``lost`` - ``gained``) / n, the difference of two accuracies on the same n >= 1 items.

    Method 10 of Newcombe, Stat. Med. 17 (1998) 2635-2650: Wilson intervals of both accuracies, squared and added with
    the correlation phi, its numerator taken n/2 nearer to 0 where it is positive. Unlike Wald's interval it has a width
    where no item is discordant: agreement on few items proves little.

    Scores between 0 and 1 may be given as shares of an item, the smaller of its two to ``both``, what the larger one
    has more to ``lost`` or ``gained``. The interval is then too wide: the shares' variance is that of 0/1 scores.

    Args:
        both: items the first and the second got right.
        lost: items only the first got right.
        gained: items only the second got right.
        neither: items neither got right.
        z: normal quantile.
    """
    n = both + lost + gained + neither
    first, second = both + lost, both + gained
    (low_1, high_1), (low_2, high_2) = wilson_interval(first, n, z), wilson_interval(second, n, z)
    product = first * (gained + neither) * second * (lost + neither)
    covariance = both * neither - lost * gained
    if covariance > 0:
        covariance = max(0.0, covariance - n / 2)
    phi = covariance / math.sqrt(product) if product else 0.0

    def distance(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a - 2 * phi * a * b + b * b))

    p_1, p_2, difference = first / n, second / n, (lost - gained) / n
    return difference - distance(p_1 - low_1, high_2 - p_2), difference + distance(high_1 - p_1, p_2 - low_2)


def mean_interval(values: Sequence[float], intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean of independent values from theirs: distances to the limits are squared and added.

    Zou and Donner, Stat. Med. 27 (2008) 1693-1702 (MOVER), which is what ``paired_interval`` does at phi = 0.
    """
    n = len(values)
    mean = sum(values) / n
    below = math.sqrt(sum((value - low) ** 2 for value, (low, _) in zip(values, intervals, strict=True)))
    above = math.sqrt(sum((high - value) ** 2 for value, (_, high) in zip(values, intervals, strict=True)))
    return mean - below / n, mean + above / n
