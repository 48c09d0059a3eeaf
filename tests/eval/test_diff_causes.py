"""What each flip between two runs comes from, and whose share of the drop is whose."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff, diff_all
from eval.intervals import mean_interval, paired_interval
from eval.pairs import CAUSES
from eval.runs.prediction import Prediction
from tests.support.compared_runs import OFF, ON, answers, made, references
from tests.support.predictions import prediction

NEAR = 0.25
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
