"""Deliberate breaks: changes of one line each that make a number wrong, and the tests that should see them.

``benchmarks/deliberate_breaks.py`` tries them. ``LISTED`` are those that a review once found no test to see.
"""

from __future__ import annotations

from benchmarks.breaks.comparison import COMPARISON
from benchmarks.breaks.counts import TOKENS
from benchmarks.breaks.doctor import DOCTOR
from benchmarks.breaks.ends import ENDS
from benchmarks.breaks.form import Break
from benchmarks.breaks.habits import HABITS
from benchmarks.breaks.listed import LISTED
from benchmarks.breaks.protocol import PROTOCOL
from benchmarks.breaks.questions import QUESTIONS
from benchmarks.breaks.report import REPORT
from benchmarks.breaks.screen import SCREEN
from benchmarks.breaks.shared import SHARED

BREAKS: tuple[Break, ...] = (
    *LISTED,
    *REPORT,
    *TOKENS,
    *COMPARISON,
    *PROTOCOL,
    *QUESTIONS,
    *SCREEN,
    *SHARED,
    *DOCTOR,
    *HABITS,
    *ENDS,
)

__all__ = ["BREAKS", "Break"]
