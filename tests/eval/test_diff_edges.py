"""What ``diff`` counts at its edges: where a window ends, and two answers that are both wrong."""

from __future__ import annotations

from eval.diff import compare
from eval.pairs import Pair
from tests.support.predictions import prediction


def test_an_item_as_long_as_the_window_is_within_it() -> None:
    """Its last token sees its first; one token more, and the first is out of sight."""
    pairs = [
        Pair(prediction(i, "A", n_context=n), prediction(i, "B", n_context=n)) for i, n in enumerate((255, 256, 257))
    ]
    found = compare(pairs, 256, 256)
    assert (found["within_window"]["items"], found["beyond_window"]["items"]) == (2, 1)
    assert {flip["n_context"]: flip["cause"] for flip in found["flips"]} == {
        255: "unexplained",
        256: "unexplained",
        257: "window",
    }


def test_agreement_is_of_answers() -> None:
    """Of four items one has the same answer, two another wrong one; one is lost."""
    answers = (("A", "A"), ("B", "C"), ("C", "D"), ("B", "A"))
    pairs = [Pair(prediction(i, one), prediction(i, other)) for i, (one, other) in enumerate(answers)]
    found = compare(pairs, None)
    assert (found["agreement"], found["flips_in_all"]) == (0.25, 3)
    assert (found["lost"], found["gained"], found["drop_points"]) == (1, 0, 25.0)
