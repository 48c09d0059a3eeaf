"""--run-code: without it nothing is asked, with it the answers are programs that run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.choice_rows import jsonl, write
from tests.support.commands import orin_run, refused
from tests.support.phi3_rows import HUMANEVAL
from tests.support.published import FILES


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A question whose answer stands between quotes, and may be anything, and one that the tiny model cannot answer."""
    anything = {**HUMANEVAL[0], "prompt": 'total = sum\n"""', "test": '"""\ncheck = lambda f: None'}
    return write(tmp_path / "data", {"humaneval/HumanEval.jsonl": jsonl(anything, HUMANEVAL[1])})


def test_without_it_nothing_is_asked(tmp_path: Path, data: Path, tiny_gguf: Path, tiny: Path) -> None:
    """By eval and by reference, before anything is written; plan and show run no code."""
    shared = ["humaneval", "--data", str(data)]
    for command, model in (("eval", tiny_gguf), ("reference", tiny)):
        done = orin_run(command, *shared, "--model", model, "--out", tmp_path / "run")
        refused(done, "humaneval runs the code that the model writes; --run-code allows it")
        assert not (tmp_path / "run").exists()
    assert orin_run("plan", *shared, "--model", tiny_gguf).returncode == 0
    assert orin_run("show", *shared, "--model", tiny_gguf, "--id", "HumanEval/1").returncode == 0


def test_answers_are_run(tmp_path: Path, data: Path, tiny_gguf: Path) -> None:
    """What the tiny model writes passes where anything does; a resumed run keeps the word."""
    out = tmp_path / "run"
    options = ("--model", tiny_gguf, "--data", data, "--out", out, "--max-new-tokens", "6", "--run-code")
    done = orin_run("eval", "humaneval", *options)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert {each["id"]: each["scores"] for each in found} == {
        "HumanEval/0": {"pass@1": 1.0},
        "HumanEval/1": {"pass@1": 0.0},
    }
    assert json.loads((out / "run.json").read_text())["options"]["run_code"] is True
    again = orin_run("eval", "--resume", "--out", out)
    assert again.returncode == 0, again.stderr


def test_mbpp_too(tmp_path: Path, tiny_gguf: Path) -> None:
    data, out = write(tmp_path / "data", FILES["mbpp"]), tmp_path / "run"
    options = ("--model", tiny_gguf, "--data", data, "--out", out, "--max-new-tokens", "4", "--run-code")
    done = orin_run("eval", "mbpp", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["tasks"]["mbpp"]["metrics"]["pass_at_1"]["value"] == 0.0
