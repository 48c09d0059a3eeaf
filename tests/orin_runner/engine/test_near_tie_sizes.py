"""How much of the measured noise a near-tie is, by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from orin_runner.engine.noise import TextNoise, largest_difference, score_noise
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.requests import ScoreRequest, Tokens
from orin_runner.runner import Noise


class Again:
    """Rows as they are computed again: what is given, or rows in which every token is as likely as another."""

    def __init__(self, *rows: np.ndarray) -> None:
        self._rows = rows

    def canonical_rows(self, _: Sequence[Tokens]) -> Iterator[np.ndarray]:
        yield from self._rows

    def rows_alone(self, _: Sequence[Tokens], n_last: Sequence[int]) -> Iterator[np.ndarray]:
        yield from (np.zeros((n, 4), dtype=np.float32) for n in n_last)


def row(*values: float) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_a_constant_makes_no_difference() -> None:
    """Logits that differ by one number in all tokens are the same log-probabilities."""
    assert largest_difference(row(1, 2, 3), row(6, 7, 8)) == pytest.approx(0.0, abs=1e-6)
    moved = largest_difference(row(0, 0), row(0, np.log(3)))
    assert moved == pytest.approx(np.log(2)), "a half becomes a quarter"


def test_a_lead_is_a_near_tie_below_three_times_the_largest_difference() -> None:
    """Of all rows that were compared, not of the last."""
    same, other = row(0, 0), row(0, np.log(3))
    noise = TextNoise(Again(other, same))  # type: ignore[arg-type]
    noise.measure([(np.array([1]), same), (np.array([2]), same)])
    assert (noise.found.n, noise.found.largest) == (2, pytest.approx(np.log(2)))
    assert noise.found.rms == pytest.approx(np.log(2) / np.sqrt(2))
    assert noise.near_tie == pytest.approx(3 * np.log(2))
    assert TextNoise(Again()).near_tie == pytest.approx(3 * 0.005)  # type: ignore[arg-type]


def test_a_score_is_a_near_tie_below_six_root_mean_squares() -> None:
    """Two tokens moved by 0.3 and 0.4 from log 1/4: root mean square 0.3536; of none, or of less, 0.002.

    One path was computed again, which makes it 5.3 times as wide.
    """
    request = ScoreRequest(np.array([1, 2]), (np.array([3]), np.array([0])))
    wanted = WantedTokens([request])
    quarter = np.log(1 / 4)
    sizes = {"n_computed": 2, "most_rows": 8}
    noise = score_noise(Again(), wanted, np.array([quarter + 0.3, quarter - 0.4]), **sizes)  # type: ignore[arg-type]
    assert (noise.n, noise.largest, noise.rms) == (2, pytest.approx(0.4), pytest.approx(np.sqrt(0.125)))
    assert noise.near_tie == pytest.approx(5.3 * 6 * np.sqrt(0.125))
    noise = score_noise(Again(), wanted, np.array([quarter, quarter]), **sizes)  # type: ignore[arg-type]
    assert noise.near_tie == pytest.approx(5.3 * 6 * 0.002)


def test_two_samples_are_one() -> None:
    """Three numbers of root mean square 1 and one of 3: sqrt(12 / 4); the largest of each limit."""
    both = Noise(3, 1.0, 1.5, 9.0).together(Noise(1, 3.0, 3.0, 7.0))
    assert both == Noise(4, pytest.approx(np.sqrt(3)), 3.0, 9.0)
    assert Noise().together(Noise(1, 3.0, 3.0, 7.0)) == Noise(1, 3.0, 3.0, 7.0)
    assert Noise().together(Noise()) == Noise()
