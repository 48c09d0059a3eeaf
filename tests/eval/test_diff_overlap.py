"""``diff`` of runs that do not ask the same: common items are compared, other questions are refused by name."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner.cli.main import main
from orin_runner.errors import UserError
from tests.support.predictions import prediction


def run_of(directory: Path, items: list[Any], template: str | None = None, **settings: Any) -> Run:
    header = {"engine": "made", "settings": settings, "model": {"chat_template_sha256": template}}
    with RunWriter(directory, header) as writer:
        for item in items:
            writer.write(item)
    return Run.open(directory)


def shell(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: Any) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["orin-run", *map(str, words)])
    with pytest.raises(SystemExit) as left:
        main()
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def test_common_items_are_compared_and_the_others_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Limits of 4 and 8: the drop is that of the 3 items of both, not of the wrong ones that only one run has."""
    exam = [replace(prediction(i), task="exam") for i in range(2)]
    run = run_of(tmp_path / "a", [*(prediction(i) for i in range(3)), prediction(9, "B"), *exam], limit=4)
    reference = run_of(tmp_path / "b", [*(prediction(i, "AAB"[i]) for i in range(3)), *map(prediction, range(3, 8))])
    found = diff(run, reference)
    assert list(found["tasks"]) == ["mmlu"]
    section = found["tasks"]["mmlu"]
    assert (section["items"], section["accuracy"], section["reference_accuracy"]) == (3, 1.0, 2 / 3)
    assert found["all"]["items"] == 3
    assert found["only_in_run"] == {"mmlu": 1, "exam": 2}
    assert found["only_in_reference"] == {"mmlu": 5}
    assert found["differences"] == []
    status, out, err = shell(capsys, monkeypatch, "diff", tmp_path / "a", tmp_path / "b", "--json")
    assert status == 0
    assert json.loads(out)["only_in_reference"] == {"mmlu": 5}
    assert [line.removeprefix("warning: ") for line in err.splitlines()] == [
        f"1 mmlu items of {tmp_path / 'a'} are not in {tmp_path / 'b'}: they are not compared",
        f"2 exam items of {tmp_path / 'a'} are not in {tmp_path / 'b'}: they are not compared",
        f"5 mmlu items of {tmp_path / 'b'} are not in {tmp_path / 'a'}: they are not compared",
    ]


OWN = {"sha256": "a" * 64, "template_sha256": None, "fewshot_sha256": None}
MINE = "mine.jsonl"


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"shots": 5}, {}, "different --shots: 5 and default"),
        ({"shots": 5, "chat": True}, {}, "different --shots: 5 and default; different --chat: on and default"),
        (
            {"questions": {MINE: OWN}},
            {"questions": {MINE: {**OWN, "sha256": "b" * 64}}},
            f"different questions of {MINE}: aaaaaaaaaaaa and bbbbbbbbbbbb",
        ),
        (
            {"questions": {MINE: {**OWN, "template_sha256": "c" * 64}}},
            {"questions": {MINE: OWN}},
            f"different --template of {MINE}: cccccccccccc and none",
        ),
        (
            {"questions": {MINE: OWN}},
            {"questions": {MINE: {**OWN, "fewshot_sha256": "d" * 64}}},
            f"different --fewshot of {MINE}: none and dddddddddddd",
        ),
        ({"template": "e" * 64}, {"template": "f" * 64}, "different chat templates: eeeeeeeeeeee and ffffffffffff"),
    ],
    ids=["shots", "several", "questions", "template", "fewshot", "chat-template"],
)
def test_other_questions_are_refused_by_name_unless_anyway(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    one: dict[str, Any],
    other: dict[str, Any],
    said: str,
) -> None:
    """With it they are compared, and the difference is a warning and in the result."""
    run_of(tmp_path / "a", [prediction(0, task=MINE, tokens_sha256="1")], **one)
    run_of(tmp_path / "b", [prediction(0, "B", task=MINE, tokens_sha256="2")], **other)
    folders = (tmp_path / "a", tmp_path / "b")
    status, out, err = shell(capsys, monkeypatch, "diff", *folders)
    assert (status, out) == (2, "")
    assert f"error: the runs asked with {said}; use the same " in err
    assert "or --anyway" in err
    status, out, err = shell(capsys, monkeypatch, "diff", *folders, "--anyway", "--json")
    assert status == 0
    found = json.loads(out)
    assert "; ".join(found["differences"]) == said
    assert found["tasks"][MINE]["items"] == 1
    assert all(f"warning: {folders[0]} and {folders[1]} asked with {line}" in err for line in said.split("; "))


def test_files_of_tasks_that_only_one_run_has_do_not_matter(tmp_path: Path) -> None:
    run = run_of(tmp_path / "a", [prediction(0), prediction(0, task=MINE)], questions={MINE: OWN})
    reference = run_of(tmp_path / "b", [prediction(0)])
    assert diff(run, reference)["only_in_run"] == {MINE: 1}


def test_other_rows_are_refused_whatever_is_asked_for(tmp_path: Path) -> None:
    """Ids of another split name other rows."""
    run = run_of(tmp_path / "a", [prediction(0)], splits={"mmlu": "dev"})
    reference = run_of(tmp_path / "b", [prediction(0)], splits={"mmlu": "test"})
    with pytest.raises(UserError, match="different splits of mmlu: dev and test"):
        diff(run, reference, anyway=True)
