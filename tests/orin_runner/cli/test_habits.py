"""What users of other tools type: -h, -V, commas, groups, $ORIN_DATA, and examples that can be copied from --help."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from eval.tasks.registry import ALL, GROUPS, TASKS, names_in
from orin_runner.cli.main import app
from tests.support.choice_rows import GOLDEN, write
from tests.support.commands import convert, orin_run
from tests.support.paths import ROOT

GROUP: Any = typer.main.get_command(app)
"""typer brings a click of its own, which has no public name."""
COMMANDS: dict[str, Any] = GROUP.commands


def said(*words: str, **env: str) -> str:
    done = CliRunner().invoke(app, list(words), env=env)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_h_is_help(name: str) -> None:
    words = [name] if name else []
    assert said(*words, "-h") == said(*words, "--help") != ""


def test_h_of_the_converter() -> None:
    done = convert("-h")
    assert (done.returncode, done.stdout) == (0, convert("--help").stdout)


def test_v_is_version() -> None:
    assert said("-V") == said("--version")
    assert said("-V").startswith("orin-run ")
    assert orin_run("-V").stdout == said("-V"), "python -m orin_runner"


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_command_lines(name: str) -> None:
    """Each is one of its own command, and its words are taken."""
    command = COMMANDS[name]
    lines = [line for line in command.epilog.split("\n\n") if line != "Examples:"]
    assert lines
    shown = re.sub(r"\s+", " ", said(name, "--help"))
    for line in lines:
        words = shlex.split(line)
        assert words[:2] == ["orin-run", name]
        assert line in shown
        command.make_context(name, [word for word in words[2:] if word != "--resume"])


def test_make_help_has_every_target() -> None:
    """A line each, in the Makefile's own words."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    assert targets is not None
    words = ["make", "--no-print-directory", "help"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert {line.split()[1] for line in done.stdout.splitlines()} == {*targets[1].split()}


def test_several_names_in_one_word(tmp_path: Path) -> None:
    """Commas, groups, each task once; a file may have a comma in its name."""
    assert names_in(["mmlu,boolq", "mmlu", "piqa,"]) == ["mmlu", "boolq", "piqa"]
    assert names_in(["challenge2024", "drop,siqa"])[-2:] == ["drop", "siqa"]
    assert names_in(["a.jsonl,b.csv"]) == ["a.jsonl", "b.csv"]
    file = tmp_path / "a,b.jsonl"
    assert names_in([f"{file},mmlu"]) == [*str(file).split(","), "mmlu"]
    file.touch()
    assert names_in([str(file)]) == [str(file)]


def test_groups_are_of_tasks() -> None:
    """phi3: every task that Phi-3's report has a number of worked examples for, each benchmark once."""
    assert not GROUPS.keys() & TASKS.keys()
    counted = {task.name for task in ALL if task.phi3_shots is not None}
    assert set(GROUPS["phi3"]) == counted - {"bbh_direct", "gsm8k_cot"}
    assert len(GROUPS["phi3"]) == 19
    assert {"challenge", "mmlu", "drop"} < set(GROUPS["challenge2024"]) <= TASKS.keys()
    listed = said("tasks")
    for name, tasks in GROUPS.items():
        assert f"group {name}: {', '.join(tasks)}" in listed


def test_commas_run_several_tasks(tmp_path: Path, tiny_gguf: Path) -> None:
    """And run.json says which."""
    data = write(tmp_path / "data", {**GOLDEN["piqa"].files, **GOLDEN["boolq"].files})
    out = tmp_path / "run"
    said("eval", "piqa,boolq", "--data", str(data), "--model", str(tiny_gguf), "--out", str(out))
    header = json.loads((out / "run.json").read_text())
    assert header["settings"]["tasks"] == header["options"]["tasks"] == ["piqa", "boolq"]


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"options": {"data": "/ours"}}, "/ours"),
        ({"options": {"data": None}}, None),  # it was read from the hub
        ({}, "/environment"),  # a run from before --resume took anything
    ],
)
def test_data_of_a_resumed_run_is_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, header: dict[str, Any], data: str | None
) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"settings": {"tasks": ["mmlu"], "limit": 3}, **header}))
    monkeypatch.setenv("ORIN_DATA", "/environment")
    context = COMMANDS["eval"].make_context("eval", ["--resume", "--out", str(tmp_path)])
    tasks, limit, found = (context.params[name] for name in ("tasks", "limit", "data"))
    assert (list(tasks), limit) == (["mmlu"], "3")
    assert found == (None if data is None else Path(data))


def test_data_of_the_environment(tmp_path: Path) -> None:
    """It counts where --data is not given."""
    named = write(tmp_path / "named", GOLDEN["piqa"].files)
    data = write(tmp_path / "environment", GOLDEN["boolq"].files)

    def found(*words: str, **env: str) -> set[str]:
        rows = json.loads(said("tasks", "--json", *words, **env))["tasks"]
        return {row["name"] for row in rows if row["rows"] is not None} - {"exam"}

    assert found(ORIN_DATA=str(data)) == {"boolq"}
    assert found("--data", str(named), ORIN_DATA=str(data)) == {"piqa"}
    assert found(ORIN_DATA="") == set()
