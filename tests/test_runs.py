"""Runs on disk and what diff says of two of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.diff import diff
from eval.report.section import accuracy_table, mean_and_error, task_report
from eval.runs.run import Run, RunWriter
from eval.tasks.doc import Prediction
from orin_runner.errors import UserError


def prediction(i: int, answer: str = "A", **changes: Any) -> Prediction:
    """An item whose right answer is A."""
    base = Prediction(
        task="mmlu",
        id=f"x/{i}",
        group="even" if i % 2 == 0 else "odd",
        prediction=answer,
        target="A",
        correct=answer == "A",
        logprobs=(-0.5, -1.0),
        text=None,
        margin=0.5,
        n_tokens=100 * (i + 1),
        tokens_sha256="0" * 64,
    )
    return replace(base, **changes)


def write(directory: Path, predictions: list[Prediction], **model: Any) -> Run:
    """A run with a header of ``model``."""
    with RunWriter(directory, {"model": model}) as writer:
        for item in predictions:
            writer.write(item)
        writer.report({"tasks": {}})
    return Run.open(directory)


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Predictions, header and report."""
    items = [prediction(0), prediction(1, "B", logprobs=None, text="B\n", margin=None)]
    run = write(tmp_path / "r", items, name="m")
    assert list(run.predictions.values()) == items
    assert run.header == {"model": {"name": "m"}}
    assert run.report == {"tasks": {}}


def test_predictions_are_on_disk_before_the_run_ends(tmp_path: Path) -> None:
    """Flushed one by one: a killed run keeps what it had."""
    with RunWriter(tmp_path / "r", {}) as writer:
        writer.write(prediction(0))
        assert len((tmp_path / "r" / "predictions.jsonl").read_text().splitlines()) == 1


def test_a_folder_that_holds_a_run_is_refused(tmp_path: Path) -> None:
    """Nothing of it is touched."""
    write(tmp_path / "r", [prediction(0)])
    with pytest.raises(UserError, match="already holds a run; name another folder with --out"):
        RunWriter(tmp_path / "r", {})
    assert len(Run.open(tmp_path / "r").predictions) == 1


def test_a_folder_without_a_run_and_a_damaged_line_are_named(tmp_path: Path) -> None:
    """With the line number."""
    with pytest.raises(UserError, match="does not hold a run"):
        Run.open(tmp_path)
    write(tmp_path / "r", [prediction(0)])
    with (tmp_path / "r" / "predictions.jsonl").open("a") as file:
        file.write('{"task": "mmlu"}\n')
    with pytest.raises(UserError, match=r"predictions\.jsonl, line 2: not a prediction"):
        Run.open(tmp_path / "r")


def test_groups_are_averaged_by_their_sizes() -> None:
    """3 of 4 even and 0 of 1 odd are 60 %, not the mean of 75 % and 0 %."""
    items = [prediction(2 * i, "A" if i else "B") for i in range(4)] + [prediction(1, "C")]
    table = accuracy_table(items)
    assert table["even"]["accuracy"] == 0.75
    assert table["odd"] == {"accuracy": 0.0, "stderr": 0.0, "items": 1}
    assert table[""]["accuracy"] == 0.6


def test_standard_error_is_the_harnesss() -> None:
    """The sample standard deviation of 0/1 scores over the square root of n."""
    import statistics

    scores = [1] * 7 + [0] * 3
    assert mean_and_error(scores)[1] == pytest.approx(statistics.stdev(scores) / 10**0.5)


def test_the_challenge_clocks() -> None:
    """2024 counts data and inference, 2023 everything from the start of the process."""
    clocks = {"start": 1.0, "load": 10.0, "data": 2.0, "tokenize": 3.0, "plan": 0.5, "prefill": 4.0, "decode": 0.25}
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)] * 4, tokens, clocks, 0, 0.0)
    assert report["clocks"]["challenge 2024"] == 9.75
    assert report["clocks"]["challenge 2023"] == 20.75
    assert report["items_per_s"] == pytest.approx(4 / 7.75)
    assert report["computed_tokens_per_s"] == pytest.approx(200)


def test_the_rate_counts_the_time_in_which_answers_were_judged() -> None:
    """The device was computing then; 4 + 0.25 + 0.75 s."""
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)], tokens, {"prefill": 4.0, "decode": 0.25, "score": 0.75}, 0, 0.0)
    assert report["computed_tokens_per_s"] == pytest.approx(170)


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
