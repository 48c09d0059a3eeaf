"""Texts as a page holds them: what a reader could not see of them is spelled out."""

from __future__ import annotations

from typing import Any

from orin_runner.console import printable

KEPT = "\t\n\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"
"""A page shows lines as lines, and needs the joiners to spell Persian, Hindi and many emoji."""


def visible(value: Any) -> Any:
    """A text with Python's escapes for what cannot be seen (``printable``), but for ``KEPT``; all else as it is.

    Markup, a type of text of the template engine's, is the template's own and stays.
    """
    if type(value) is not str or value.replace("\n", "").isprintable():  # as nearly all are, at a tenth of the time
        return value
    return printable(value, KEPT)


def all_visible(value: Any) -> Any:
    """A JSON value with all its texts, keys among them, ``visible``."""
    if isinstance(value, dict):
        return {visible(key): all_visible(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [all_visible(inner) for inner in value]
    return visible(value)
