"""Where a window ends: an item as long as that is within it."""

from __future__ import annotations

from eval.diff import Pair, compare
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
