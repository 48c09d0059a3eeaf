"""``orin-run reference`` as a user meets it: its options, its files and what it prints."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from safetensors.torch import load_file, save_file

from eval.runs.run import Run
from orin_runner.cli.config import read_config
from orin_runner.cli.eval import eval_command
from orin_runner.cli.main import app
from orin_runner.cli.reference import reference_command
from orin_runner.requests import NOT_FINITE
from tests.support.commands import orin_run, refused

COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def test_it_bounds_texts_as_eval_does(tiny: Path, tmp_path: Path) -> None:
    """The bound holds and is in ``run.json``; nothing is said that was not measured; the clocks begin at the start."""
    out = tmp_path / "run"
    arguments = ("--limit", "8", "--max-new-tokens", "3", "--model", tiny, "--out", out)
    began = time.perf_counter()
    done = orin_run("reference", "exam", *arguments, env={"ORIN_DATA": ""})
    wall = time.perf_counter() - began
    assert done.returncode == 0, done.stderr
    assert "Loading weights" not in done.stderr  # transformers' own progress, drawn with control characters
    repeats = {"tasks": ["exam"], "model": str(tiny.absolute()), "limit": "8", "max-new-tokens": "3"}
    assert read_config(out / "run.toml", COMMANDS["reference"]) == repeats
    run = Run.open(out)
    assert run.header["settings"]["max_new_tokens"] == 3
    texts = [item for item in run.predictions.values() if item.text is not None]
    assert len(texts) == 6
    section = run.report["tasks"]["exam"]
    # No answer of the exam ends within three tokens, so that two of each are computed.
    assert section["tokens"]["computed"] == sum(item.n_tokens for item in run.predictions.values()) + 2 * len(texts)
    assert section["tokens"]["sent"] == section["tokens"]["computed"]
    assert (section["noise"], section["near_ties"]) == (None, None)
    assert "near-tie" not in done.stdout
    assert "near-ties not measured" in (out / "report.html").read_text(encoding="utf-8")
    clocks = section["clocks"]
    assert clocks["start"] > 0
    assert clocks["load"] > 0
    before = clocks["start"] + clocks["load"]
    assert before + clocks["challenge 2024"] - 1e-3 <= clocks["challenge 2023"] <= wall
    assert clocks["prefill"] + clocks["decode"] <= clocks["inference"] + 1e-3


@pytest.mark.parametrize("name", ["max_new_tokens", "limit", "shots", "scoring", "chat"])
def test_options_of_the_questions_are_evals(name: str) -> None:
    """One option, one meaning: the same names, type, bounds and help."""
    ours, evals = (get_type_hints(command, include_extras=True) for command in (reference_command, eval_command))
    assert ours[name] == evals[name]


def test_a_checkpoint_that_is_not_finite_fails_its_items(tiny: Path, tmp_path: Path) -> None:
    """They count as wrong, their lines are strict JSON, and the exit status is 1."""
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    weights = load_file(checkpoint / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    out = tmp_path / "run"
    done = orin_run("reference", "exam", "--limit", "8", "--max-new-tokens", "3", "--model", checkpoint, "--out", out)
    assert done.returncode == 1, done.stderr
    assert done.stderr.splitlines()[-1] == f"error: 8 items failed and count as wrong: {out}/predictions.jsonl says why"
    assert {item.failed for item in Run.open(out).predictions.values()} == {NOT_FINITE}
    assert Run.open(out).report["tasks"]["exam"]["accuracy"] == 0


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", {"torch_dtype": "float17", "dtype": "float17"}, "transformers cannot load"),
        ("config.json", {"initializer_range": "x"}, "transformers cannot load"),
        ("tokenizer.json", {"added_tokens": None}, "transformers cannot load the tokenizer of"),
        ("tokenizer.json", {"model": {}}, "transformers cannot load the tokenizer of"),
    ],
)
def test_whatever_transformers_raises_at_a_checkpoint_is_one_line(
    tiny: Path, tmp_path: Path, name: str, change: dict[str, object], message: str
) -> None:
    checkpoint = Path(shutil.copytree(tiny, tmp_path / "checkpoint"))
    value = json.loads((checkpoint / name).read_text(encoding="utf-8"))
    (checkpoint / name).write_text(json.dumps({**value, **change}), encoding="utf-8")
    done = orin_run("reference", "exam", "--limit", "8", "--model", checkpoint, "--out", tmp_path / "run")
    refused(done, message)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["meta", "nonsense", "cuda:x"])
def test_other_devices_are_refused(device: str, tiny: Path, tmp_path: Path) -> None:
    """torch knows some on which nothing is computed; nothing is written then, and no progress of a library shown."""
    done = orin_run("reference", "exam", "--model", tiny, "--limit", "1", "--device", device, "--out", tmp_path / "run")
    refused(done, f"unknown device {device!r}; --device is cpu or cuda")
    assert not (tmp_path / "run").exists()
