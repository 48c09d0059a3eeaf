"""``docs/tasks.md`` and ``docs/cli.md`` are what ``docs/generate.py`` gives, and leave no task and no option out."""

from __future__ import annotations

import importlib.util
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from eval.tasks.base import LoadOptions
from eval.tasks.multiple_choice import MultipleChoice
from eval.tasks.registry import ALL
from orin_runner.cli.main import app
from orin_runner.errors import UserError
from tests.support.paths import ROOT

DOCS = ROOT / "docs"
REGENERATE = "python docs/generate.py writes it"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def commands() -> dict[str, Any]:
    """Every command by the title of its section; typer brings a click of its own, which has no public name."""
    group: Any = typer.main.get_command(app)
    return {"orin-run": group, **{f"orin-run {name}": command for name, command in group.commands.items()}}


def test_tasks_page(generator: ModuleType) -> None:
    assert page("tasks.md") == generator.tasks_page(), REGENERATE


def test_every_task_has_a_row_and_a_section() -> None:
    text = page("tasks.md")
    for task in ALL:
        assert f"\n| [{task.name}](#{task.name}) |" in text
        assert f"\n## {task.name}\n" in text


def test_scoring_column(generator: ModuleType, tmp_path: Path) -> None:
    """The tasks that refuse letters are those that the page does not mark."""
    for task in ALL:
        takes_letters = isinstance(task, MultipleChoice)  # eval.evaluate.prepare refuses the others
        if takes_letters:
            with pytest.raises(UserError) as refusal:
                task.load(LoadOptions(tmp_path / "nothing", scoring="letters"))
            takes_letters = refusal.value.hint != "omit --scoring"
        assert generator.scoring_of(task).endswith("*") is takes_letters, task.name


def test_cli_page(generator: ModuleType) -> None:
    text = page("cli.md")
    if f"(typer {version('typer')})" not in text:
        pytest.skip("another typer lays --help out otherwise")
    assert text == generator.cli_page(), REGENERATE


def test_every_option_stands_in_its_section() -> None:
    sections = dict(part.split("\n", 1) for part in page("cli.md").split("\n## ")[1:])
    found = commands()
    assert set(sections) == set(found)
    seen = set()
    for title, command in found.items():
        options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
        for name in (name for option in options for name in (*option.opts, *option.secondary_opts)):
            assert f" {name} " in sections[title], f"{title} {name}: {REGENERATE}"
            seen.add(name)
    assert {"--version", "--no-draft", "--max-drop", "--outtype", "-v"} <= seen
