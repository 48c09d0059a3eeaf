"""What the command adds to a run's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eval.report.section import task_report
from orin_runner.cli.result import add_prompt_rate, print_report
from orin_runner.console import Notes
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.model.proof import Proof, Verdict
from tests.support.predictions import prediction


def test_a_limit_that_was_not_measured_is_not_claimed(capsys: pytest.CaptureFixture[str]) -> None:
    """Interrupted or dead: the report stays as it was, and it is said."""

    def interrupted() -> PromptRate | None:
        raise KeyboardInterrupt

    for measure in (interrupted, lambda: None):
        report: dict[str, Any] = {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        add_prompt_rate(report, measure, Notes())
        assert report == {"tasks": {"t": {"device": {"answer_tokens": 900, "answer_s": 2.0}}}}
        assert "was not measured" in capsys.readouterr().err
    add_prompt_rate(report, lambda: PromptRate(1500, 3.0, 3), Notes())
    assert report["tasks"]["t"]["share_of_prompt_rate"] == pytest.approx(0.9)
    assert report["prompt_rate"]["tokens_per_s"] == 500


@pytest.mark.parametrize(
    ("split", "rows", "unanswered", "line"),
    [
        ("dev", 3198, 0, "4 of 3,198 rows, evenly spread, of the dev split"),
        ("test", 4, 0, "all 4 rows of the test split"),
        ("test", 6, 2, "all 6 rows of the test split"),
        ("test", 7, 2, "6 of 7 rows, evenly spread, of the test split"),
        (None, 4, 0, "all 4 rows"),
        (None, 480, 0, "4 of 480 rows, evenly spread"),
    ],
)
def test_the_rows_that_were_asked_are_named(
    split: str | None, rows: int, unanswered: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of which split, and how many there are; what an interruption left is asked, too."""
    tokens = {"sent": 1, "unique": 1, "computed": 1, "checked": 0}
    section = task_report([prediction(i) for i in range(4)], tokens, {}) | {"split": split, "rows": rows}
    if unanswered:
        section["unanswered"] = unanswered
    print_report({"tasks": {"t": section}}, Path("runs/t"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=True)
    assert f"\nt: {line}\n" in capsys.readouterr().out


def test_the_first_rows_are_not_called_spread(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of ``--first``."""
    tokens = {"sent": 1, "unique": 1, "computed": 1, "checked": 0}
    section = task_report([prediction(i) for i in range(4)], tokens, {}) | {"split": "test", "rows": 480, "first": 4}
    print_report({"tasks": {"t": section}}, Path("runs/t"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=True)
    assert "\nt: 4 of 480 rows, the first of each group, of the test split\n" in capsys.readouterr().out


def test_a_report_without_rows_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """One of an earlier version."""
    tokens = {"sent": 1, "unique": 1, "computed": 1, "checked": 0}
    report = {"tasks": {"t": task_report([prediction(0)], tokens, {})}}
    print_report(report, Path("runs/t"), {"model": Verdict(Proof.HEADER, "its manifest is missing").keys}, verbose=True)
    said = capsys.readouterr().out
    assert " rows" not in said
    assert "\nproof: from the header only (its manifest is missing)\n" in said


def test_a_split_that_is_not_the_usual_one_is_named_without_being_asked(capsys: pytest.CaptureFixture[str]) -> None:
    """ANLI's dev where test is not; its test says nothing."""
    tokens = {"sent": 1, "unique": 1, "computed": 1, "checked": 0}
    for split, lines in (("dev", ["anli: all 4 rows of the dev split"]), ("test", [])):
        section = task_report([prediction(i) for i in range(4)], tokens, {}) | {"split": split, "rows": 4}
        report = {"tasks": {"anli": section}}
        print_report(report, Path("runs/t"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=False)
        assert [line for line in capsys.readouterr().out.splitlines() if line.startswith("anli: ")] == lines


@pytest.mark.parametrize(("name", "protocol", "shown"), [("challenge", None, 3), ("exam", None, 0), ("t", "2023", 1)])
def test_clocks_are_for_the_challenges(
    name: str, protocol: str | None, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their tasks and protocols show them without being asked; of the 2023 protocol that year's alone."""
    tokens = {"sent": 1, "unique": 1, "computed": 1, "checked": 0}
    clocks = {"challenge 2024": 2.0, "challenge 2024 without data": 1.0, "challenge 2023": 3.0}
    section = task_report([prediction(i) for i in range(4)], tokens, {}) | {"clocks": clocks, "protocol": protocol}
    if protocol is None:
        section["greedy"] = {"texts": 4, "decode_steps_per_text": 0.0, "drafted_share": 1.0}
    report = {"tasks": {name: section}}
    print_report(report, Path("runs/t"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=False)
    assert capsys.readouterr().out.count(" clock, ") == shown
