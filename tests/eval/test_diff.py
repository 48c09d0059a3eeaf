"""What diff says of two runs: how sure the drop is, what each flip comes from, whose share of the drop is whose."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.diff import CAUSES, diff, diff_all
from eval.intervals import mean_interval, paired_interval
from eval.runs.prediction import Prediction
from eval.runs.run import Run, RunWriter
from orin_runner.cli.diff import print_diff
from orin_runner.cli.main import main
from orin_runner.errors import UserError
from tests.support.predictions import prediction, write


def made(
    directory: Path, items: list[Prediction], near_tie: float | None = None, settings: Any = None, **model: Any
) -> Run:
    """A run of ``items``, all of one near-tie threshold."""
    header = {"engine": "made", "settings": settings or {}, "model": {"checkpoint_sha256": "c", **model}}
    with RunWriter(directory, header) as writer:
        for item in items:
            writer.write(item)
        sections = {item.task: {} if near_tie is None else {"near_tie": near_tie} for item in items}
        writer.report({"tasks": sections})
    return Run.open(directory)


def answers(right: int, n: int, **changes: Any) -> list[Prediction]:
    """``n`` items, the first ``right`` of them correct."""
    return [prediction(i, "A" if i < right else "B", **changes) for i in range(n)]


NEAR = 0.25
OFF = {"window": 200, "window_honoured": False}
ON = {"window": 200, "window_honoured": True}


@pytest.mark.parametrize(
    ("cause", "run", "reference", "models"),
    [
        ("failed", {"failed": "no memory", "margin": None, "tokens_sha256": "1"}, {}, (OFF, ON)),
        ("failed", {}, {"failed": "no memory"}, (OFF, ON)),
        ("token_ids", {"tokens_sha256": "1", "n_tokens": 201, "margin": 0.1}, {}, (OFF, ON)),
        ("window", {"n_tokens": 201, "margin": 0.1}, {}, (OFF, ON)),
        ("window", {"n_tokens": 201}, {}, (ON, OFF)),
        ("near_tie", {"n_tokens": 200, "margin": 0.1}, {}, (OFF, ON)),
        ("near_tie", {"n_tokens": 200}, {"margin": 0.1}, (OFF, ON)),
        ("near_tie", {"n_tokens": 201, "margin": 0.1}, {}, (ON, ON)),
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
    """Two references: a small margin proves nothing by itself. The larger threshold of two runs counts."""
    items = [prediction(0, "B", margin=1e-6)], [prediction(0)]
    unknown = diff(made(tmp_path / "a", items[0]), made(tmp_path / "b", items[1]))["tasks"]["mmlu"]
    assert (unknown["near_tie"], unknown["causes"]["unexplained"]) == (None, 1)
    runs = made(tmp_path / "c", items[0], 1e-7), made(tmp_path / "d", items[1], 1e-3)
    assert diff(*runs)["tasks"]["mmlu"]["causes"]["near_tie"] == 1


def test_flips_are_counted_per_task_and_in_all(tmp_path: Path) -> None:
    """Lost and gained are of right answers; a flip between two wrong answers is neither."""
    run = [prediction(0, "B"), prediction(1, "B"), prediction(2), prediction(3, "C"), prediction(4)]
    reference = [prediction(0), prediction(1), prediction(2, "B"), prediction(3, "B"), prediction(4)]
    run += [replace(prediction(i, "B"), task="exam") for i in range(5)]
    reference += [replace(prediction(i), task="exam") for i in range(5)]
    found = diff(made(tmp_path / "a", run), made(tmp_path / "b", reference))
    counts = {
        name: tuple(part[key] for key in ("flips_in_all", "lost", "gained", "mcnemar_p"))
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
    [("shots", 5, "5"), ("shots", 0, "0"), ("scoring", "text", "text"), ("chat", True, "on"), ("limit", 9, "9")],
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
    defaults = {"shots": None, "scoring": None, "chat": False, "limit": None}
    old = made(tmp_path / "old", [prediction(0)])
    plain = made(tmp_path / "plain", [prediction(0)], settings=defaults)
    other = made(tmp_path / "other", [prediction(0)], settings={**defaults, name: value})
    assert diff(old, plain)["mean_drop"] == 0.0
    for directories in (("old", "other"), ("plain", "other")):
        monkeypatch.setattr(sys, "argv", ["orin-run", "diff", *(str(tmp_path / d) for d in directories)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        assert f"asked with different --{name}: default and {said}; use the same" in capsys.readouterr().err
    with pytest.raises(UserError, match=f"--{name}: {said} and default"):
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
    assert "a near tie is a margin below 0.2 in either run" in seen
    assert "the window's share of the drop is +30.00 points, the numerics' +10.00" in seen
    assert "x/9: 'B', reference 'A', right 'A', margin 0.1: window" in seen
    assert "drop of average accuracy: +40.00 points; the same checkpoint; 0 values altered" in seen
    # Of four flips none within 200 tokens; p = 2 / 16.
    (counts,) = [line for line in seen.splitlines() if line.split()[-9:] == "4 4 0 0.125 0 0 4 0 0".split()]
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


@pytest.mark.parametrize("case", ["missing", "target"])
def test_runs_that_do_not_match_are_refused(tmp_path: Path, case: str) -> None:
    """Other items, or another right answer for the same item."""
    run = write(tmp_path / "a", [prediction(0), prediction(1)])
    others = {"missing": [prediction(0)], "target": [prediction(0), replace(prediction(1), target="B")]}
    reference = write(tmp_path / "b", others[case])
    message = {"missing": "1 differ, first mmlu x/1, which .*b lacks", "target": "mmlu x/1 has target 'A' in one run"}
    with pytest.raises(UserError, match=message[case]):
        diff(run, reference)


def test_different_checkpoints_are_told(tmp_path: Path) -> None:
    """None where a run does not know its checkpoint."""
    a = write(tmp_path / "a", [prediction(0)], checkpoint_sha256="c")
    b = write(tmp_path / "b", [prediction(0)], checkpoint_sha256="d")
    c = write(tmp_path / "c", [prediction(0)])
    assert diff(a, b)["same_checkpoint"] is False
    assert diff(a, c)["same_checkpoint"] is None
    json.dumps(diff(a, b))
