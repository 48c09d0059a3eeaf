"""Commands on a terminal of 80, 100 and 120 columns, from end to end."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import typer.main
import yaml
from rich.cells import cell_len

from orin_runner.cli.main import app
from orin_runner.console import print_table
from tests.support.choice_rows import jsonl
from tests.support.commands import orin_run
from tests.support.paths import REFERENCE, TINY
from tests.support.published import MESSAGE
from tests.support.terminal import on_terminal, shown
from tests.support.widths import WIDTHS, check, check_lines, command, said, words

OFFLINE = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_all_names_of_options(name: str) -> None:
    lines = said(command(name, "--help"), 80)
    check_lines(lines, 80)
    options = {
        each for param in COMMANDS[name].params if not param.hidden for each in (*param.opts, *param.secondary_opts)
    }
    assert {each for each in options if each.startswith("--")} <= set(re.split(r"[\s,]+", " ".join(lines)))


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks",),
        ("tasks", "phi3"),
        ("tasks", "mmlu", "challenge"),
        ("diff", "float32", "bfloat16"),
        ("diff", "float32", "bfloat16", "float32"),
        ("report", "float32", "bfloat16"),
        ("export", "float32"),
    ],
    ids=" ".join,
)
def test_without_a_model(arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shutil.copytree(REFERENCE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    check(command(*arguments))


@pytest.mark.parametrize("arguments", [("doctor",), ("plan", "exam", "-q")])
def test_with_a_model(arguments: tuple[str, ...], tiny_gguf: Path) -> None:
    """What is measured differs each time."""
    check(command(*arguments, "--model", tiny_gguf), kept=words)


def test_a_file_that_is_inspected(tiny_gguf: Path) -> None:
    check(command("inspect", tiny_gguf, "-q"), whole=[tiny_gguf])


def test_questions_that_are_shown(tiny_gguf: Path, tmp_path: Path) -> None:
    """The prompt, choices and target are word for word, as long as they are; the lines around them fit."""
    texts = ["a  long  prompt " * 10, "a  choice " * 12, "another  choice " * 12]
    path = tmp_path / "own.jsonl"
    path.write_text(jsonl({"prompt": texts[0], "choices": texts[1:], "answer": "A", "id": "x" * 60}))
    questions = command("show", path, "--model", tiny_gguf, "-q")
    whole = [text.rstrip() for text in texts]
    check(questions, whole=whole)
    assert all(any(text in line for line in said(questions, 80)) for text in whole)


def test_shards_that_are_merged(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for part in ("1", "2"):
        done = orin_run("eval", "exam", "--limit", "8", "--model", tiny_gguf, "--shard", f"{part}/2", "--out", part)
        assert done.returncode == 0, done.stderr
    merged = (command("merge", "1", "2", "--out", "all"), lambda: shutil.rmtree("all"))
    check(lambda: [each() for each in merged])


def test_a_run_of_the_challenge(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which prints more than others."""
    (tmp_path / "challenge.jsonl").write_text(jsonl(MESSAGE, MESSAGE))
    monkeypatch.chdir(tmp_path)
    options = ("--data", "challenge.jsonl", "--model", tiny_gguf, "--max-new-tokens", "4")
    for columns in WIDTHS:
        status, written = on_terminal("eval", "challenge", *options, "--out", str(columns), columns=columns)
        assert status == 0, written
        check_lines([line.rstrip() for line in shown(written)], columns, [tiny_gguf])
        assert "clock, without data" in written


def test_a_test_of_the_tree(tiny_gguf: Path) -> None:
    status, written = on_terminal("selftest", "--requests", "2", "--model", tiny_gguf, columns=80)
    assert status == 0, written
    check_lines([line.rstrip() for line in shown(written)], 80, [tiny_gguf])
    assert "passed" in written


def test_a_run_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    status, written = on_terminal("reference", "exam", "--limit", "2", "--model", TINY, "--out", "run", columns=80)
    assert status == 0, written
    check_lines([line.rstrip() for line in shown(written)], 80)
    assert re.search(r"exam +2 of 480 +exact_match ", written)


def test_a_run_of_the_harness(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bars and its table, and nothing of git, of which it asks which commit the folder is."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_text(jsonl({"q": "Which of these is a fish?", "choices": ["whale", "trout"], "answer": 1}))
    task = {
        "task": "a_task_whose_name_is_longer_than_a_column_of_a_table_may_be",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": "rows.jsonl"}, "cache_dir": str(tmp_path / "cache")},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{q}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
    }
    Path("task.yaml").write_text(yaml.safe_dump(task))
    options = ("--tasks", "task.yaml", "--model", tiny_gguf, "--out", "run")
    status, written = on_terminal("lm-eval", *options, columns=80, env=OFFLINE)
    assert status == 0, written
    check_lines([line.rstrip() for line in shown(written)], 80, [tiny_gguf])
    assert "git" not in written
    assert re.search(r"a_task_whose.* +acc +↑ +[01] +±", written)


def test_the_harness_tables() -> None:
    """As it has them, with its groups above their tasks."""
    from eval.harness.evaluation import tables

    of_group = {"acc,none": 0.123456, "acc_stderr,none": 0.0123, "alias": "many_subjects_of_all_kinds"}
    of_task = {"exact_match,strict-match": 0.5, "exact_match_stderr,strict-match": "N/A", "alias": "long_" * 12}
    results = {
        "results": {"many": of_group, "one": of_task},
        "groups": {"many": of_group},
        "group_subtasks": {"many": ["one"]},
        "versions": {"many": 2, "one": 1},
        "n-shot": {"one": 5},
        "higher_is_better": {"many": {"acc": True}, "one": {"exact_match": True}},
    }
    head, *rows = tables(results)[0]
    assert head == ["Tasks", "Version", "Filter", "n-shot", "Metric", "", "Value", "", "Stderr"]
    assert rows[0] == ["many_subjects_of_all_kinds", "2", "none", "", "acc", "↑", "0.1235", "±", "0.0123"]
    assert rows[1][0] == f" - {'long_' * 12}"
    assert tables(results)[1][0][0] == "Groups"
    check(lambda: print_table("", head, rows, text_columns=(0, 2, 4, 5, 7)))


def test_a_run_on_a_terminal(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progress line, too, whose end is the time left."""
    monkeypatch.chdir(tmp_path)
    status, written = on_terminal("eval", "exam", "--limit", "8", "--model", tiny_gguf, "--out", "run", columns=80)
    lines = [line.rstrip() for line in shown(written)]
    assert status == 0, written
    assert [line for line in lines if "…" in line] == []
    assert [line for line in lines if cell_len(line) > 80 and str(tiny_gguf) not in line] == []
    assert any(re.fullmatch(r"exam .* %  ?(.* )?(\d:\d\d:\d\d|-:--:--)", line) for line in lines), lines
    assert re.fullmatch(r"exam +8 of 480 +exact_match +\d+\.\d\d% ± \d+\.\d\d%", lines[-4]), lines
    assert lines[-2:] == ["proof: verified", "run written to run"]


@pytest.mark.parametrize("plain", [False, True])
def test_no_color(*, plain: bool) -> None:
    """An error is red on a terminal, and not where ``NO_COLOR`` says so."""
    status, written = on_terminal("tasks", "none", columns=80, env={"NO_COLOR": "1"} if plain else {})
    assert status == 2, written
    assert "error: " in written
    assert ("\x1b[31m" in written) is not plain
