"""``orin-run show``: the questions that a run would ask, word for word, and no weights are loaded for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from orin_runner.cli.main import app
from orin_runner.model import llama
from orin_runner.workers.process import WorkerProcess
from tests.support.commands import orin_run, refused
from tests.support.small_data import small_data

LETTERS = "letters-003"


def shown(*words: str | Path) -> list[dict[str, Any]]:
    done = orin_run("show", *words, "--json")
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)["items"]
    return found


def test_no_weights_are_loaded(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither here nor in a worker."""

    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(llama.Model, "__init__", loaded)
    monkeypatch.setattr(WorkerProcess, "__init__", loaded)
    done = CliRunner().invoke(app, ["show", "exam", "--limit", "2", "--model", str(tiny_gguf)])
    assert done.exit_code == 0, done.output
    assert done.output.count("=== exam ") == 2


def test_a_scored_question_on_the_screen(tiny_gguf: Path) -> None:
    """Prompt line by line, choices with what stands before them, target."""
    (item,) = shown("exam", "--id", LETTERS, "--model", tiny_gguf)
    done = orin_run("show", "exam", "--id", LETTERS, "--model", tiny_gguf)
    assert done.stdout.splitlines() == [
        f"=== exam {LETTERS}, group letters: {item['n_tokens']} tokens",
        *item["prompt"].split("\n"),
        "---",
        *(f"choice {letter}, 1 token: ' {letter}'" for letter in "ABCD"),
        f"target: '{item['target']}'",
    ]
    assert item["prompt"].startswith("Passage: ")
    assert item["prompt"].endswith("\nD. class D\nAnswer:")


def test_a_conversation_is_shown_in_the_models_template(tiny_gguf: Path) -> None:
    (item,) = shown("exam", "--model", tiny_gguf)
    assert item["id"] == "text-000"
    assert item["prompt"].startswith("<|user|>\n\nRead the question")
    assert item["prompt"].endswith("<|end|>\n<|assistant|>\n")
    assert (item["choices"], item["until"], item["max_new_tokens"]) == (None, [], 500)
    done = orin_run("show", "exam", "--model", tiny_gguf)
    assert "greedy text up to a stop token, at most 500 tokens" in done.stdout
    (bounded,) = shown("exam", "--model", tiny_gguf, "--max-new-tokens", "7")
    assert bounded["max_new_tokens"] == 7


def test_choices_within_the_sentence_have_a_prompt_each(tiny_gguf: Path, tmp_path: Path) -> None:
    data = small_data(tmp_path)
    (item,) = shown("winogrande", "--data", data, "--id", "3", "--model", tiny_gguf)
    assert item["prompt"] is None
    one, two = item["prompts"]
    assert (one.split()[-1], two.split()[-1]) == ("Jorstone", "Golcloud")
    assert len(set(item["choices"])) == 1
    done = orin_run("show", "winogrande", "--data", data, "--id", "3", "--model", tiny_gguf)
    assert f"{one}\n---\n{two}\n---\nchoice 1, " in done.stdout


def test_which_questions(tiny_gguf: Path) -> None:
    """The first one; as many as --limit says, spread as in a run; those that are named, in that order."""
    assert [item["id"] for item in shown("exam", "--model", tiny_gguf)] == ["text-000"]
    assert [item["id"] for item in shown("exam", "--limit", "2", "--model", tiny_gguf)] == ["text-000", "text-240"]
    named = shown("exam", "--id", LETTERS, "--id", "text-001", "--id", LETTERS, "--model", tiny_gguf)
    assert [item["id"] for item in named] == [LETTERS, "text-001"]


def test_what_does_not_fit_is_said(tiny_gguf: Path, tmp_path: Path) -> None:
    """Of a truncated prompt how much the model does not see."""
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"prompt": "word " * 5000, "choices": ["x", "y"], "answer": "A"}) + "\n")
    (item,) = shown(path, "--model", tiny_gguf)
    assert item["truncated"] > 0
    done = orin_run("show", path, "--model", tiny_gguf)
    whole = item["n_tokens"] + item["truncated"]
    assert f"{whole:,} tokens, of which the model does not see the first {item['truncated']:,}" in done.stdout


def test_mistakes(tiny_gguf: Path) -> None:
    command = ("show", "exam", "--model", tiny_gguf)
    refused(orin_run(*command, "--id", "x"), "no question is called 'x'; they are called text-000, text-001, text-002")
    refused(orin_run(*command, "--id", "x", "--limit", "1"), "--id and --limit both say which questions")
