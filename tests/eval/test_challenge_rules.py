"""What ``orin-run eval`` says of the challenge's clocks and of settings its rules could be held against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.challenge_rules import capped, rule_warnings
from eval.evaluate import Prepared, prepare
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import GenerateRequest
from tests.support.commands import orin_run


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def exam(gguf: Path) -> Prepared:
    return prepare(get_task("exam"), LoadOptions(limit=8), Tokenizer.from_gguf(GGUFFile.open(gguf)))


def bounds(item: Prepared) -> set[int]:
    return {q.request.max_new_tokens for q in item.questions if isinstance(q.request, GenerateRequest)}


def test_a_bound_lowers_and_never_raises(exam: Prepared) -> None:
    """A task's own bound is part of its protocol."""
    assert bounds(capped(exam, None)) == bounds(capped(exam, 1000)) == {500}
    assert bounds(capped(exam, 20)) == {20}
    assert [q.doc for q in capped(exam, 20).questions] == [q.doc for q in exam.questions]


def test_a_bound_keeps_all_else_of_a_request(exam: Prepared) -> None:
    """Stop texts and choices to verify, too."""
    (question, *_) = (q for q in exam.questions if isinstance(q.request, GenerateRequest))
    full = replace(question, request=replace(question.request, until=("Q", "\n\n")))
    (found,) = capped(replace(exam, questions=[full]), 20).questions
    assert found.request == replace(full.request, max_new_tokens=20)


def test_each_risk_has_its_line(exam: Prepared) -> None:
    """Nothing to say of the rules' own settings; one line for each that differs."""
    nothing = {"quantized": False, "window_dropped": False, "prompt_cache": False}
    assert rule_warnings(exam, 0, **nothing) == []
    for said, found in {
        "max_new_tokens 499": rule_warnings(capped(exam, 499), 0, **nothing),
        "prompt cache": rule_warnings(exam, 0, **{**nothing, "prompt_cache": True}),
        "1,234 weights": rule_warnings(exam, 1234, **nothing),
        "nothing says": rule_warnings(exam, None, **nothing),
        "no submission": rule_warnings(exam, None, **{**nothing, "quantized": True}),
        "sliding window": rule_warnings(exam, 0, **{**nothing, "window_dropped": True}),
    }.items():
        assert len(found) == 1
        assert said in found[0]


def test_the_2023_protocol_has_its_rules(exam: Prepared) -> None:
    """The same risks, under that year's name; a task in no challenge's form has none."""
    item = replace(exam, task=get_task("hellaswag"))
    risks = {"quantized": False, "window_dropped": False, "prompt_cache": True}
    assert rule_warnings(item, 1234, **risks) == []
    found = rule_warnings(replace(item, protocol="2023"), 1234, **risks)
    assert [line.split(": ")[0] for line in found] == ["hellaswag, against the 2023 rules"] * 2


def test_eval_shows_clocks_and_risks(gguf: Path, tmp_path: Path, orin_data: Path) -> None:
    """Both readings of the 2024 clock and 2023's, in total and per item, on the screen and in the files."""
    data = orin_data / "cechallenge2024" / "test_dataset.jsonl"
    arguments = ("--data", str(data), "--limit", "6", "--max-new-tokens", "4", "--out", str(tmp_path / "run"))
    done = orin_run("eval", "challenge", "--model", str(gguf), *arguments)
    assert done.returncode == 0, done.stderr
    assert "max_new_tokens 4 is less than the 500" in done.stderr
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [line for line in report["warnings"] if "max_new_tokens 4" in line] == report["warnings"] != []
    section = report["tasks"]["challenge"]
    clocks = section["clocks"]
    before = clocks["data"] + clocks["tokenize"]
    assert clocks["challenge 2024"] - clocks["challenge 2024 without data"] == pytest.approx(before, abs=1e-3)
    assert clocks["challenge 2023"] >= clocks["challenge 2024"] + clocks["load"]
    for clock in ("challenge 2024", "challenge 2024 without data", "challenge 2023"):
        assert f"{clocks[clock]:.3f} s, {clocks[clock] / 6:.4f} s an item" in done.stdout
    assert f"{section['greedy']['decode_steps_per_text']:.2f} decode steps a text" in done.stdout
    assert f"{section['greedy']['drafted_share']:.1%} of tokens were verified drafts" in done.stdout
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 6
