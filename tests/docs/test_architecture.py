"""docs/architecture.md names every file."""

from __future__ import annotations

import pytest

from tests.support.paths import ROOT

TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TASKS = {"base", "doc", "generation", "multiple_choice", "registry"}


@pytest.mark.parametrize("package", ["convert", "eval", "orin_runner"])
def test_every_file_has_its_words(package: str) -> None:
    """But for the tasks, which are one file a benchmark, and the files that only start a program."""
    for path in (ROOT / package).rglob("*.py"):
        single_task = path.parent.name == "tasks" and path.parent.parent.name == "eval" and path.stem not in TASKS
        if not path.stem.startswith("__") and not single_task:
            assert f"`{path.name}`" in TEXT or f"/{path.name}`" in TEXT, path
