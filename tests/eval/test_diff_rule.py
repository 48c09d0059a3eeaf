"""How much a run loses by its metric, and whether that is more than it may."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff
from eval.intervals import paired_test
from eval.report.section import metrics_table
from eval.runs.prediction import Prediction
from eval.tasks.registry import TASKS
from orin_runner.cli.main import main
from orin_runner.errors import UserError
from tests.support.compared_runs import answers, made
from tests.support.predictions import prediction, write


def test_the_rule_is_shown_per_task_and_judged_on_the_average(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One task loses what the other gains: the first breaks the rule, the run does not."""
    exam = [replace(item, task="exam") for item in answers(3, 4)]
    more = [replace(item, task="exam") for item in answers(4, 4)]
    run = made(tmp_path / "run", answers(3, 4) + more)
    reference = made(tmp_path / "reference", answers(4, 4) + exam)
    found = diff(run, reference)
    assert [found["tasks"][name]["within_max_drop"] for name in ("mmlu", "exam")] == [False, True]
    assert (found["mean_drop"], found["within_max_drop"]) == (0.0, True)
    monkeypatch.setattr(sys, "argv", ["orin-run", "diff", str(run.directory), str(reference.directory)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert [
        ("NO" in line.split(), "yes" in line.split()) for line in lines if line.startswith(("mmlu", "exam", "average"))
    ][-3:] == [(True, False), (False, True), (False, True)]
    assert diff(run, reference, -0.1)["within_max_drop"] is False


def scored(task: str, metric: str, scores: list[float], **changes: Any) -> list[Prediction]:
    """Items of these values under ``metric``; a second metric says otherwise."""
    return [
        prediction(i, task=task, correct=score > 0.5, scores={metric: score, "other": 1 - score}, **changes)
        for i, score in enumerate(scores)
    ]


def test_the_metric_is_judged_where_no_item_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """truthfulqa_mc2: masses fall from 0.515 to 0.316 on average, none across 0.5. All ten fall: p = 2 / 2^10."""
    run = made(tmp_path / "run", scored("truthfulqa_mc2", "mc2", [0.6] * 5 + [0.032] * 5))
    reference = made(tmp_path / "reference", scored("truthfulqa_mc2", "mc2", [0.9] * 5 + [0.13] * 5))
    found = diff(run, reference)
    section = found["tasks"]["truthfulqa_mc2"]
    assert (section["accuracy"], section["reference_accuracy"]) == (0.316, 0.515)
    assert (section["drop_points"], found["mean_drop"]) == (19.9, 19.9)
    assert (section["within_max_drop"], found["within_max_drop"]) == (False, False)
    assert (section["lost"], section["gained"], section["flips_in_all"]) == (10, 0, 0)
    named = [section[key] for key in ("metric", "test", "p", "patterns_drawn", "interval")]
    assert named == ["mc2", "sign-flip permutation", 2 / 1024, None, "sign-flip permutation"]
    low, high = section["drop_interval"]
    assert (low, high) == pytest.approx((9.8, 30.0))  # more than 2.5 % of the subsets are of equal items
    assert found["mean_drop_interval"] == pytest.approx([low, high])
    monkeypatch.setattr(sys, "argv", ["orin-run", "diff", str(run.directory), str(reference.directory)])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 1
    shown = capsys.readouterr()
    assert "average accuracy drops by 19.90 points, more than 0.5" in shown.err
    lines = [line.split() for line in shown.out.splitlines() if line.startswith("truthfulqa_mc2 ")]
    assert lines[-1][:6] == ["truthfulqa_mc2", "mc2", "10", "31.60%", "51.50%", "+19.90"]
    assert lines[-2][:7] == ["truthfulqa_mc2", "0", "10", "0", "sign-flip", "permutation", "0.00195"]


@pytest.mark.parametrize("name", sorted(TASKS))
def test_accuracy_is_the_reports(tmp_path: Path, name: str) -> None:
    """For every task the mean of its first metric, of both runs, and their difference."""
    drawn, metrics = random.Random(name), TASKS[name].metrics
    items = [
        [
            prediction(
                i,
                "AB"[drawn.randrange(2)],
                task=name,
                scores={
                    metric: drawn.choice([0.0, 1.0, round(drawn.random(), 2), drawn.random()]) for metric in metrics
                },
            )
            for i in range(40)
        ]
        for _ in range(2)
    ]
    section = diff(made(tmp_path / "a", items[0]), made(tmp_path / "b", items[1]), 100.0)["tasks"][name]
    run, reference = (metrics_table(side)[metrics[0]]["value"] for side in items)
    assert section["accuracy"] == pytest.approx(run, abs=1e-12)
    assert section["reference_accuracy"] == pytest.approx(reference, abs=1e-12)
    assert section["drop_points"] == pytest.approx(100 * (reference - run), abs=1e-9)
    values = [[item.scores[metrics[0]] for item in side] for side in items]
    test = paired_test(values[1], values[0])
    assert (section["metric"], section["p"]) == (metrics[0], test.p)
    assert section["drop_interval"] == pytest.approx([100 * limit for limit in test.interval])


def test_runs_without_scores_are_judged_by_right_and_wrong(tmp_path: Path) -> None:
    """One old run is enough: a mean of masses and a share of right answers are no pair."""
    old = made(tmp_path / "old", [replace(item, scores={}) for item in scored("m", "mc2", [0.6, 0.3])])
    new = made(tmp_path / "new", scored("m", "mc2", [0.9, 0.4]))
    for pair in ((old, old), (old, new), (new, old)):
        section = diff(*pair)["tasks"]["m"]
        assert [section[key] for key in ("metric", "accuracy", "reference_accuracy")] == ["correct", 0.5, 0.5]
        assert section["test"] == "McNemar exact"


def test_other_metrics_are_refused(tmp_path: Path) -> None:
    """The line names both."""
    run, reference = (made(tmp_path / name, scored("m", name, [1.0])) for name in ("acc", "acc_norm"))
    with pytest.raises(UserError, match="m is judged by different metrics: acc and acc_norm"):
        diff(run, reference)


def test_all_items_together_have_a_metric_where_the_tasks_have_one(tmp_path: Path) -> None:
    """Scores of both tasks go into one test; it is McNemar's only if all are 0 or 1."""
    for name, other, metric, test in (("same", "acc", "acc", "McNemar exact"), ("two", "f1", None, "McNemar exact")):
        items = scored("m", "acc", [1.0, 0.0]) + scored("n", other, [1.0, 0.0])
        found = diff(made(tmp_path / name, items), made(tmp_path / f"{name} again", items))["all"]
        assert (found["metric"], found["test"], found["accuracy"]) == (metric, test, 0.5)
    items = scored("m", "acc", [1.0, 0.0]) + scored("n", "f1", [0.4])
    found = diff(made(tmp_path / "f1", items), made(tmp_path / "f1 again", items))["all"]
    assert (found["test"], found["p"], found["interval"]) == ("sign-flip permutation", 1.0, "Newcombe")


def losing(task: str, n: int, lost: int) -> tuple[list[Prediction], list[Prediction]]:
    """``n`` items of which the run loses ``lost`` of those that the reference has right; gains, where negative."""
    worse = [prediction(i, "B" if i < abs(lost) else "A", task=task) for i in range(n)]
    right = [prediction(i, task=task) for i in range(n)]
    return (worse, right) if lost > 0 else (right, worse)


@pytest.mark.parametrize(
    ("tasks", "max_drop", "within"),
    [
        ({100: -2, 300: 7, 600: 7}, 0.5, True),  # (-2 + 7/3 + 7/6) / 3 is 1/2; in floats a little more
        ({100: -2, 300: 7, 600: 8}, 0.5, False),
        ({200: 1}, 0.5, True),
        ({200: 2}, 0.5, False),
        ({1000: 3}, 0.3, True),  # 0.3 as it was typed, not the float a little below it
        ({1000: 4}, 0.3, False),
        ({1000: 1, 500: 1}, 0.15, True),
        ({100: 0}, 0.0, True),
    ],
)
def test_at_most_is_decided_exactly(tmp_path: Path, tasks: dict[int, int], max_drop: float, within: bool) -> None:
    """The limit is included, on the average and, where there is one task, on the task."""
    pairs = [losing(f"task {n}", n, lost) for n, lost in tasks.items()]
    run, reference = (made(tmp_path / str(k), [item for pair in pairs for item in pair[k]]) for k in (0, 1))
    found = diff(run, reference, max_drop)
    assert found["within_max_drop"] is within
    if len(tasks) == 1:
        assert [section["within_max_drop"] for section in found["tasks"].values()] == [within]


def test_at_most_is_exact_for_other_scores(tmp_path: Path) -> None:
    """F1 of 0.8 becomes 0.3 in one of 100: half a point, though the floats are a little more apart."""
    assert Fraction(0.8) - Fraction(0.3) > Fraction(1, 2)
    reference = made(tmp_path / "reference", scored("drop", "f1", [0.8] + [1.0] * 99))
    for f1, within in ((0.3, True), (0.29, False)):
        found = diff(made(tmp_path / str(f1), scored("drop", "f1", [f1] + [1.0] * 99)), reference)
        assert (found["within_max_drop"], found["tasks"]["drop"]["within_max_drop"]) == (within, within)


def test_what_is_printed_is_not_at_the_limit_when_the_drop_is_beyond(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """126 of 25,000 are 0.504 points: "0.50, NO" would say that 0.5 is not at most 0.5."""
    reference = scored("m", "acc", [1.0] * 250)
    run = [*scored("m", "acc", [0.0] + [1.0] * 248), *scored("m", "acc", [1.0] * 250)[249:]]
    run[1] = replace(run[1], scores={"acc": 0.74})  # 1.26 of 250
    folders = [str(made(tmp_path / str(k), side).directory) for k, side in enumerate((run, reference))]
    monkeypatch.setattr(sys, "argv", ["orin-run", "diff", *folders])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr()
    assert "drops by 0.504 points, more than 0.5" in shown.err
    assert "drop of average accuracy: +0.504 points" in shown.out
    assert [line.split()[5] for line in shown.out.splitlines() if line.startswith("m ")][-1] == "+0.504"


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "run", answers(1, 1))
    for limit in (float("inf"), float("nan")):
        with pytest.raises(UserError, match="no number of points"):
            diff(run, run, limit)


def test_the_average_drop_weighs_tasks_alike(tmp_path: Path) -> None:
    """The challenge's rule is about the average over data sets."""
    one = [prediction(i) for i in range(4)]
    other = [replace(prediction(i, "B"), task="exam") for i in range(2)]
    run = write(tmp_path / "a", one + other)
    reference = write(tmp_path / "b", one + [replace(p, prediction="A", correct=True) for p in other])
    assert diff(run, reference)["mean_drop"] == 50.0
