"""The drop-in pipeline gives what transformers' gives, in the same form, and refuses what it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers.pipelines.pt_utils import KeyDataset

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.tasks.exam import FILE
from orin_runner import pipeline
from orin_runner.errors import UserError
from orin_runner.text_generation import TextGeneration
from tests.support.paths import SUBMISSION, SUPPORT

GREEDY: dict[str, Any] = {"max_new_tokens": 500, "return_full_text": False, "do_sample": False}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def pipe(gguf: Path) -> Iterator[TextGeneration]:
    with pipeline("text-generation", model=gguf) as opened:
        yield opened


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The exam's text items in the challenge's form."""
    items = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    texts = [item for item in items if item["form"] == "text"]
    return [{"message": [{"role": "user", "content": i["prompt"]}], "answer": i["answer"]} for i in texts]


def printed(script: Path, *arguments: Path) -> list[str]:
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_example_script_prints_what_its_original_prints(
    tmp_path: Path, gguf: Path, tiny: Path, rows: list[dict[str, Any]]
) -> None:
    """Line by line over the whole exam, transformers in float32 against a BF16 GGUF."""
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    ours = printed(SUBMISSION / "run_challenge.py", gguf, data)
    theirs = printed(SUPPORT / "transformers_challenge.py", tiny, data)
    assert len(ours) == len(rows) > 300
    assert ours == theirs


def test_nesting_is_transformers_own(pipe: TextGeneration, tiny: Path, rows: list[dict[str, Any]]) -> None:
    """One conversation, a list of them, and the organisers' ``KeyDataset``: the same form and the same texts."""
    original = transformers.pipeline("text-generation", model=str(tiny), dtype=torch.float32, device="cpu")
    messages = [row["message"] for row in rows[:3]]
    for inputs in (messages[0], messages):
        assert pipe(inputs, **GREEDY) == original(inputs, **GREEDY)
    ours, theirs = (one(KeyDataset(rows[:3], "message"), **GREEDY) for one in (pipe, original))
    assert not isinstance(ours, list)
    assert iter(ours) is ours
    assert list(ours) == list(theirs) == pipe(messages, **GREEDY)


def test_full_text_puts_the_prompt_in_front(pipe: TextGeneration, rows: list[dict[str, Any]]) -> None:
    """A conversation grows by the assistant's message, a text by its continuation."""
    message = rows[0]["message"]
    answer = pipe(message, **GREEDY)[0]["generated_text"]
    whole = pipe(message, **{**GREEDY, "return_full_text": True})[0]["generated_text"]
    assert whole == [*message, {"role": "assistant", "content": answer}]
    text = pipe("The market opens", max_new_tokens=4)[0]["generated_text"]
    assert text.startswith("The market opens")
    assert len(text) > len("The market opens")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"do_sample": True}, "do_sample=True"),
        ({"num_beams": 4}, "num_beams=4"),
        ({"temperature": 0.7}, "temperature=0.7"),
        ({"penalty_alpha": 0.6}, "penalty_alpha"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(pipe: TextGeneration, arguments: Any, named: str) -> None:
    """Nothing is silently ignored."""
    with pytest.raises(UserError, match=named):
        pipe("text", **arguments)


@pytest.mark.parametrize("n", [0, -1])
def test_no_new_tokens_are_none(pipe: TextGeneration, n: int) -> None:
    """transformers refuses them, too."""
    with pytest.raises(UserError, match=f"max_new_tokens={n} leaves nothing to generate"):
        pipe("Who?", max_new_tokens=n)


def test_other_tasks_options_and_inputs_are_refused(gguf: Path, pipe: TextGeneration) -> None:
    """Each with what to do instead."""
    with pytest.raises(UserError, match="fill-mask"):
        pipeline("fill-mask", model=gguf)
    with pytest.raises(UserError, match="torch_dtype"):
        pipeline("text-generation", model=gguf, torch_dtype="auto")
    with pytest.raises(UserError, match="input 2 is neither"):
        pipe(["text", 3])
    with pytest.raises(UserError, match="fit"):
        pipe("word " * 5000)
