"""What diff says of two runs: how sure the drop is, what each flip comes from, whose share of the drop is whose."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff, diff_all
from eval.intervals import mean_interval, paired_interval, paired_test
from eval.pairs import CAUSES
from eval.report.section import metrics_table, task_report
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from eval.tasks.registry import TASKS
from orin_runner.cli.diff import print_diff
from orin_runner.cli.main import main
from orin_runner.errors import UserError
from tests.support.predictions import NO_TOKENS, noise, prediction, write


def made(
    directory: Path, items: list[Prediction], near_tie: float | None = None, settings: Any = None, **model: Any
) -> Run:
    """A run of ``items``; rounding moves a margin of scale 1 by ``near_tie``."""
    header = {"engine": "made", "settings": settings or {}, "model": {"checkpoint_sha256": "c", **model}}
    with RunWriter(directory, header) as writer:
        for item in items:
            writer.write(item)
        sections = {
            task: {
                **task_report([item for item in items if item.task == task], NO_TOKENS, {}),
                "noise": noise(near_tie),
            }
            for task in dict.fromkeys(item.task for item in items)
        }
        writer.report({"tasks": sections})
    return Run.open(directory)


def answers(right: int, n: int, **changes: Any) -> list[Prediction]:
    """``n`` items, the first ``right`` of them correct."""
    return [prediction(i, "A" if i < right else "B", **changes) for i in range(n)]


NEAR = 0.25
OFF = {"window": 200, "window_honoured": False}
ON = {"window": 200, "window_honoured": True}
LOSSY = {**ON, "types": {"Q4_1": 1}}


@pytest.mark.parametrize(
    ("cause", "run", "reference", "models"),
    [
        ("failed", {"failed": "no memory", "margin": None, "tokens_sha256": "1"}, {}, (OFF, ON)),
        ("failed", {}, {"failed": "no memory"}, (OFF, ON)),
        ("token_ids", {"tokens_sha256": "1", "n_tokens": 201, "margin": 0.1}, {}, (OFF, ON)),
        ("window", {"n_tokens": 201, "margin": 0.1}, {}, (OFF, ON)),
        ("window", {"n_tokens": 201}, {}, (ON, OFF)),
        ("near_tie", {"n_tokens": 200, "margin": 0.1}, {"margin": 0.39}, (OFF, ON)),
        ("near_tie", {"n_tokens": 200, "margin": 0.39}, {"margin": 0.1}, (OFF, ON)),
        ("near_tie", {"n_tokens": 201, "margin": 0.1}, {"margin": 0.1}, (ON, ON)),
        ("near_tie", {"margin": 0.4, "margin_scale": 2.0}, {"margin": 0.5}, (ON, ON)),
        ("quantization", {"margin": 0.1}, {}, (ON, LOSSY)),
        ("quantization", {"margin": 0.1}, {}, (LOSSY, ON)),
        ("near_tie", {"margin": 0.1}, {"margin": 0.1}, (LOSSY, ON)),
        ("unexplained", {"margin": 0.1}, {}, (LOSSY, LOSSY)),
        ("unexplained", {"margin": 0.1}, {}, (ON, ON)),
        ("unexplained", {"n_tokens": 201}, {}, (ON, ON)),
        ("unexplained", {"n_tokens": 201}, {}, (OFF, OFF)),
        ("unexplained", {"n_tokens": 201}, {}, ({"window": 200}, ON)),
        ("unexplained", {"n_tokens": 201}, {}, ({"window_honoured": True}, {"window_honoured": False})),
        ("unexplained", {"n_tokens": 1, "margin": NEAR}, {"margin": NEAR}, (OFF, ON)),
        ("unexplained", {"n_tokens": 1, "margin": None}, {"margin": None}, (OFF, ON)),
    ],
)
def test_the_first_cause_that_fits(
    tmp_path: Path, cause: str, run: dict[str, Any], reference: dict[str, Any], models: Any
) -> None:
    """Each bucket, the limits of its condition, and its rank before the later ones."""
    pair = (
        made(tmp_path / "a", [prediction(0, "B", **run)], NEAR, **models[0]),
        made(tmp_path / "b", [prediction(0, **reference)], **models[1]),
    )
    task = diff(*pair)["tasks"]["mmlu"]
    assert task["flips"][0]["cause"] == cause
    assert task["causes"] == {name: int(name == cause) for name in CAUSES}


def test_no_near_tie_where_none_was_measured(tmp_path: Path) -> None:
    """Two references: a small margin proves nothing by itself. The noise of both runs counts."""
    items = [prediction(0, "B", margin=1e-6)], [prediction(0)]
    unknown = diff(made(tmp_path / "a", items[0]), made(tmp_path / "b", items[1]))["tasks"]["mmlu"]
    assert (unknown["noise"], unknown["flips"][0]["near_tie"], unknown["causes"]["unexplained"]) == (False, None, 1)
    runs = made(tmp_path / "c", items[0], 1e-7), made(tmp_path / "d", items[1], 0.6)
    assert diff(*runs)["tasks"]["mmlu"]["causes"]["near_tie"] == 1


def test_flips_are_counted_per_task_and_in_all(tmp_path: Path) -> None:
    """Lost and gained are of right answers; a flip between two wrong answers is neither."""
    run = [prediction(0, "B"), prediction(1, "B"), prediction(2), prediction(3, "C"), prediction(4)]
    reference = [prediction(0), prediction(1), prediction(2, "B"), prediction(3, "B"), prediction(4)]
    run += [replace(prediction(i, "B"), task="exam") for i in range(5)]
    reference += [replace(prediction(i), task="exam") for i in range(5)]
    found = diff(made(tmp_path / "a", run), made(tmp_path / "b", reference))
    counts = {
        name: tuple(part[key] for key in ("flips_in_all", "lost", "gained", "p"))
        for name, part in {**found["tasks"], "all": found["all"]}.items()
    }
    # p: 2 (1 + 3) / 8, 2 / 32, 2 (1 + 8) / 256.
    assert counts == {"mmlu": (4, 2, 1, 1.0), "exam": (5, 5, 0, 1 / 16), "all": (9, 7, 1, 18 / 256)}
    assert found["all"]["causes"]["unexplained"] == 9
    assert (found["all"]["items"], found["all"]["drop_points"]) == (10, 60.0)
    mmlu, exam = (found["tasks"][name]["drop_interval"] for name in ("mmlu", "exam"))
    assert mmlu == pytest.approx([100 * x for x in paired_interval(1, 2, 1, 1)])
    assert found["mean_drop"] == 60.0
    assert found["mean_drop_interval"] == pytest.approx(mean_interval([20.0, 100.0], [mmlu, exam]))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("shots", 5, "5"),
        ("shots", 0, "0"),
        ("scoring", "text", "text"),
        ("chat", True, "on"),
        ("max_new_tokens", 64, "64"),
    ],
)
def test_other_settings_are_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: Any,
    said: str,
) -> None:
    """One line that names the option, exit status 2; a run that does not name it has the default."""
    defaults = {"shots": None, "scoring": None, "chat": False, "max_new_tokens": None}
    option = name.replace("_", "-")
    old = made(tmp_path / "old", [prediction(0)])
    plain = made(tmp_path / "plain", [prediction(0)], settings=defaults)
    other = made(tmp_path / "other", [prediction(0)], settings={**defaults, name: value})
    assert diff(old, plain)["mean_drop"] == 0.0
    for directories in (("old", "other"), ("plain", "other")):
        monkeypatch.setattr(sys, "argv", ["orin-run", "diff", *(str(tmp_path / d) for d in directories)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert f"asked with different --{option}: default and {said}; use the same" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"--{option}: {said} and default"):
        diff(other, plain)


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
    ][:3] == [(True, False), (False, True), (False, True)]
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
    assert lines[0][:6] == ["truthfulqa_mc2", "mc2", "10", "31.60%", "51.50%", "+19.90"]
    assert lines[1][:7] == ["truthfulqa_mc2", "0", "10", "0", "sign-flip", "permutation", "0.00195"]


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
    assert next(line for line in shown.out.splitlines() if line.startswith("m ")).split()[5] == "+0.504"


def test_a_limit_that_is_no_number_is_refused(tmp_path: Path) -> None:
    run = made(tmp_path / "run", answers(1, 1))
    for limit in (float("inf"), float("nan")):
        with pytest.raises(UserError, match="no number of points"):
            diff(run, run, limit)


@pytest.mark.parametrize("place", ["settings", "report", "mixed"])
def test_other_splits_are_refused(tmp_path: Path, place: str) -> None:
    """Wherever a run says it; where one does not say it there is nothing to compare."""

    def of(name: str, split: str | None, where: str) -> Run:
        run = made(
            tmp_path / name, [prediction(0)], settings={"splits": {"mmlu": split}} if where == "settings" else {}
        )
        run.report["tasks"]["mmlu"]["split"] = split if where == "report" else None
        return run

    places = ("settings", "report") if place == "mixed" else (place, place)
    test, dev = of("test", "test", places[0]), of("dev", "dev", places[1])
    with pytest.raises(UserError, match="different splits of mmlu: test and dev"):
        diff(test, dev)
    assert diff(test, of("again", "test", places[1]))["mean_drop"] == 0.0
    assert diff(test, of("silent", None, places[1]))["mean_drop"] == 0.0


def test_other_templates_are_refused(tmp_path: Path) -> None:
    """Where both say theirs, and it has made other prompts."""
    one, other = ({"chat_template_sha256": digest * 32} for digest in ("ab", "cd"))
    run = made(tmp_path / "run", [prediction(0)], **one)
    changed = [prediction(0, tokens_sha256="1" * 64)]
    with pytest.raises(UserError, match="different chat templates: abababababab and cdcdcdcdcdcd"):
        diff(run, made(tmp_path / "other", changed, **other))
    for name, items, model in (("plain", [prediction(0)], other), ("same", changed, one), ("silent", changed, {})):
        assert diff(run, made(tmp_path / name, items, **model))["mean_drop"] == 0.0


def test_it_says_first_what_it_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Folder, model, engine, number format of the run and of each reference."""
    run = made(tmp_path / "run", answers(7, 10), **OFF, name="tiny.gguf", types={"F32": 5, "BF16": 9})
    folders = references(tmp_path)
    results = diff_all(run, folders)
    print_diff(results)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        f"run        {run.directory}: tiny.gguf, made BF16+F32, window off",
        f"reference  {folders[0].directory}: a model without name, made float32",
        f"reference  {folders[1].directory}: a model without name, made float32, window off",
    ]
    said = [results[0][f"run_{key}"] for key in ("engine", "dtype", "model", "window_off")]
    assert said == ["made", "BF16+F32", "tiny.gguf", True]
    assert [results[1][f"reference_{key}"] for key in ("dtype", "model", "window_off")] == ["float32", None, True]


@pytest.mark.parametrize("crosses", ["run", "reference"])
def test_the_answer_crosses_the_window_too(tmp_path: Path, crosses: str) -> None:
    """199 tokens of prompt: the longest path of either run decides, and the prompt where a run does not know it."""

    def sides(i: int, longest: int | None) -> dict[str, Prediction]:
        items = {side: prediction(i, "B" if side == "run" else "A", n_tokens=199) for side in ("run", "reference")}
        return {**items, crosses: replace(items[crosses], n_context=longest)}

    items = [sides(0, 200), sides(1, 201), sides(2, None)]
    run = made(tmp_path / "run", [item["run"] for item in items], **OFF)
    found = diff(run, made(tmp_path / "reference", [item["reference"] for item in items], **ON))["tasks"]["mmlu"]
    assert (found["within_window"]["items"], found["beyond_window"]["items"]) == (2, 1)
    assert {flip["id"]: flip["cause"] for flip in found["flips"]} == {
        "x/0": "unexplained",
        "x/1": "window",
        "x/2": "unexplained",
    }
    assert {flip["id"]: flip["n_context"] for flip in found["flips"]} == {"x/0": 200, "x/1": 201, "x/2": 199}


@pytest.mark.parametrize("known", [(0.3, 0.1), (0.1, 0.3), (0.2, None), (None, 0.2)])
def test_the_noise_of_both_sides_counts(tmp_path: Path, known: tuple[float | None, float | None]) -> None:
    """Rounding of 0.4 in all turns leads that are less together; a run that measured none has the other's noise."""
    for margin, cause in ((0.19, "near_tie"), (0.21, "unexplained")):
        sides = [prediction(0, answer, margin=margin) for answer in ("B", "A")]
        runs = [made(tmp_path / f"{margin} {i}", [side], known[i]) for i, side in enumerate(sides)]
        found = diff(*runs)["tasks"]["mmlu"]
        assert found["flips"][0]["near_tie"] == pytest.approx(0.4)
        assert found["causes"][cause] == 1


def references(folder: Path, dtype: str = "float32") -> tuple[Run, Run]:
    """Ten of ten right with the window, seven without it."""
    return (
        made(folder / "on", answers(10, 10), **ON, dtype="float32"),
        made(folder / "off", answers(7, 10), **OFF, dtype=dtype),
    )


def test_the_windows_share_and_the_numerics(tmp_path: Path) -> None:
    """A run without the window, six right: three of the four lost are the window's, one is the numerics'."""
    on, off = references(tmp_path)
    run = made(tmp_path / "run", answers(6, 10), **OFF)
    for order in ((on, off), (off, on)):
        results = {result["reference"]: result for result in diff_all(run, order)}
        shares = results[str(on.directory)]["shares"]
        assert shares["window_off"] == str(off.directory)
        assert shares["mean"] == shares["tasks"]["mmlu"] == pytest.approx({"window": 30.0, "numerics": 10.0})
        assert "shares" not in results[str(off.directory)]


def test_a_run_with_the_window_owes_nothing_to_it(tmp_path: Path) -> None:
    """All of its drop is the numerics'."""
    run = made(tmp_path / "run", answers(6, 10), **ON)
    assert diff_all(run, references(tmp_path))[0]["shares"]["mean"] == {"window": 0.0, "numerics": 40.0}


def test_shares_are_not_told_where_more_than_the_window_differs(tmp_path: Path) -> None:
    """Another dtype, a run that does not say what it did, no window, one reference."""
    run = made(tmp_path / "run", answers(6, 10), **OFF)
    assert all("shares" not in result for result in diff_all(run, references(tmp_path / "dtype", "bfloat16")))
    on, off = references(tmp_path)
    silent = made(tmp_path / "silent", answers(6, 10), window=200)
    assert all("shares" not in result for result in diff_all(silent, (on, off)))
    assert "shares" not in diff_all(run, [on])[0]
    flat = [made(tmp_path / str(on), answers(9, 10), window_honoured=on) for on in (True, False)]
    assert all("shares" not in result for result in diff_all(run, flat))


def test_json_holds_all_a_person_sees(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The table is made of the JSON alone, and holds causes, shares, interval and p."""
    run = made(tmp_path / "run", answers(6, 10, margin=0.1), 0.2, **OFF, altered_values=0)
    results = diff_all(run, references(tmp_path))
    print_diff(json.loads(json.dumps(results)))
    seen = capsys.readouterr().out
    low, high = (100 * x for x in paired_interval(6, 4, 0, 0))
    assert f"{low:+.2f} to {high:+.2f}" in seen
    assert "a near tie is where both margins together are less than the noise" in seen
    assert "the window's share of the drop is +30.00 points, the numerics' +10.00" in seen
    assert "x/9: 'B', reference 'A', right 'A', margin 0.1, there 0.5, noise of both 0.4: window" in seen
    assert "+40.00 points; the same checkpoint (proof: from the header only); 0 values altered" in seen
    # Of four flips none within 200 tokens; p = 2 / 16.
    expected = "4 4 0 McNemar exact 0.125 0 0 4 0 0".split()
    (counts,) = [line for line in seen.splitlines() if line.split()[-11:] == expected]
    assert counts.startswith("mmlu, made float32 ")
    assert sum(line.startswith("mmlu, made float32, window off ") for line in seen.splitlines()) == 2


def test_diff_counts_drop_agreement_flips_and_windows(tmp_path: Path) -> None:
    """Four items, the window after the second."""
    run = write(
        tmp_path / "a",
        [prediction(0), prediction(1, "B", margin=0.01), prediction(2, "B", margin=2.0), prediction(3)],
        checkpoint_sha256="c",
        window=200,
    )
    reference = write(
        tmp_path / "b",
        [
            prediction(0, logprobs=(-0.5, -1.25)),
            prediction(1),
            prediction(2),
            prediction(3, tokens_sha256="1" * 64),
        ],
        checkpoint_sha256="c",
    )
    found = diff(run, reference)
    task = found["tasks"]["mmlu"]
    assert found["same_checkpoint"] is True
    assert found["mean_drop"] == task["drop_points"] == 50.0
    assert (task["accuracy"], task["reference_accuracy"], task["agreement"]) == (0.5, 1.0, 0.5)
    assert task["max_logprob_difference"] == 0.25
    assert task["same_token_ids"] == 3
    assert (task["within_window"]["items"], task["beyond_window"]["items"]) == (2, 2)
    assert task["beyond_window"]["drop_points"] == 50.0
    # The widest margin first: the flip that rounding cannot explain.
    assert [flip["id"] for flip in task["flips"]] == ["x/2", "x/1"]


def test_diff_compares_texts(tmp_path: Path) -> None:
    """Generated items: identical texts are counted."""
    texts = [prediction(i, logprobs=None, text="A") for i in range(2)]
    run = write(tmp_path / "a", texts)
    reference = write(tmp_path / "b", [texts[0], replace(texts[1], text="A ")])
    task = diff(run, reference)["tasks"]["mmlu"]
    assert (task["texts"], task["identical_texts"], task["max_logprob_difference"]) == (2, 1, None)


def test_the_average_drop_weighs_tasks_alike(tmp_path: Path) -> None:
    """The challenge's rule is about the average over data sets."""
    one = [prediction(i) for i in range(4)]
    other = [replace(prediction(i, "B"), task="exam") for i in range(2)]
    run = write(tmp_path / "a", one + other)
    reference = write(tmp_path / "b", one + [replace(p, prediction="A", correct=True) for p in other])
    assert diff(run, reference)["mean_drop"] == 50.0


@pytest.mark.parametrize("anyway", [False, True])
@pytest.mark.parametrize("case", ["missing", "target", "choices"])
def test_runs_that_do_not_match_are_refused(tmp_path: Path, case: str, anyway: bool) -> None:
    """No item of both, another right answer or another number of choices for the same item: whatever is asked for."""
    run = write(tmp_path / "a", [prediction(0), prediction(1)])
    others = {
        "missing": [prediction(2)],
        "target": [prediction(0), replace(prediction(1), target="B")],
        "choices": [prediction(0), replace(prediction(1), logprobs=(-0.5, -1.0, -2.0))],
    }
    reference = write(tmp_path / "b", others[case])
    message = {
        "missing": "a and .*b share no item",
        "target": "mmlu x/1 has target 'A' in one run",
        "choices": "mmlu x/1 has 2 choices in one run, 3 in the other",
    }
    with pytest.raises(UserError, match=message[case]):
        diff(run, reference, anyway=anyway)


def test_different_checkpoints_are_told(tmp_path: Path) -> None:
    """None where a run does not know its checkpoint."""
    a = write(tmp_path / "a", [prediction(0)], checkpoint_sha256="c")
    b = write(tmp_path / "b", [prediction(0)], checkpoint_sha256="d")
    c = write(tmp_path / "c", [prediction(0)])
    assert diff(a, b)["same_checkpoint"] is False
    assert diff(a, c)["same_checkpoint"] is None
    json.dumps(diff(a, b))


def test_items_that_either_run_truncated_are_counted_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of four items one is truncated in both runs, one in the reference alone; both have a line of their own."""
    items = [prediction(0, truncated=5), prediction(1, "B"), prediction(2), prediction(3)]
    others = [prediction(0, truncated=5), prediction(1, truncated=1), prediction(2), prediction(3)]
    run, reference = made(tmp_path / "run", items), made(tmp_path / "reference", others)
    found = diff(run, reference)
    section = found["tasks"]["mmlu"]
    assert (section["truncated"]["items"], section["truncated"]["drop_points"]) == (2, 50.0)
    assert (section["whole"]["items"], section["whole"]["drop_points"]) == (2, 0.0)
    assert found["skipped"] == {}
    print_diff([found])
    shown = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert {"truncated prompts", "whole prompts"} <= {line[1] for line in shown if len(line) > 1}
    section = diff(reference, reference)["tasks"]["mmlu"]
    assert section["truncated"]["items"] == 2
    plain = made(tmp_path / "plain", [prediction(0)])
    assert "truncated" not in diff(plain, plain)["tasks"]["mmlu"]


def test_what_a_run_skipped_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One item in each run; a task of which nothing is left; rules that differ are named."""
    gone: dict[str, Any] = {"skipped": "needs 9 tokens", "scores": {}, "logprobs": None, "margin": None}
    metric = {"scores": {"acc": 1.0}}
    items = [prediction(0, "", **gone), prediction(1, **metric), prediction(2, **metric)]
    others = [prediction(0, **metric), prediction(1, "", **gone), prediction(2, **metric)]
    exam = [prediction(0, "", task="exam", **gone)]
    run = made(tmp_path / "run", items + exam, settings={"too_long": "skip"})
    reference = made(tmp_path / "reference", [*others, prediction(0, task="exam")], settings={"too_long": "truncate"})
    found = diff(run, reference)
    assert found["skipped"] == {"mmlu": 2, "exam": 1}
    assert list(found["tasks"]) == ["mmlu"]
    assert (found["tasks"]["mmlu"]["items"], found["tasks"]["mmlu"]["metric"]) == (1, "acc")
    monkeypatch.setattr(sys, "argv", ["orin-run", "diff", str(run.directory), str(reference.directory)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    said = capsys.readouterr().err
    assert f"2 mmlu items are skipped in {run.directory} or {reference.directory}: they are not compared" in said
    assert f"--too-long skip in {run.directory}, truncate in {reference.directory}" in said
    nothing = made(tmp_path / "nothing", exam)
    with pytest.raises(UserError, match="no item was asked in both runs"):
        diff(nothing, nothing)
