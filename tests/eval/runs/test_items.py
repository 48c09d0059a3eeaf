"""``items.jsonl.gz``: what a run was asked, word for word, and what it answered."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.runs.run import Run
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from tests.support.commands import orin_run, orin_run_begun
from tests.support.moments import interrupted
from tests.support.paths import TINY
from tests.support.small_data import small_data

LONG = {"prompt": "word " * 5000, "answer": "x"}


def items(run: Path) -> dict[tuple[str, str], dict[str, Any]]:
    lines = gzip.decompress((run / "items.jsonl.gz").read_bytes()).decode().splitlines()
    found = {(row["task"], row["id"]): row for row in map(json.loads, lines)}
    assert len(found) == len(lines)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> dict[str, Path]:
    """A run of the engine and one of transformers, with items in every form: chat, letters, texts, sentences."""
    folder = tmp_path_factory.mktemp("items")
    data = small_data(folder / "data")
    (folder / "long.jsonl").write_text(json.dumps(LONG) + "\n")
    tasks = ("exam", "winogrande", "hellaswag", folder / "long.jsonl", "--data", data, "--limit", "6", "--log-items")
    found = {}
    for command, model in (("eval", tiny_gguf), ("reference", TINY)):
        found[command] = folder / command
        done = orin_run(command, *tasks, "--model", model, "--out", found[command])
        assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("command", ["eval", "reference"])
def test_the_prompt_is_what_was_tokenized(runs: dict[str, Path], tiny_gguf: Path, command: str) -> None:
    """Its token ids, less the first ``truncated``, have the digest that ``predictions.jsonl`` has."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(tiny_gguf))
    found, predictions = items(runs[command]), Run.open(runs[command]).predictions
    assert list(found) != []
    assert set(found) == set(predictions)
    compared = 0
    for key, row in found.items():
        if row["prompt"] is not None:
            (tokens,) = tokenizer.encode([row["prompt"]], special=not row["prompt"].startswith("<|user|>"))
            tokens = tokens[row["truncated"] :]
            assert hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest() == predictions[key].tokens_sha256, key
            assert len(tokens) == row["n_tokens"]
            compared += 1
    assert compared == 6 + 6 + 1
    assert found["long.jsonl", "1"]["truncated"] > 0


@pytest.mark.parametrize("command", ["eval", "reference"])
def test_a_line_has_the_answer_that_the_run_has(runs: dict[str, Path], command: str) -> None:
    found, predictions = items(runs[command]), Run.open(runs[command]).predictions
    for key, row in found.items():
        prediction = predictions[key]
        assert (row["answer"], row["target"], row["correct"]) == (
            prediction.prediction,
            prediction.target,
            prediction.correct,
        )
        assert (row["text"], row["margin"], row["scores"]) == (prediction.text, prediction.margin, prediction.scores)
        assert (row["failed"], row["skipped"], row["group"]) == (None, None, prediction.group)
        if prediction.logprobs is None:
            assert (row["logprobs"], row["choices"], row["labels"], row["choice_tokens"]) == (None,) * 4
            assert (row["max_new_tokens"], row["until"]) == ((256, ["\n\n"]) if key[0] == "long.jsonl" else (500, []))
        else:
            assert row["logprobs"] == list(prediction.logprobs)
            best = row["labels"][int(np.argmax(row["logprobs"]))]
            assert best == row["answer"] or key[0] != "winogrande"
            assert len(row["choices"]) == len(row["labels"]) == len(row["choice_tokens"]) == len(row["logprobs"])
            assert row["target"] in row["labels"]
        assert row["right"] == [prediction.target]


def test_both_engines_were_asked_the_same(runs: dict[str, Path]) -> None:
    ours, theirs = (items(runs[command]) for command in ("eval", "reference"))
    keys = ("prompt", "prompts", "choices", "labels", "target", "right", "n_tokens", "choice_tokens", "truncated")
    assert {name: [row[key] for key in keys] for name, row in ours.items()} == {
        name: [row[key] for key in keys] for name, row in theirs.items()
    }


def test_an_interrupted_run_has_what_is_answered_and_the_resumed_one_all(tmp_path: Path, tiny_gguf: Path) -> None:
    """--resume was told of --log-items by ``run.json``."""
    out = tmp_path / "run"
    process = orin_run_begun("eval", "exam", "--model", tiny_gguf, "--log-items", "--out", out)
    interrupted(process, out)
    assert set(items(out)) == set(Run.open(out).predictions)
    assert len(items(out)) < 480
    done = orin_run("eval", "--resume", "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(items(out)) == 480


def test_a_finished_run_gets_them_afterwards(tmp_path: Path, tiny_gguf: Path) -> None:
    """And nothing without the option."""
    out = tmp_path / "run"
    done = orin_run("eval", "exam", "--limit", "4", "--model", tiny_gguf, "--out", out)
    assert done.returncode == 0, done.stderr
    assert not (out / "items.jsonl.gz").exists()
    assert orin_run("eval", "--resume", "--out", out, "--log-items").returncode == 0
    assert set(items(out)) == set(Run.open(out).predictions)
