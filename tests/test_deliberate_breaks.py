"""The list of deliberate breaks does not rot: what each would change stands in its file, once."""

from __future__ import annotations

import re

import pytest

from benchmarks.breaks import BREAKS, Break
from tests.support.paths import ROOT


@pytest.mark.parametrize("one", BREAKS, ids=lambda one: one.name)
def test_a_break_can_be_made(one: Break) -> None:
    """And the tests that should see it are there."""
    assert one.old != one.new
    assert (ROOT / one.file).read_text(encoding="utf-8").count(one.old) == 1
    for test in one.tests:
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text(encoding="utf-8")
        assert re.search(rf"^ *def {re.escape(name.rpartition('::')[2])}\(", text, re.MULTILINE), test


def test_names_tell_them_apart() -> None:
    assert len({one.name for one in BREAKS}) == len(BREAKS)
