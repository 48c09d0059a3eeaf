"""Run folders that are damaged: whatever reads one says file, line and key in one line, or shows what is there."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from eval.diff import diff
from eval.report.page import render, view
from eval.report.section import task_report
from eval.runs.measured import summary
from eval.runs.part import TaskCost
from eval.runs.resume import read_earlier
from eval.runs.run import Run
from eval.runs.writer import RunWriter
from orin_runner.cli.diff import print_diff
from orin_runner.cli.report import print_runs
from orin_runner.errors import UserError
from orin_runner.files import json_text
from orin_runner.runner import DecodeStats, RunStats
from tests.support.damage import damaged_bytes, damaged_json
from tests.support.predictions import NO_TOKENS, noise, prediction
from tests.support.samples import gpu, sample

HEADER: dict[str, Any] = {
    "format": 1,
    "engine": "llama.cpp",
    "command": "orin-run eval mmlu",
    "time": "2026-11-01T00:00:00+00:00",
    "versions": {"orin-run": "1", "python": "3"},
    "machine": "Linux",
    "model": {
        "name": "m.gguf",
        "sha256": "m",
        "checkpoint_sha256": "c",
        "architecture": "phi3",
        "types": {"BF16": 3, "F32": 1},
        "altered_values": 0,
        "window": 200,
        "window_honoured": True,
    },
    "device": [{"name": "CPU", "description": "a CPU"}],
    "gpu_layers": "0/2",
    "memory": {
        "device": {"name": "CPU", "available": 1 << 34, "unified": True, "cuda": False},
        "settings": {"n_cells": 512, "kv_type": "f16", "flash_attn": True},
        "terms": {"weights": 1 << 30, "KV cache": 1 << 20},
        "assumed": ["program"],
        "total": 1 << 30,
    },
    "settings": {"tasks": ["mmlu"], "limit": 3, "shots": "phi3", "chat": False, "splits": {"mmlu": "test"}},
    "resumed": ["2026-11-02T00:00:00+00:00"],
}
ITEMS = [
    prediction(0, "B", scores={"acc": 0.0, "acc_norm": 1.0}),
    prediction(1, scores={"acc": 1.0, "acc_norm": 1.0}, n_context=150),
    prediction(
        2, scores={"acc": 1.0, "acc_norm": 0.0}, logprobs=None, text="A", n_generated=3, decode_steps=1, drafted=2
    ),
]
CLOCKS = {"start": 0.1, "load": 1.0, "data": 0.1, "tokenize": 0.2, "inference": 3.0, "prefill": 2.0, "process": 5.0}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A whole run, with samples of two parts, costs and a report."""
    folder = tmp_path / "run"
    cards = [gpu("0", mib=9.0, watts=3.0, throttled=["thermal"]), gpu("1", celsius=40.0)]
    samples = [
        sample(part, float(t), computed=9 * t, done=t, watts=3.0, host_mib=5.0, gpus=cards)
        for part in (0, 1)
        for t in range(4)
    ]
    with RunWriter(folder, HEADER) as writer:
        for item in ITEMS:
            writer.write(item)
        writer.spent("mmlu", TaskCost(3, CLOCKS, RunStats(device=DecodeStats(tokens=5))), last=True)
        section = task_report(ITEMS, {**NO_TOKENS, "sent": 900, "unique": 450, "computed": 460}, CLOCKS)
        section |= {"noise": noise(0.03), "near_ties": 1, "split": "test", "rows": 9, "share_of_prompt_rate": 0.9}
        section["greedy"] = {"texts": 1, "decode_steps_per_text": 1.0, "drafted_share": 0.6}
        report = {
            "tasks": {"mmlu": section},
            "restarts": 1,
            "warnings": ["a risk"],
            "measured": summary(samples),
            "prompt_rate": {"tokens_per_s": 9.0},
        }
        writer.report(report)
    (folder / "samples.jsonl").write_bytes(b"".join(each.line() for each in samples))
    return folder


def look(folder: Path, other: Run) -> None:
    """All that reads a run; what it shows is strict JSON."""
    found = Run.open(folder)
    shown = view([found, other])
    render(shown)
    json_text(shown)
    print_runs(shown)
    results = [diff(found, other), diff(other, found)]
    json_text(results)
    print_diff(results)
    for part in read_earlier(folder, HEADER).parts:
        json_text({task: str(cost.together(cost)) for task, cost in part.items()})


def said(folder: Path, other: Run) -> str:
    """What is refused; empty where nothing is."""
    try:
        look(folder, other)
    except UserError as error:
        return str(error)
    return ""


FILES = ("run.json", "report.json", "predictions.jsonl", "samples.jsonl", "parts.json")


@pytest.mark.parametrize("name", FILES)
def test_any_value_and_any_byte(run: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By chance, seeded: one line of less than a screen, or a page and a comparison without NaN."""
    other = Run.open(run)
    assert said(run, other) == ""
    random = Random(f"run {name}")
    whole = (run / name).read_bytes()
    for _ in range(20):
        content = whole
        if random.random() < 0.2:
            content = damaged_bytes(content, random)
        elif name.endswith("l"):
            lines = content.splitlines(keepends=True)
            at = random.randrange(len(lines))
            lines[at] = damaged_json(lines[at], random) + b"\n"
            content = b"".join(lines)
        else:
            content = damaged_json(content, random)
        (run / name).write_bytes(content)
        message = said(run, other)
        assert len(message.splitlines()) <= 1, content[:300]
        assert len(message) < 1000, content[:300]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("run.json", '"m.gguf"', "3", r"run.json: 'model.name' is 3 and should be a valid string"),
        ("run.json", '"limit": 3', '"limit": "3"', r"run.json: 'settings.limit' is '3' and should be a valid number"),
        ("run.json", '"format": 1', '"format": 2', r"run.json: 'format' is 2 and should be 1"),
        ("run.json", '"format": 1', '"format": 1e999', "run.json is not valid JSON"),
        ("run.json", '"Linux"', '"\\ud83d"', "run.json is not valid JSON"),
        ("report.json", '"restarts": 1', '"restarts": NaN', "report.json is not valid JSON"),
        ("report.json", '"accuracy"', '"acuracy"', "report.json: no 'tasks.mmlu.accuracy'"),
        (
            "predictions.jsonl",
            '"margin": 0.5',
            '"margin": NaN',
            r"predictions.jsonl, line 1: not a prediction \('margin'",
        ),
        (
            "predictions.jsonl",
            '"acc": 1.0',
            '"acc": 1.5',
            "predictions.jsonl, line 2: not a prediction .'scores' are not",
        ),
        (
            "predictions.jsonl",
            '"n_tokens": 100',
            '"n_tokens": "x"',
            "predictions.jsonl, line 1: not a prediction .'n_tok",
        ),
        ("predictions.jsonl", '"task"', '"tusk"', "predictions.jsonl, line 1: not a prediction .no 'task'"),
    ],
)
def test_what_is_wrong_is_named(run: Path, name: str, old: str, new: str, message: str) -> None:
    other = Run.open(run)
    text = (run / name).read_text(encoding="utf-8")
    assert old in text
    (run / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        look(run, other)


def test_further_keys_are_accepted(run: Path) -> None:
    """A newer version may say more."""
    other = Run.open(run)
    for name in FILES:
        text = (run / name).read_text(encoding="utf-8")
        (run / name).write_text(text.replace("{", '{"new": [1, null], ', 1), encoding="utf-8")
    assert said(run, other) == ""


def test_damaged_costs_are_no_record(run: Path) -> None:
    """The run goes on without them, and its report says of how many items none was left."""
    for text in ("[{", '[{"mmlu": {"items": "3"}}]', '[{"mmlu": {"items": 3, "clocks": {"data": NaN}}}]', "{}"):
        (run / "parts.json").write_text(text, encoding="utf-8")
        assert read_earlier(run, HEADER).parts == []


def test_nothing_that_is_not_a_number_is_written(tmp_path: Path) -> None:
    """A NaN is an error of this program, and stops it."""
    with RunWriter(tmp_path / "r", HEADER) as writer:
        for bad in (float("nan"), float("inf")):
            with pytest.raises(ValueError, match="not JSON compliant"):
                writer.write(prediction(0, margin=bad))
            with pytest.raises(ValueError, match="not JSON compliant"):
                writer.report({"tasks": {}, "x": [bad]})
        writer.write(prediction(0))
    assert len(Run.open(tmp_path / "r").predictions) == 1


def test_names_that_are_no_utf8_are_written_as_question_marks(tmp_path: Path) -> None:
    """A folder on the command line may have one; the files stay strict JSON."""
    with RunWriter(tmp_path / "r", {**HEADER, "command": "orin-run --out r\udce9sum\udce9"}) as writer:
        writer.write(prediction(0, id="r\udce9"))
    found = Run.open(tmp_path / "r")
    assert found.header["command"] == "orin-run --out r?sum?"
    assert [key[1] for key in found.predictions] == ["r?"]
    json.loads((tmp_path / "r" / "run.json").read_bytes())
