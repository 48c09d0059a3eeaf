"""Every mistake of the user is said together with what to try next."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

CODE = [path for room in ("convert", "eval", "orin_runner") for path in sorted((ROOT / room).rglob("*.py"))]


def without_hint(source: str) -> Iterator[int]:
    """Lines on which a ``UserError`` is made without a hint, or with an empty one."""
    for node in ast.walk(ast.parse(source)):
        name = node.func if isinstance(node, ast.Call) else None
        if not (isinstance(name, ast.Name) and name.id == "UserError"):
            continue
        hint = (node.args + [keyword.value for keyword in node.keywords if keyword.arg == "hint"])[1:]
        if not hint or (isinstance(hint[0], ast.Constant) and not hint[0].value):
            yield node.lineno


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_mistake_has_a_next_step(path: Path) -> None:
    """A message alone leaves the user where he is."""
    assert list(without_hint(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    ("call", "lines"),
    [
        ('UserError("bad")', [1]),
        ('UserError("bad", None)', [1]),
        ('UserError("bad", "")', [1]),
        ('UserError("bad", hint=None)', [1]),
        ('UserError("bad", "do this")', []),
        ('UserError("bad", hint=f"do {this}")', []),
        ('f(UserError("bad"), "do this")', [1]),
    ],
)
def test_what_is_no_hint(call: str, lines: list[int]) -> None:
    """None, nothing, or somebody else's argument."""
    assert list(without_hint(call)) == lines
