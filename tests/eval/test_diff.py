"""What diff says of two runs, and which it refuses to compare."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff, diff_all
from eval.intervals import paired_interval
from eval.runs.run import Run
from orin_runner.cli.diff import print_diff
from orin_runner.cli.main import main
from orin_runner.errors import UserError
from tests.support.compared_runs import OFF, answers, made, references
from tests.support.predictions import prediction, write


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
