"""What a deliberate break is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Break:
    """One change.

    Attributes:
        name: which number it makes wrong, and how.
        file: below the root.
        old: text that stands there once.
        new: what is put in its place.
        tests: node ids that pytest is given.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
