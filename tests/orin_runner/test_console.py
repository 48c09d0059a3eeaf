"""Progress on a terminal that is none: plain lines."""

from __future__ import annotations

import pytest

from orin_runner import console


def test_plain_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Not more often than every ten seconds; a quarter in 600 s leaves 1800 s, less than 1 % says nothing."""
    clock = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: clock)
    with console.Notes().progress("mmlu", 1.0) as bar:
        clock = 9.0
        bar.update(0.01, "too early")
        clock = 20.0
        bar.update(0.009, "begun")
        clock = 600.0
        bar.update(0.25, "3/12 items")
        clock = 605.0
        bar.update(0.26, "too early")
    with console.Notes().progress("loading", None) as bar:
        clock = 620.0
        bar.update(3)
    assert capsys.readouterr().err.splitlines() == [
        "mmlu 1 % begun",
        "mmlu 25 % 3/12 items, 0:30:00 left",
        "loading",
    ]
