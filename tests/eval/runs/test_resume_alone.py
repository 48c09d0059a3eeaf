"""``orin-run eval --resume --out DIR`` alone: everything else comes from ``run.json``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.runs.run import Run
from tests.support.commands import orin_run, orin_run_begun, refused
from tests.support.moments import interrupted
from tests.support.small_data import small_data

FISH = {"question": "Which is a fish?", "choices": ["whale", "trout"], "answer": "B"}
FISHES = {"question": "Which are fish?", "choices": ["trouts", "whales"], "answer": "A"}
OPTIONS = ("--limit", "8", "--max-new-tokens", "9", "--shots", "0", "--too-long", "skip", "--no-draft")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path) -> Path:
    """A folder with a finished run with many options, all files named relative to that folder."""
    folder = tmp_path_factory.mktemp("made")
    for path in tiny_gguf.parent.iterdir():
        shutil.copy(path, folder)
    small_data(folder / "data")
    (folder / "mine.jsonl").write_text(json.dumps(FISH) + "\n" + json.dumps(FISHES) + "\n")
    (folder / "t.txt").write_text("{question} {choices}:")
    words = ("exam", "winogrande", "mine.jsonl", "--model", "tiny.gguf", "--data", "data", "--template", "t.txt")
    done = orin_run("eval", *words, *OPTIONS, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def torn(made: Path, folder: Path) -> Path:
    """A copy of the run that has lost its last line; the reports, too, where it was killed."""
    out = Path(shutil.copytree(made / "run", folder / "run"))
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[:-1]))
    return out


def test_it_goes_on_elsewhere_with_everything(made: Path, tmp_path: Path) -> None:
    """In another folder, with another default model and another data folder in the environment."""
    out = torn(made, tmp_path)
    before = Run.open(made / "run")
    done = orin_run(
        "eval", "--resume", "--out", "run", cwd=tmp_path, env={"ORIN_MODEL": "/nowhere.gguf", "ORIN_DATA": "/nowhere"}
    )
    assert done.returncode == 0, done.stderr
    n = len(before.predictions)
    assert f"run holds {n - 1} answers of {n}" in done.stderr
    run = Run.open(out)
    assert run.header["settings"] == before.header["settings"]
    assert {key: item.prediction for key, item in run.predictions.items()} == {
        key: item.prediction for key, item in before.predictions.items()
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--limit", "9"), "--limit 8, not 9"),
        (("--chat",), "--chat off, not on"),
        (("--draft",), "--draft off, not on"),
        (("--too-long", "truncate"), "--too-long skip, not truncate"),
        (("--scoring", "text"), "--scoring default, not text"),
        (("--shard", "1/2"), "--shard default, not 1/2"),
        (("--limit", "9", "--max-new-tokens", "10"), "--max-new-tokens 9, not 10"),
        (("exam", "mine.jsonl"), "tasks exam winogrande mine.jsonl, not exam mine.jsonl"),
        (("--fewshot", "mine.jsonl"), "questions mine.jsonl: "),
    ],
    ids=" ".join,
)
def test_a_setting_that_differs_is_named_with_both_values(
    made: Path, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    """And refused; nothing is changed."""
    out = torn(made, tmp_path)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    words = tuple(str(made / word) if word.endswith(".jsonl") else word for word in words)
    done = orin_run("eval", *words, "--resume", "--out", out)
    refused(done, f"{out} holds a run with ")
    assert said in done.stderr
    assert f"orin-run eval --resume --out {out} takes all of it from run.json" in done.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_the_same_settings_may_be_given_again(made: Path, tmp_path: Path) -> None:
    out = torn(made, tmp_path)
    done = orin_run("eval", *OPTIONS, "--resume", "--out", out)
    assert done.returncode == 0, done.stderr


def test_files_that_have_moved_are_named_again(made: Path, tmp_path: Path) -> None:
    """What is typed counts where it is the same model; another one is refused with both digests."""
    out = torn(made, tmp_path)
    header = json.loads((out / "run.json").read_text())
    header["options"]["model"] = "/gone/tiny.gguf"
    (out / "run.json").write_text(json.dumps(header))
    refused(orin_run("eval", "--resume", "--out", out), "/gone/tiny.gguf does not exist")
    done = orin_run("eval", "--resume", "--out", out, "--model", made / "tiny.gguf")
    assert done.returncode == 0, done.stderr


def test_a_run_from_before_is_told_what_its_settings_lack(made: Path, tmp_path: Path) -> None:
    """``options`` came later: tasks and settings are there, model and data are given."""
    out = Path(shutil.copytree(made / "run", tmp_path / "run"))
    header = json.loads((out / "run.json").read_text())
    del header["options"]
    (out / "run.json").write_text(json.dumps(header))
    named = ("--model", "tiny.gguf", "--data", "data", "--template", "t.txt")
    done = orin_run("eval", "--resume", "--out", out, *named, cwd=made)
    assert "nothing is left to go on with" in done.stderr, done.stderr


@pytest.mark.parametrize("options", [{"model": ["a"]}, {"model": {}}, [], {"device": {"a": 1}}])
def test_damaged_options_are_one_line(made: Path, tmp_path: Path, options: Any) -> None:
    out = torn(made, tmp_path)
    header = {**json.loads((out / "run.json").read_text()), "options": options}
    (out / "run.json").write_text(json.dumps(header))
    refused(orin_run("eval", "--resume", "--out", out), "")


def test_no_task_and_nothing_to_resume(tmp_path: Path) -> None:
    refused(orin_run("eval", cwd=tmp_path), "no task is named")
    refused(orin_run("eval", "--resume", cwd=tmp_path), "--resume needs --out")
    refused(orin_run("eval", "--resume", "--out", "x", cwd=tmp_path), "x does not hold a run to resume")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / "predictions.jsonl").touch()
    refused(orin_run("eval", "--resume", "--out", "killed", cwd=tmp_path), "no task is named")


def test_ctrl_c_says_exactly_that_command(tmp_path: Path, tiny_gguf: Path) -> None:
    """With quotes where the folder needs them; and it goes on."""
    out = tmp_path / "a run"
    process = orin_run_begun("eval", "exam", "--limit", "400", "--model", tiny_gguf, "--out", out)
    _, stderr = interrupted(process, out)
    assert stderr.splitlines()[-1].endswith(f"; orin-run eval --resume --out '{out}' goes on")
    done = orin_run("eval", "--resume", "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(Run.open(out).predictions) == 400
