"""``orin-run export``: what becomes of runs that the harness has no form for, and what is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.export.write import export
from eval.runs.prediction import Prediction
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner.errors import UserError
from tests.support.commands import orin_run, refused
from tests.support.paths import REFERENCE
from tests.support.predictions import prediction


def item(i: int, **changes: Any) -> Prediction:
    return replace(prediction(i), scores={"acc": 1.0, "acc_norm": 0.5}, **changes)


def written(directory: Path, predictions: list[Prediction], **header: Any) -> Run:
    """A run of these items; ``header``: keys of ``run.json``."""
    with RunWriter(directory, {"time": "2026-11-27T10:00:00+00:00", **header}) as writer:
        for each in predictions:
            writer.write(each)
    return Run.open(directory)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_files_go_by_model_and_by_the_run_s_time(tmp_path: Path) -> None:
    """As ``EvaluationTracker`` names them, whatever the name of the model."""
    run = written(tmp_path / "run", [item(0)], model={"name": "a/b:c.gguf"})
    done = export(run, tmp_path / "out")
    assert done.results == tmp_path / "out" / "a__b__c.gguf" / "results_2026-11-27T10-00-00.000000.json"
    assert done.samples == [done.results.with_name("samples_mmlu_2026-11-27T10-00-00.000000.jsonl")]
    for i, name in enumerate(("..", "", ".")):
        run = written(tmp_path / f"run{i}", [item(0)], model={"name": name})
        assert export(run, tmp_path / "out").results.parent == tmp_path / "out" / "model"


def test_failed_items_are_marked_and_skipped_ones_left_out(tmp_path: Path) -> None:
    """A failed one counts as wrong, as in the run; each line of the file then says whether it failed."""
    failed = replace(item(2, failed="no memory", logprobs=None), scores={"acc": 0.0, "acc_norm": 0.0})
    run = written(tmp_path / "run", [item(0), failed, replace(item(4), skipped="too long", scores={})])
    done = export(run, tmp_path / "out")
    rows = lines(done.samples[0])
    assert [(row["doc_id"], row["failed"], row["acc"]) for row in rows] == [(0, None, 1.0), (1, "no memory", 0.0)]
    assert rows[1]["resps"] == rows[1]["filtered_resps"] == []
    assert json.loads(done.results.read_text())["results"]["mmlu"]["acc,none"] == 0.5


def test_group_names_are_no_paths_and_no_two_files_are_one(tmp_path: Path) -> None:
    """Of own questions a group may be called anything."""
    names = ["../x", "..:x", "x" * 400, "x" * 401]
    run = written(tmp_path / "run", [item(i, group=name) for i, name in enumerate(names)])
    done = export(run, tmp_path / "out")
    assert len({*done.samples}) == 4
    assert {path.parent for path in done.samples} == {done.results.parent}
    results = json.loads(done.results.read_text())
    assert [results["results"][name]["alias"] for name in results["group_subtasks"]["mmlu"]] == names


def test_documents_have_their_rows_numbers(tmp_path: Path) -> None:
    """The part of an id behind the group, in order; other ids are numbered as they stand."""
    found = [item(i, id=f"law/{i}", group="law") for i in (10, 9, 2)]
    done = export(written(tmp_path / "rows", found), tmp_path / "out")
    assert [row["doc_id"] for row in lines(done.samples[0])] == [2, 9, 10]
    for names in (["bird", "fish"], ["5", "12"]):  # a number is the user's own name, or that of a line
        found = [item(i, task="own.jsonl", id=name, group="all") for i, name in enumerate(reversed(names))]
        done = export(written(tmp_path / names[0], found), tmp_path / "out")
        assert [(row["doc_id"], row["doc"]["id"]) for row in lines(done.samples[0])] == [*enumerate(names)]


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    """Worked examples of a few-shot file, the error of one item, the number of a part's rows."""
    own = {"own.jsonl": {"sha256": "0" * 64, "fewshot_sha256": "1" * 64}, "bare.jsonl": {"sha256": "0" * 64}}
    found = [item(0, task=task) for task in ("own.jsonl", "bare.jsonl", "mmlu")]
    done = export(written(tmp_path / "run", found, settings={"questions": own}), tmp_path / "out")
    results = json.loads(done.results.read_text())
    assert results["n-shot"] == {"bare.jsonl": 0, "mmlu": 5}
    assert results["results"]["mmlu"]["acc_stderr,none"] == "N/A"
    assert results["n-samples"]["mmlu"] == {"effective": 1}
    assert results["versions"] == {}


@pytest.mark.parametrize(
    ("groups", "rows", "counts"),
    [
        (("law", "law"), 100, [{"original": 100, "effective": 2}]),
        (("law", "art"), 100, [{"effective": 1}, {"effective": 1}]),
        (("law", "art"), 2, [{"original": 1, "effective": 1}] * 2),
    ],
)
def test_rows_are_counted_where_they_are_known(
    tmp_path: Path, groups: tuple[str, ...], rows: int, counts: list[dict[str, int]]
) -> None:
    """Of a task those of its split; of one of its groups only if all were asked."""
    run = written(tmp_path / "run", [item(i, group=group) for i, group in enumerate(groups)])
    run = replace(run, report={"tasks": {"mmlu": {"rows": rows, "items": 2}}})
    results = json.loads(export(run, tmp_path / "out").results.read_text())
    assert list(results["n-samples"].values()) == counts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"proof": "refuted", "proof_detail": "tensor x differs"}}, "answers of a damaged model"),
        ({"time": "yesterday"}, "'time' is no time"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """Before anything is written."""
    run = written(tmp_path / "run", [item(0)], **changes)
    with pytest.raises(UserError, match=said):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_run_without_answers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no results yet"):
        export(written(tmp_path / "empty", []), tmp_path / "out")
    with pytest.raises(UserError, match="did not write the items' scores"):
        export(written(tmp_path / "old", [prediction(0)]), tmp_path / "out")


def test_a_run_of_transformers_is_exported_too(tmp_path: Path) -> None:
    """By the command, which needs no lm_eval and leaves the run as it is."""
    run = Path(shutil.copytree(REFERENCE / "float32", tmp_path / "run"))
    done = orin_run("export", run, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out" / "checkpoint").glob("results_*.json")
    assert str(path) in done.stdout
    results = json.loads(path.read_text())
    assert (results["model_source"], results["config"]["model_dtype"]) == ("transformers", "float32")
    assert {file.name for file in run.iterdir()} == {"run.json", "predictions.jsonl", "report.json"}
    refused(orin_run("export", tmp_path), "does not hold a run")
