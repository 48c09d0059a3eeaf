"""``orin-run lm-eval`` leaves a run: what it holds, how it goes on, and what report, diff and export make of it."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.utils import sanitize_list

from eval.diff import diff
from eval.export.write import export
from eval.report.item_data import item_data
from eval.runs.items import ITEMS, read_items
from eval.runs.run import Run
from orin_runner.cli.config import toml_text, tomllib
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from tests.support.commands import orin_run, orin_run_begun, refused
from tests.support.harness_cases import write_lines
from tests.support.waiting import until

OFFLINE = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
ROWS = [
    {"question": f"Which of these is number {i}?", "choices": ["a red hat", "a pen", "the boat"], "answer": i % 3}
    for i in range(6)
]
QUESTION = "{{question}}\nAnswer:"
MEAN = {"aggregation": "mean", "higher_is_better": True}
TASKS: dict[str, dict[str, Any]] = {
    "choices": {
        "output_type": "multiple_choice",
        "doc_to_text": QUESTION,
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", **MEAN}, {"metric": "acc_norm", **MEAN}],
    },
    "texts": {
        "output_type": "generate_until",
        "doc_to_text": QUESTION,
        "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
        "metric_list": [{"metric": "exact_match", **MEAN}],
        "filter_list": [
            {"name": "first", "filter": [{"function": "regex", "regex_pattern": r"(\w)"}, {"function": "take_first"}]},
            {"name": "whole", "filter": [{"function": "take_first"}]},
        ],
    },
    "rolling": {
        "output_type": "loglikelihood_rolling",
        "doc_to_text": "",
        "doc_to_target": "{{question}}",
        "metric_list": [{"metric": "word_perplexity"}],
    },
}
"""Tasks in the harness's form; all read the same rows."""


def task_file(folder: Path, name: str) -> Path:
    path = folder / f"{name}.yaml"
    data = {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")}
    config = {"task": name, "dataset_path": "json", "dataset_kwargs": data, "test_split": "test", **TASKS[name]}
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Task files, one found by its path and two by their names, and their rows."""
    folder = tmp_path_factory.mktemp("tasks")
    write_lines(folder / "rows.jsonl", ROWS)
    for name in TASKS:
        task_file(folder, name)
    return folder


def lm_eval(*arguments: str | Path, cwd: Path | None = None) -> Any:
    return orin_run("lm-eval", *arguments, env=OFFLINE, cwd=cwd)


@pytest.fixture(scope="module")
def run(folder: Path, tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all of them, begun with paths that are relative."""
    out = tmp_path_factory.mktemp("run") / "run"
    options = ("--tasks", "choices.yaml,texts,rolling", "--include_path", ".", "--num_fewshot", "0", "--log-items")
    done = lm_eval(*options, "--model", tiny_gguf, "--out", out, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "rolling: no metric is a score of each item from 0 to 1" in done.stderr
    return out


@pytest.fixture
def broken_off(run: Path, tmp_path: Path) -> Path:
    """What a kill in the middle of ``run`` would have left: answers, the last one torn, and no results."""
    out = Path(shutil.copytree(run, tmp_path / "broken off"))
    for path in [*out.glob("samples_*"), *out.glob("report.*"), out / "results.json"]:
        path.unlink()
    (out / "predictions.jsonl").write_bytes(b"")
    answers = (out / "answers.jsonl").read_bytes()
    (out / "answers.jsonl").write_bytes(answers[: len(answers) // 2])
    return out


def predictions(run: Path) -> set[str]:
    return set((run / "predictions.jsonl").read_text("utf-8").splitlines())


def test_it_is_a_run(run: Path, tiny_gguf: Path) -> None:
    """Model, settings, one prediction an item with the digest of its prompt, and the harness's own numbers."""
    found, results = Run.open(run), json.loads((run / "results.json").read_text())
    file = GGUFFile.open(tiny_gguf)
    assert found.header["model"]["sha256"] == file.digest()
    settings = found.header["settings"]
    assert settings["tasks"] == ["choices.yaml", "texts", "rolling"]
    assert (settings["shots"], settings["chat"], settings["limit"]) == (0, False, None)
    assert set(found.predictions) == {(task, str(i)) for task in ("choices", "texts") for i in range(6)}
    assert found.samples
    prompts = [f"{row['question']}\nAnswer:" for row in ROWS]
    for tokens, i in zip(Tokenizer.from_gguf(file).encode(prompts), range(6), strict=True):
        assert {found.predictions[task, str(i)].n_tokens for task in ("choices", "texts")} == {len(tokens)}
    sections = found.report["tasks"]
    assert set(sections) == {"choices", "texts"}
    for metric in ("acc", "acc_norm"):
        value, error = (results["results"]["choices"][f"{metric}{part},none"] for part in ("", "_stderr"))
        assert sections["choices"]["metrics"][metric] == {"value": pytest.approx(value), "stderr": pytest.approx(error)}
    assert list(sections["texts"]["metrics"]) == ["exact_match,first", "exact_match,whole"]
    assert sections["choices"]["tokens"] is None
    assert (run / "report.html").read_text("utf-8").startswith("<!doctype html>")


def test_its_items_are_word_for_word(run: Path, tmp_path: Path) -> None:
    """Prompt, choices with their numbers and what ends a text; and they are in the report."""
    with gzip.open(run / ITEMS, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    items = {(line["task"], line["id"]): line for line in lines}
    assert set(items) == set(read_items(run)) == set(Run.open(run).predictions)
    for i, row in enumerate(ROWS):
        of_choices, of_text = items["choices", str(i)], items["texts", str(i)]
        assert of_choices["prompt"] == of_text["prompt"] == f"{row['question']}\nAnswer:"
        assert of_choices["choices"] == [f" {choice}" for choice in row["choices"]]
        assert of_choices["labels"] == ["0", "1", "2"]
        assert of_choices["right"] == [str(row["answer"])]
        assert of_choices["labels"][np.argmax(of_choices["logprobs"])] == of_choices["answer"]
        assert of_text["choices"] is None
        assert (of_text["until"], of_text["max_new_tokens"]) == (["\n"], 6)
        assert of_text["right"] == [row["choices"][row["answer"]]]
    assert ROWS[3]["question"] in json.dumps(item_data([Run.open(run)], ["run"]))
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    (bare / ITEMS).unlink()
    done = lm_eval("--resume", "--out", bare, "--log-items")
    assert f"nothing is left to go on with, and {ITEMS} is added" in done.stderr
    assert (bare / ITEMS).read_bytes() == (run / ITEMS).read_bytes()


def test_its_own_file_repeats_it(run: Path, tmp_path: Path) -> None:
    """From anywhere; what is typed comes before it, of the harness's options, too."""
    again = tmp_path / "again"
    done = lm_eval("--config", run / "run.toml", "--out", again, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert predictions(again) == predictions(run)
    assert (again / ITEMS).read_bytes() == (run / ITEMS).read_bytes()
    assert (again / "run.toml").read_bytes() == (run / "run.toml").read_bytes()
    written = tomllib.loads((run / "run.toml").read_text("utf-8"))
    assert set(written) == {"tasks", "model", "log-items", "arguments"}
    config = tmp_path / "mine.toml"
    config.write_text(toml_text({**written, "tasks": "choices", "arguments": [*written["arguments"], "--limit", "3"]}))
    done = lm_eval("--config", config, "--limit", "2", "--out", tmp_path / "fewer", "-q")
    assert (done.returncode, done.stderr) == (0, ""), "no bars either"
    assert set(Run.open(tmp_path / "fewer").predictions) == {("choices", "0"), ("choices", "1")}
    config.write_text('taks = "choices"\n')
    refused(lm_eval("--config", config), f"{config}: 'taks' is no option; did you mean 'tasks'?")
    config.write_text("num_fewshot = 5\n")
    refused(
        lm_eval("--config", config), 'no option; the harness\'s own options stand in arguments = ["--OPTION", "VALUE"]'
    )


def test_report_and_diff_take_it(run: Path, tmp_path: Path) -> None:
    """A task's prompts of other options are refused by name, as those of ``eval`` are."""
    done = orin_run("report", run, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "choices" in done.stdout
    found = diff(Run.open(run), Run.open(run))
    assert {task: section["flips"] for task, section in found["tasks"].items()} == {"choices": [], "texts": []}
    other = Path(shutil.copytree(run, tmp_path / "other"))
    header = json.loads((other / "run.json").read_text())
    for name, value in (("shots", 5), ("lm_eval", {"gen_kwargs": {"max_gen_toks": 9}})):
        changed = {**header, "settings": {**header["settings"], name: value}}
        (other / "run.json").write_text(json.dumps(changed))
        with pytest.raises(UserError, match=f"different --{name.replace('_', '-')}"):
            diff(Run.open(run), Run.open(other))


def test_a_broken_off_run_goes_on(run: Path, broken_off: Path, tmp_path: Path) -> None:
    """With nothing but its folder named, from anywhere: what is answered is not asked again."""
    held = (broken_off / "answers.jsonl").read_bytes()
    done = lm_eval("--resume", "--out", broken_off, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert predictions(broken_off) == predictions(run)
    whole = held[: held.rfind(b"\n") + 1]
    answers = (broken_off / "answers.jsonl").read_bytes()
    assert answers.startswith(whole)
    lines = answers.splitlines()
    assert len(set(lines)) == len(lines) == len((run / "answers.jsonl").read_bytes().splitlines())
    assert len(Run.open(broken_off).header["resumed"]) == 1
    ours, theirs = (json.loads((out / "results.json").read_text())["results"] for out in (run, broken_off))
    assert ours == theirs


def test_what_is_answered_needs_no_model_and_a_finished_run_nothing(run: Path, broken_off: Path) -> None:
    """All answers and no results, as a kill after the last answer leaves them."""
    shutil.copy(run / "answers.jsonl", broken_off / "answers.jsonl")
    done = lm_eval("--resume", "--out", broken_off)
    assert done.returncode == 0, done.stderr
    assert "loading" not in done.stderr
    assert predictions(broken_off) == predictions(run)
    before = {path.name: path.read_bytes() for path in broken_off.iterdir()}
    done = lm_eval("--resume", "--out", broken_off)
    assert done.returncode == 0, done.stderr
    assert "nothing is left to go on with" in done.stderr
    assert {path.name: path.read_bytes() for path in broken_off.iterdir()} == before


def test_ctrl_c_says_how_it_goes_on(folder: Path, tiny_gguf: Path, tmp_path: Path) -> None:
    """Once there is an answer."""
    write_lines(
        tmp_path / "rows.jsonl", [{**row, "question": f"{i} {row['question']}"} for i in range(60) for row in ROWS]
    )
    path, out = task_file(tmp_path, "texts"), tmp_path / "run"
    process = orin_run_begun("lm-eval", "--tasks", path, "--model", tiny_gguf, "--out", out)
    until(lambda: (out / "answers.jsonl").exists() and (out / "answers.jsonl").stat().st_size > 0, 120)
    process.send_signal(2)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr
    assert f"orin-run lm-eval --resume --out {out} goes on" in stderr.splitlines()[-1]


def test_other_settings_and_other_commands_are_refused(run: Path, broken_off: Path, tiny_gguf: Path) -> None:
    """Both values are named, or the command that goes on with the run."""
    before = {path.name: path.read_bytes() for path in broken_off.iterdir()}
    said = f"--limit default, not 2; orin-run lm-eval --resume --out '{broken_off}'"
    refused(lm_eval("--resume", "--out", broken_off, "--limit", "2"), said)
    refused(orin_run("eval", "--resume", "--out", broken_off), f"orin-run lm-eval --resume --out '{broken_off}'")
    refused(lm_eval("--tasks", "choices", "--model", tiny_gguf, "--out", run), "already holds")
    assert {path.name: path.read_bytes() for path in broken_off.iterdir()} == before


def test_a_run_of_eval_is_none_of_lm_eval(tmp_path: Path, tiny_gguf: Path) -> None:
    done = orin_run("eval", "exam", "--limit", "2", "--model", tiny_gguf, "--out", tmp_path / "exam")
    assert done.returncode == 0, done.stderr
    refused(lm_eval("--resume", "--out", tmp_path / "exam"), f"orin-run eval --resume --out {tmp_path / 'exam'}")


def test_the_hub_is_named_where_it_does_not_answer(tmp_path: Path, tiny_gguf: Path) -> None:
    config = {**TASKS["choices"], "task": "far", "dataset_path": "nobody/none", "test_split": "test"}
    (tmp_path / "far.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = lm_eval("--tasks", tmp_path / "far.yaml", "--model", tiny_gguf, "--out", tmp_path / "run")
    refused(done, "run it once where the hub answers")
    assert not (tmp_path / "run" / "run.json").exists()


def test_its_export_is_the_harness_s_own(run: Path, tmp_path: Path) -> None:
    """All that the harness said, perplexities too; samples as its ``EvaluationTracker`` writes them."""
    done = export(Run.open(run), tmp_path / "out")
    results, kept = (json.loads(path.read_text()) for path in (done.results, run / "results.json"))
    assert {name: results[name] for name in kept if name != "date"} == {n: v for n, v in kept.items() if n != "date"}
    assert set(results["task_hashes"]) == set(TASKS)
    assert done.without_prompts == []
    for path, task in zip(done.samples, results["configs"], strict=True):
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        raw = [json.loads(line) for line in (run / f"samples_{task}.jsonl").read_text("utf-8").splitlines()]
        for row, harness in zip(rows, raw, strict=True):
            assert row["resps"] == sanitize_list(harness["resps"])
            assert row["target"] == str(harness["target"])
            first = harness["arguments"][0]
            assert row["arguments"]["gen_args_0"] == {f"arg_{i}": each for i, each in enumerate(first)}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--measure-limit",), "lm-eval: unrecognized arguments: --measure-limit"),
        (("--num_fewshot", "two"), "lm-eval: argument --num_fewshot/-f: invalid int value: 'two'"),
        (("--limit",), "lm-eval: argument --limit/-L: expected one argument"),
    ],
)
def test_mistakes_in_the_harness_options_are_one_line(
    words: tuple[str, ...], said: str, tmp_path: Path, tiny_gguf: Path
) -> None:
    out = tmp_path / "run"
    refused(lm_eval("--tasks", "choices", "--model", tiny_gguf, "--out", out, *words), said)
    assert not out.exists()
