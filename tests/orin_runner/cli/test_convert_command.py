"""``python -m convert`` as a user meets it: what it replaces, what it refuses, and what make tells it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from orin_runner.workers.vocabulary import tokenized
from tests.support.checkpoints import phi3
from tests.support.commands import CONVERT, ORIN_RUN, convert, orin_run, refused
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


def test_a_checkpoint_whose_name_is_no_utf_8_is_to_be_renamed(checkpoint: Path, tiny: Path, tmp_path: Path) -> None:
    """The tokenizers and safetensors libraries take UTF-8 alone, whichever command calls them."""
    directory = tmp_path / os.fsdecode(b"m\xff")
    directory.symlink_to(checkpoint)
    said = "is not a name in UTF-8; rename it"
    refused(convert(directory, tmp_path / "out.gguf"), said)
    assert list(tmp_path.iterdir()) == [directory]
    refused(orin_run("reference", "exam", "--model", directory, "--out", tmp_path / "run"), said)
    assert list(tmp_path.iterdir()) == [directory]
    assert convert(tiny, tmp_path / "sound.gguf").returncode == 0
    refused(orin_run("plan", "exam", "--model", tmp_path / "sound.gguf", "--tokenizer", directory), said)


def test_a_gguf_may_have_any_name(tiny: Path, tmp_path: Path) -> None:
    """It is written, proved and run, with llama.cpp's own vocabulary as well."""
    out = tmp_path / os.fsdecode(b"m\xff.gguf")
    assert convert(tiny, out).returncode == 0
    done = orin_run("selftest", "--requests", "2", "--model", out)
    assert done.returncode == 0, done.stderr
    assert tokenized(out, ["a"]) != [[]]


@pytest.mark.parametrize(
    ("arguments", "forced"), [(["run"], True), (["convert", "MODEL=m"], True), (["convert", "MODEL=m", "OUT=o"], False)]
)
def test_make_replaces_what_it_names_itself(arguments: list[str], forced: bool) -> None:
    """``make run`` and ``make convert`` without OUT can be repeated; what the user names is the user's."""
    done = subprocess.run(["make", "-n", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    (line,) = (line for line in done.stdout.splitlines() if "-m convert" in line)
    assert ("--force" in line.split()) is forced


@pytest.mark.parametrize(("blocks", "program"), [(1, CONVERT), (2000, CONVERT), (2000, (*ORIN_RUN, "convert"))])
def test_a_file_that_takes_no_more_is_named(blocks: int, program: Sequence[str], tiny: Path, tmp_path: Path) -> None:
    """While its header or its tensors are written; nothing is left of it."""
    command = " ".join([*program, str(tiny), str(tmp_path / "model.gguf")])
    done = subprocess.run(
        ["sh", "-c", f"ulimit -f {blocks}; exec {command}"], capture_output=True, text=True, check=False
    )
    refused(done, f"error: {tmp_path / 'model.gguf.partial'}: ")
    assert done.stderr.endswith("; a GGUF is written whole or not at all\n")
    assert not list(tmp_path.iterdir())


def test_orin_run_convert_is_the_same_program(tiny: Path, tmp_path: Path) -> None:
    """Its file and its lines."""
    for program, name in ((convert, "one"), (partial(orin_run, "convert"), "two")):
        (tmp_path / name).mkdir()
        done = program(tiny, tmp_path / name / "m.gguf", "-q")
        assert (done.returncode, done.stderr) == (0, "")
        assert "0 values altered; compared bit for bit after reopening the file" in done.stdout
    one, two = ((tmp_path / name / "m.gguf").read_bytes() for name in ("one", "two"))
    assert one == two


def test_without_the_libraries_that_it_takes(tiny: Path, tmp_path: Path) -> None:
    """One line says what to install; the other commands are there."""
    code = "import sys; sys.modules['safetensors'] = None; from orin_runner.cli.main import main; main()"

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False, cwd=ROOT
        )

    refused(run("convert", tiny, tmp_path / "m.gguf"), "; pip install 'orin-run[convert]'")
    assert run("tasks").returncode == 0
