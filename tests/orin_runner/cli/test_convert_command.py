"""``python -m convert`` as a user meets it: what it replaces, what it refuses, and what make tells it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.checkpoints import phi3
from tests.support.commands import CONVERT, convert, refused
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return phi3(tmp_path_factory.mktemp("checkpoint") / "m", tiny, layers=1, hidden=64)


def test_only_force_replaces_an_earlier_gguf(checkpoint: Path, tmp_path: Path) -> None:
    """The second conversion is refused, the third one is not."""
    out = tmp_path / "m.gguf"
    assert convert(checkpoint, out).returncode == 0
    before = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    refused(convert(checkpoint, out), "m.gguf exists; --force replaces it")
    assert {path.name: path.stat().st_ino for path in tmp_path.iterdir()} == before
    done = convert(checkpoint, out, "--force")
    assert done.returncode == 0, done.stderr
    after = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert after.keys() == before.keys()
    assert after["m.gguf"] != before["m.gguf"]


def test_the_source_is_not_the_target(checkpoint: Path) -> None:
    """With --force, too; the checkpoint stays as it was."""
    before = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    for name in ("model.safetensors", "config.json"):
        refused(convert(checkpoint, checkpoint / name, "--force"), f"{name} was not written by a conversion")
    assert {path.name: path.read_bytes() for path in checkpoint.iterdir()} == before


def test_nothing_is_downloaded_for_a_target_that_is_refused(tmp_path: Path) -> None:
    """The hub would be asked only afterwards."""
    (tmp_path / "mine").write_text("a thesis")
    done = convert("nobody/nothing", tmp_path / "mine")
    refused(done, "mine was not written by a conversion")
    assert "downloading" not in done.stderr


def test_a_tokenizer_on_which_llama_cpp_ends_is_refused(checkpoint: Path, tmp_path: Path, tiny: Path) -> None:
    """SentencePiece with byte fallback, and no tokens for bytes: llama.cpp aborts, and the command does not."""
    directory = phi3(tmp_path / "m", tiny, layers=1, hidden=64)
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    tokenizer["model"]["vocab"] = {f"q{i}q" if name.startswith("<0x") else name: i for name, i in vocabulary.items()}
    path.write_text(json.dumps(tokenizer))
    refused(convert(directory, tmp_path / "out.gguf"), "llama.cpp cannot use the checkpoint's tokenizer: SIGABRT")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_what_transformers_says_of_settings_is_not_shown(checkpoint: Path, tmp_path: Path) -> None:
    """A padding token that is none, which a Phi-3 whose config.json names no other has by default."""
    directory = Path(shutil.copytree(checkpoint, tmp_path / "m"))
    path = directory / "config.json"
    config = json.loads(path.read_text())
    del config["pad_token_id"]
    path.write_text(json.dumps(config))
    done = convert(directory, tmp_path / "out.gguf")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("which", ["checkpoint", "out"])
def test_names_that_are_no_utf_8_end_in_one_line(checkpoint: Path, tmp_path: Path, which: str) -> None:
    """The tokenizers library and llama.cpp take UTF-8 alone."""
    directory = Path(os.fsdecode(os.fsencode(tmp_path / "m") + (b"\xff" if which == "checkpoint" else b"")))
    directory.symlink_to(checkpoint)
    out = Path(os.fsdecode(os.fsencode(tmp_path / "out") + (b"\xff.gguf" if which == "out" else b".gguf")))
    refused(convert(directory, out), "UTF-8")
    assert list(tmp_path.iterdir()) == [directory]


@pytest.mark.parametrize(
    ("arguments", "forced"), [(["run"], True), (["convert", "MODEL=m"], True), (["convert", "MODEL=m", "OUT=o"], False)]
)
def test_make_replaces_what_it_names_itself(arguments: list[str], forced: bool) -> None:
    """``make run`` and ``make convert`` without OUT can be repeated; what the user names is the user's."""
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "-m convert" in line)
    assert ("--force" in line.split()) is forced


@pytest.mark.parametrize("blocks", [1, 2000])
def test_a_file_that_takes_no_more_is_named(blocks: int, tiny: Path, tmp_path: Path) -> None:
    """While its header or its tensors are written; nothing is left of it."""
    command = " ".join([*CONVERT, str(tiny), str(tmp_path / "model.gguf")])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f {blocks}; exec {command}"], capture_output=True, text=True, check=False
    )
    refused(done, f"error: {tmp_path / 'model.gguf.partial'}: ")
    assert not list(tmp_path.iterdir())
