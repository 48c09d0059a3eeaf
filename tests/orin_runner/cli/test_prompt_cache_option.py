"""``--prompt-cache`` that finds nothing to keep says why, and says nothing where it does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.batching.wanted_rows import MIN_BASE
from tests.support.commands import orin_run

NOTHING = "warning: nothing was taken from the prompt cache or kept in it: "


@pytest.fixture(scope="module")
def without_window(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.gguf"
    convert(Checkpoint.open(tiny), path, Options(window="off"))
    return path


def said(model: Path, folder: Path, prompt: str, *options: str) -> str:
    """What a run says that asks for two texts after ``prompt``."""
    questions = folder / "mine.jsonl"
    lines = [json.dumps({"prompt": f"{prompt} {end}", "answer": "x"}) + "\n" for end in ("one", "two")]
    questions.write_text("".join(lines), encoding="utf-8")
    words = (questions, "--model", model, "--out", folder / "run", "--prompt-cache", folder / "cache", *options)
    done = orin_run("eval", *words, "--max-new-tokens", "2", "-q")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_the_window_is_too_small(tmp_path: Path, tiny_gguf: Path) -> None:
    """The tiny model's has as many tokens as the shortest prefix that is kept, and a state ends within it."""
    line = f"{NOTHING}it takes {MIN_BASE} tokens and more that several prompts begin with, and the window has 256"
    assert line in said(tiny_gguf, tmp_path, "a b c d " * 200)


def test_nothing_long_is_shared(tmp_path: Path, without_window: Path) -> None:
    line = f"{NOTHING}no two of the prompts and choices begin with the same {MIN_BASE} tokens"
    assert line in said(without_window, tmp_path, "a b c")


def test_a_state_that_is_kept_goes_without_saying(tmp_path: Path, without_window: Path) -> None:
    assert NOTHING not in said(without_window, tmp_path, "a b c d " * 200)
    assert list((tmp_path / "cache").iterdir())


def test_a_folder_that_is_too_small_for_a_state(tmp_path: Path, without_window: Path) -> None:
    """Another reason has been said then."""
    stderr = said(without_window, tmp_path, "a b c d " * 200, "--prompt-cache-size", "1K")
    assert "is larger than the 1,024 bytes that the prompt cache may have" in stderr
    assert NOTHING not in stderr
    assert not list((tmp_path / "cache").iterdir())
