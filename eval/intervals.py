"""Exact tests and score intervals for proportions. Knows counts only, neither runs nor items."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

Z95 = NormalDist().inv_cdf(0.975)
"""Standard normal quantile of a two-sided 95 % interval, 1.95996."""


def mcnemar_p(lost: int, gained: int) -> float:
    """Two-sided exact P that two equally good runs differ in this way or a more lopsided one.

    min(1, 2 sum_{k <= min(b, c)} C(b + c, k) / 2^(b + c)) for the discordant counts b and c, the binomial form of
    McNemar, Psychometrika 12 (1947) 153-157. 1 where no item is discordant.
    """
    n = lost + gained
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1))
    return min(1.0, 2 * tail / (1 << n))


def wilson_interval(right: float, n: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of a proportion ``right`` / ``n``: Wilson, J. Am. Stat. Assoc. 22 (1927) 209-212.

    Args:
        right: successes, or the sum of scores between 0 and 1; 0 to ``n``.
        n: trials, at least 1.
        z: normal quantile.
    """
    middle = 2 * right + z * z
    half = z * math.sqrt(z * z + 4 * right * max(0.0, n - right) / n)
    return max(0.0, (middle - half) / (2 * (n + z * z))), min(1.0, (middle + half) / (2 * (n + z * z)))


def paired_interval(both: int, lost: int, gained: int, neither: int, z: float = Z95) -> tuple[float, float]:
    """Score interval of (``lost`` - ``gained``) / n, the difference of two accuracies on the same n >= 1 items.

    Method 10 of Newcombe, Stat. Med. 17 (1998) 2635-2650: Wilson intervals of both accuracies, squared and added with
    the correlation phi, its numerator taken n/2 nearer to 0 where it is positive. Unlike Wald's interval it has a width
    where no item is discordant: agreement on few items proves little.

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
    product = first * (n - first) * second * (n - second)
    covariance = float(both * neither - lost * gained)
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
