"""Commands that the documents show are commands of today, with options that they have."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from orin_runner.cli.main import app
from tests.support.paths import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
GROUP: Any = typer.main.get_command(app)  # typer brings a click of its own, which has no public name
HARNESS = frozenset({"lm-eval"})
"""Commands that hand on what they do not know."""


def shown(page: Path) -> list[list[str]]:
    """Command and arguments of each ``orin-run`` that begins a line of a block."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^(?:\$ )?(?:\.venv/bin/)?orin-run (.*)$", "\n".join(blocks), re.MULTILINE)
    return [shlex.split(line.partition(" #")[0].replace("|", "/")) for line in lines]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_there(page: Path) -> None:
    for name, *arguments in shown(page):
        assert name in GROUP.commands, (name, arguments)
        parameters = GROUP.commands[name].params
        known = {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}
        options = {argument.partition("=")[0] for argument in arguments if argument.startswith("-")}
        assert name in HARNESS or options <= known, (name, options - known)


def test_something_is_looked_at() -> None:
    assert sum(len(shown(page)) for page in PAGES) > 50
