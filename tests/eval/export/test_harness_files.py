"""An exported run is what lm-evaluation-harness writes of the same questions, and its own code reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from datasets import load_dataset
from lm_eval import simple_evaluate
from lm_eval.api.metrics import aggregate_subtask_metrics, pooled_sample_stderr
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks._yaml_loader import load_yaml
from lm_eval.utils import (
    get_file_datetime,
    get_file_task_name,
    get_results_filenames,
    get_sample_results_filenames,
    hash_string,
    make_table,
    sanitize_model_name,
)

from eval.export.names import harness_metric
from eval.harness.model import HarnessModel
from eval.tasks.registry import TASKS as OURS
from orin_runner.model.gguf_file import GGUFFile
from tests.support.commands import orin_run
from tests.support.harness import TASKS, local_config
from tests.support.harness_cases import REAL, written_case
from tests.support.started import started

NOT_KNOWN = {
    *("git_hash", "upper_git_hash", "pretty_env_info", "transformers_version", "lm_eval_version", "max_length"),
    *("tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id"),
    *("chat_template", "system_instruction_sha", "total_evaluation_time_seconds"),
}
"""Of the harness's keys, what a run does not say in the harness's sense."""
ROUNDING = 0.05
"""Of a log-probability in nats: other batches round otherwise."""
ASKED = ("hellaswag", "arc_challenge", "piqa", "truthfulqa_mc2", "drop", "gsm8k")
"""Tasks of each kind: choices of several lengths, masses, texts under one filter and under two."""
YAML = {
    **{task: yaml for task, (yaml, _, _) in REAL.items()},
    "hellaswag": "hellaswag/hellaswag.yaml",
    "arc_challenge": "arc/arc_challenge.yaml",
    "piqa": "piqa/piqa.yaml",
    "truthfulqa_mc2": "truthfulqa/truthfulqa_mc2.yaml",
    "drop": "drop/default.yaml",
    "gsm8k": "gsm8k/gsm8k.yaml",
    "anli": "anli/anli_r1.yaml",
    "mmlu": "mmlu/default/mmlu_anatomy.yaml",
    "bbh": "bbh/cot_fewshot/navigate.yaml",
    "bbh_direct": "bbh/fewshot/navigate.yaml",
    "gsm8k_cot": "gsm8k/gsm8k-cot.yaml",
    "medqa": "medqa/medqa.yaml",
    "agieval": "agieval/lsat-ar.yaml",
    "mmlu_pro": "mmlu_pro/mmlu_pro_law.yaml",
    "triviaqa": "triviaqa/default.yaml",
    "truthfulqa_mc1": "truthfulqa/truthfulqa_mc1.yaml",
}
"""The harness's file of each task of ours that it has."""


@pytest.fixture(scope="module", autouse=True)
def _offline() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield


Written = tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]
"""``results_TIME.json``, and by task the lines of ``samples_TASK_TIME.jsonl``."""


def read(folder: Path) -> Written:
    """``results_TIME.json`` and by task the samples, found by the harness's own functions."""
    files = [str(path) for path in folder.rglob("*.json*")]
    (found,) = get_results_filenames(files)
    results = json.loads(Path(found).read_text("utf-8"))
    samples = {}
    for file in get_sample_results_filenames(files):
        lines = Path(file).read_text("utf-8").splitlines()
        samples[get_file_task_name(Path(file).name)] = list(map(json.loads, lines))
        assert get_file_datetime(Path(file).name) == get_file_datetime(Path(found).name).removesuffix(".json")
        assert Path(file).parent.name == sanitize_model_name(results["model_name"])
    return results, samples


def exported(run: Path, out: Path) -> Written:
    done = orin_run("export", run, "--format", "lm-eval", "--out", out)
    assert done.returncode == 0, done.stderr
    return read(out)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> tuple[Written, Written]:
    """The hand-written questions of all tasks, asked and exported by us, and asked and written by the harness."""
    folder = tmp_path_factory.mktemp("written")
    cases = [written_case(task, folder / "data") for task in ASKED]
    run = folder / "run"
    done = orin_run("eval", *ASKED, "--data", folder / "data", "--model", tiny_gguf, "--log-items", "--out", run)
    assert done.returncode == 0, done.stderr

    configs = [local_config(case.yaml, case.splits, folder / "rows" / case.task) for case in cases]
    tracker = EvaluationTracker(output_path=str(folder / "harness"))
    file = GGUFFile.open(tiny_gguf)
    with closing(HarnessModel(file, lambda requests: started(file, requests))) as model:
        results = simple_evaluate(model, model_args="path=x.gguf", tasks=configs, evaluation_tracker=tracker)
    samples = results.pop("samples")
    tracker.save_results_aggregated(results=results, samples=samples)
    for task, rows in samples.items():
        tracker.save_results_samples(task_name=task, samples=rows)
    return exported(run, folder / "out"), read(folder / "harness")


@pytest.mark.parametrize("task", ASKED)
def test_metrics_are_the_harness_s(task: str, written: tuple[Written, Written]) -> None:
    """Keys, metrics and filters, means and errors, worked examples, numbers of documents."""
    (ours, _), (theirs, _) = written
    assert theirs.keys() - ours.keys() <= NOT_KNOWN
    assert ours["results"][task].keys() >= theirs["results"][task].keys()
    for key, value in theirs["results"][task].items():
        assert ours["results"][task][key] == (value if isinstance(value, str) else pytest.approx(value, abs=0.02)), key
    for part in ("n-shot", "n-samples"):
        assert ours[part][task] == theirs[part][task]
    assert ours["higher_is_better"][task].items() >= theirs["higher_is_better"][task].items()
    for key in ("output_type", "num_fewshot"):
        assert ours["configs"][task][key] == theirs["configs"][task][key]


@pytest.mark.parametrize("task", ASKED)
def test_samples_are_the_harness_s(task: str, written: tuple[Written, Written]) -> None:
    """Keys, documents' numbers, prompts, continuations, answers, scores and digests of each line."""
    (ours, samples), (_, their_samples) = written
    rows = {(row["doc_id"], row["filter"]): row for row in samples[task]}
    assert len(rows) == len(samples[task]) == len(their_samples[task])
    for expected in their_samples[task]:
        row = rows[expected["doc_id"], expected["filter"]]
        assert row.keys() >= expected.keys()
        assert set(row["metrics"]) >= set(expected["metrics"])
        assert row["prompt_hash"] == expected["prompt_hash"]
        assert row["target_hash"] == hash_string(row["target"])
        assert row["doc_hash"] == hash_string(json.dumps(row["doc"], indent=2, ensure_ascii=False))
        for name, (found, arguments) in both(row["arguments"], expected["arguments"]).items():
            assert found["arg_0"] == arguments["arg_0"], name
            if isinstance(arguments["arg_1"], dict):
                assert found["arg_1"]["until"] == arguments["arg_1"]["until"]
            else:
                assert found["arg_1"] == arguments["arg_1"]
        for (answer,), (theirs,) in zip(row["resps"], expected["resps"], strict=True):
            if isinstance(theirs, str):
                assert answer == theirs
            else:
                assert float(answer[0]) == pytest.approx(float(theirs[0]), abs=ROUNDING, rel=5e-3)
                assert answer[1:] == ["None"]
                assert len(answer) == len(theirs)
        for metric in expected["metrics"]:
            assert row[metric] == pytest.approx(expected[metric], abs=0.02)
    assert ours["task_hashes"][task] == hash_string(
        "".join(row[f"{part}_hash"] for row in samples[task] for part in ("doc", "prompt", "target"))
    )


def both(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    assert ours.keys() == theirs.keys()
    return {name: (ours[name], theirs[name]) for name in ours}


@pytest.mark.parametrize("task", YAML)
def test_metrics_and_filters_are_named_as_in_the_harness(task: str) -> None:
    """Each one that the harness's file has, ours is exported as."""
    config = load_yaml(TASKS / YAML[task])
    metrics = [entry["metric"] for entry in config["metric_list"]]
    filters = [entry["name"] for entry in config.get("filter_list") or [{"name": "none"}]]
    found = {harness_metric(task, metric) for metric in OURS[task].metrics}
    assert found >= {(metric, kept) for metric in metrics for kept in filters}


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A run of a task with several groups, letters and texts, without its prompts."""
    out = tmp_path_factory.mktemp("exam") / "run"
    done = orin_run("eval", "exam", "--limit", "24", "--model", tiny_gguf, "--out", out)
    assert done.returncode == 0, done.stderr
    return out


def test_groups_are_the_harness_s(exam: Path, tmp_path: Path) -> None:
    """Mean and error of a group are those that the harness makes of its tasks; its tables show them."""
    results, samples = exported(exam, tmp_path)
    parts = results["group_subtasks"]["exam"]
    assert len(parts) > 1
    assert set(parts) == set(samples) == set(results["configs"])
    of_parts = [results["results"][part] for part in parts]
    sizes = [part["sample_len"] for part in of_parts]
    assert sizes == [len(samples[part]) for part in parts]
    group = results["groups"]["exam"]
    assert group == results["results"]["exam"]
    assert group["exact_match,none"] == pytest.approx(
        aggregate_subtask_metrics([part["exact_match,none"] for part in of_parts], sizes)
    )
    errors = [part["exact_match_stderr,none"] for part in of_parts]
    assert group["exact_match_stderr,none"] == pytest.approx(pooled_sample_stderr(errors, sizes))
    table, groups = make_table(results), make_table(results, "groups")
    assert all(results["results"][part]["alias"] in table for part in parts)
    assert f"{group['exact_match,none']:.4f}" in groups
    report = json.loads((exam / "report.json").read_text())["tasks"]["exam"]
    assert group["exact_match,none"] == pytest.approx(report["accuracy"])


def test_prompts_that_were_not_logged_are_left_out(exam: Path, tmp_path: Path) -> None:
    """And nothing in their place; the command says so."""
    done = orin_run("export", exam, "--out", tmp_path)
    assert "tasks are left out: no items.jsonl.gz has them" in done.stderr
    results, samples = read(tmp_path)
    assert results["task_hashes"] == {}
    rows = [row for part in samples.values() for row in part]
    assert len(rows) == 24
    assert not any({"arguments", "prompt_hash"} & row.keys() for row in rows)


def test_samples_are_a_data_set(exam: Path, tmp_path: Path) -> None:
    """The form that the harness gives its lines so that the datasets library takes them."""
    exported(exam, tmp_path / "out")
    for number, path in enumerate((tmp_path / "out").rglob("samples_*.jsonl")):
        found = load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / str(number)))
        assert found.num_rows == len(path.read_text("utf-8").splitlines())


def test_a_second_export_replaces_the_first(exam: Path) -> None:
    """Below the run where no folder is named; ``--json`` says where."""
    said = [orin_run("export", exam, "--json").stdout for _ in range(2)]
    assert said[0] == said[1]
    files = json.loads(said[0])
    written = {str(path) for path in (exam / "lm-eval").rglob("*") if path.is_file()}
    assert written == {files["results"], *files["samples"]}
