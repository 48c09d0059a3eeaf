"""vLLM beside this engine: what is said without it, and the whole script with a stand-in that answers by a rule."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.commands import refused
from tests.support.paths import ROOT
from tests.support.published import FILES
from tests.support.small_data import small_data

STAND_IN = '''
"""vLLM's names that the benchmark uses. A token's log-probability is a sum of what stands before it."""

import os
from dataclasses import dataclass

__version__ = "0.0.stand-in"
OLD = os.environ["STAND_IN"] == "old"


def TokensPrompt(prompt_token_ids):
    return {"prompt_token_ids": prompt_token_ids}


@dataclass
class Logprob:
    logprob: float


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int = 16
    detokenize: bool = True
    logprobs: int = 0
    prompt_logprobs: int = None
    allowed_token_ids: list = None
    if not OLD:
        logprob_token_ids: list = None


@dataclass
class Completion:
    logprobs: list


@dataclass
class Output:
    outputs: list
    prompt_logprobs: list


def value(prefix, token):
    return -((7 * len(prefix) + 3 * sum(prefix) + 5 * token) % 97) / 10


class LLM:
    def __init__(self, model, dtype, enable_prefix_caching, max_model_len):
        assert os.path.isdir(model) and dtype == "bfloat16" and enable_prefix_caching
        self.longest, self.filled = max_model_len, False

    def reset_prefix_cache(self):
        self.filled = False

    def generate(self, prompts, sampling_params, use_tqdm):
        assert not self.filled, "answered from what the round before has left"
        self.filled = True
        several = isinstance(sampling_params, list)
        each = sampling_params if several else [sampling_params] * len(prompts)
        return [self.answer(prompt["prompt_token_ids"], params) for prompt, params in zip(prompts, each, strict=True)]

    def answer(self, prompt, params):
        assert len(prompt) + params.max_tokens <= self.longest and params.temperature == 0 and params.max_tokens == 1
        decoy = {999_999: Logprob(0.0)}
        if params.prompt_logprobs:
            rows = [{token: Logprob(value(prompt[:i], token)), **decoy} for i, token in enumerate(prompt)]
            return Output([Completion([decoy])], [None, *rows[1:]])
        wanted = params.allowed_token_ids if OLD else params.logprob_token_ids
        if OLD:
            wanted = [max(wanted, key=lambda token: value(prompt, token))]
        return Output([Completion([{token: Logprob(value(prompt, token)) for token in wanted} | decoy])], None)
'''
ROW = re.compile(r"^\| (\w+) \| (\d+) \| (orin-run|vLLM) \S+ \|(?: [\d.]* \|){5} ([\d.]+)% \| (\d+) \| (\S+) \|$")


def value(prefix: Sequence[int], token: int) -> float:
    """The stand-in's rule."""
    return -((7 * len(prefix) + 3 * sum(prefix) + 5 * token) % 97) / 10


def bench_peer(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {name: text for name, text in os.environ.items() if name != "ORIN_DATA"} | variables
    command = [sys.executable, "-m", "benchmarks.bench_peer", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for PYTHONPATH."""
    folder = tmp_path_factory.mktemp("stand-in")
    (folder / "vllm.py").write_text(STAND_IN, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = small_data(tmp_path_factory.mktemp("data"))
    for name, text in FILES["mmlu"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text * 5 if "/dev/" in name else text, encoding="utf-8")
    return folder


def test_without_vllm_it_is_skipped_in_one_line() -> None:
    done = bench_peer()
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("skipped: vLLM is not installed")
    assert "pip install vllm" in line
    assert "--python" in line


def test_a_python_that_is_none_is_refused(tmp_path: Path) -> None:
    refused(bench_peer("--python", tmp_path / "python"), "cannot be started")


def test_what_is_not_there_is_refused(stand_in: Path, tiny: Path, tmp_path: Path) -> None:
    known = {"PYTHONPATH": str(stand_in), "STAND_IN": "new"}
    refused(bench_peer(**known), "--hf is missing")
    refused(bench_peer("--hf", tiny, "--gguf", tmp_path / "none.gguf", **known), "there is no")


def test_a_task_of_texts_is_refused(stand_in: Path, tiny: Path, tiny_gguf: Path, data: Path, tmp_path: Path) -> None:
    words = ("--hf", tiny, "--gguf", tiny_gguf, "--data", data, "--work", tmp_path, "--tasks", "exam")
    refused(bench_peer(*words, PYTHONPATH=str(stand_in), STAND_IN="new"), "exam asks for texts")


@pytest.mark.parametrize(("version", "tasks"), [("new", ["mmlu", "hellaswag"]), ("old", ["mmlu"])])
def test_letters_and_sums_are_read_from_the_right_tokens(
    stand_in: Path, tiny: Path, tiny_gguf: Path, data: Path, tmp_path: Path, version: str, tasks: list[str]
) -> None:
    """Both versions of vLLM's parameters; of the old one only the best letter's log-probability is known."""
    words = ("--hf", tiny, "--gguf", tiny_gguf, "--data", data, "--work", tmp_path, "--limit", "9")
    done = bench_peer(*words, "--tasks", ",".join(tasks), PYTHONPATH=str(stand_in), STAND_IN=version)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "|" + " --- |" * 11
    found = [match.groups() for match in map(ROW.match, done.stdout.splitlines()) if match]
    assert [row[:3] for row in found] == [(task, "9", side) for task in tasks for side in ("orin-run", "vLLM")]
    for task, theirs in zip(tasks, found[1::2], strict=True):
        items, sums, ours = read(tmp_path, task)
        expected = [
            [
                sum(value(item["prompt"] + choice[:i], choice[i]) for i in range(len(choice) - n, len(choice)))
                for choice, n in zip(item["choices"], item["scored"], strict=True)
            ]
            for item in items
        ]
        if task == "mmlu" and version == "old":
            expected = [[each if each == max(row) else None for each in row] for row in expected]
            letters = ["ABCD"[int(np.argmax([-np.inf if x is None else x for x in row]))] for row in expected]
            same = sum(letter == each["prediction"] for letter, each in zip(letters, ours, strict=True))
            assert theirs[4] == str(same)
        assert sums == [pytest.approx(row) for row in expected]
        differences = [
            abs(one - other)
            for row, each in zip(expected, ours, strict=True)
            for one, other in zip(row, each["logprobs"], strict=True)
            if one is not None
        ]
        assert float(theirs[5]) == pytest.approx(max(differences), rel=1e-2)
    assert {row[4] for row in found if row[2] == "orin-run"} == {"9"}


def read(work: Path, task: str) -> tuple[list[dict[str, Any]], list[list[float | None]], list[dict[str, Any]]]:
    """Items as vLLM got them, the sums it gave, and this engine's predictions; the prompts of both are the same."""
    items = json.loads((work / f"{task}-job.json").read_text(encoding="utf-8"))["items"]
    sums = json.loads((work / f"{task}-vllm.json").read_text(encoding="utf-8"))["sums"]
    lines = (work / f"{task}-orin-run" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    by_digest = {each["tokens_sha256"]: each for each in map(json.loads, lines)}
    digests = [hashlib.sha256(np.array(item["prompt"], dtype="<i4").tobytes()).hexdigest() for item in items]
    return items, sums, [by_digest[digest] for digest in digests]
