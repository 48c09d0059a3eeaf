"""What a wrong value is said to have wrong."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from typing_extensions import TypedDict

from orin_runner.schema import Schema, bounded


class Inner(TypedDict):
    text: str


class Outer(TypedDict):
    inner: list[Inner]
    label: int | str
    answer: Literal["A", "B"]


WHOLE: dict[str, Any] = {"inner": [{"text": "x"}], "label": 1, "answer": "A", "further": None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inner": [{"text": "x"}, {}]}, "no 'inner.1.text'"),
        ({"inner": [{"text": 3}]}, "'inner.0.text' is 3 and should be a valid string"),
        ({"inner": "x"}, "'inner' is 'x' and should be a valid list"),
        ({"label": 1.5}, "'label' is 1.5 and should be a valid integer or should be a valid string"),
        ({"label": True}, "'label' is True and should be a valid integer or should be a valid string"),
        ({"label": []}, "'label' should be a valid integer or should be a valid string"),
        ({"answer": "C" * 1000}, "'answer' is 'CCCCCCCC"),
    ],
)
def test_the_key_is_named(changes: dict[str, Any], said: str) -> None:
    """In one short line, without the names of the types that were tried."""
    schema = Schema(Outer)
    assert schema.check(WHOLE) == {key: WHOLE[key] for key in ("inner", "label", "answer")}
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        schema.check({**WHOLE, **changes})
    line = str(error.value)
    assert len(line) < 200
    assert "\n" not in line


def test_numbers_that_can_be_added_up() -> None:
    assert bounded([1, -2.5, None])
    assert not any(bounded([bad]) for bad in (float("nan"), float("inf"), 1e300, 10**400))
