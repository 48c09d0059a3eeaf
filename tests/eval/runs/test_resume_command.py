"""``orin-run eval --resume`` on what is finished, not to be gone on with, or gone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from tests.support.commands import orin_run, orin_run_begun, refused
from tests.support.moments import wait_for_an_answer

ITEMS = 8


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder with the tiny model and a finished run of it."""
    folder = tmp_path_factory.mktemp("made")
    convert(Checkpoint.open(tiny), folder / "tiny.gguf", Options())
    done = orin_run("eval", "exam", "--model", folder / "tiny.gguf", "--limit", str(ITEMS), "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    return folder


def state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_a_finished_run_is_left_as_it_is(made: Path, tmp_path: Path) -> None:
    """No byte and no time of it is changed; a page that is missing is written."""
    out = Path(shutil.copytree(made / "run", tmp_path / "run"))
    command = ("eval", "exam", "--model", made / "tiny.gguf", "--limit", str(ITEMS), "--out", out, "--resume")
    before = state(out)
    done = orin_run(*command)
    assert done.returncode == 0, done.stderr
    assert f"holds all {ITEMS} answers: nothing is left to go on with, and nothing is changed" in done.stderr
    assert state(out) == before
    (out / "report.html").unlink()
    assert orin_run(*command).returncode == 0
    after = state(out)
    assert after.pop("report.html")[0].startswith(b"<!doctype html>")
    assert after == {name: kept for name, kept in before.items() if name != "report.html"}


def test_what_is_refused_is_left_as_it_is(made: Path, tmp_path: Path) -> None:
    """Answers to another question, with the last line torn; other settings."""
    out = Path(shutil.copytree(made / "run", tmp_path / "run"))
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    row = {**json.loads(lines[0]), "tokens_sha256": "0" * 64}
    (out / "predictions.jsonl").write_bytes(b"".join([json.dumps(row).encode(), b"\n", *lines[1:-1], lines[-1][:-9]]))
    before = state(out)
    command = ("eval", "exam", "--model", made / "tiny.gguf", "--out", out, "--resume", "--limit")
    refused(orin_run(*command, str(ITEMS)), "is another question than in the run to resume")
    assert state(out) == before
    refused(orin_run(*command, str(ITEMS + 1)), f"holds a run with --limit {ITEMS}, not {ITEMS + 1}")
    assert state(out) == before


def test_run_json_alone_is_resumed(made: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(made / "run" / "run.json", tmp_path / "run")
    command = ("eval", "exam", "--model", made / "tiny.gguf", "--limit", str(ITEMS), "--out", tmp_path / "run")
    done = orin_run(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert len(Run.open(tmp_path / "run").predictions) == ITEMS


def test_a_folder_that_is_removed_ends_the_run(made: Path, tmp_path: Path) -> None:
    """With status 1 and what was lost."""
    out = tmp_path / "run"
    process = orin_run_begun("eval", "exam", "--model", made / "tiny.gguf", "--out", out)
    wait_for_an_answer(process, out)
    out.rename(tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "predictions.jsonl was removed or renamed while the run wrote it" in stderr
    assert "answers of the run are lost" in stderr
    assert "Traceback" not in stderr
    assert not out.exists()
