"""Runs that survive: killed at any moment, interrupted, taken up again; nothing lost, nothing asked twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run, RunWriter
from eval.tasks.doc import Prediction
from orin_runner.errors import UserError

COMMAND = [sys.executable, "-m", "orin_runner", "eval", "exam"]
HEADER: dict[str, Any] = {"engine": "x", "time": "now", "model": {"sha256": "m"}, "settings": {"limit": None}}
ITEMS = 48


def prediction(i: int) -> Prediction:
    return Prediction("t", str(i), "g", "A", "A", correct=True, logprobs=(0.0,), text=None, margin=1.0, n_tokens=1,
                      tokens_sha256="0")  # fmt: skip


def begin(folder: Path, n: int) -> None:
    with RunWriter(folder, HEADER) as writer:
        for i in range(n):
            writer.write(prediction(i))


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_torn_last_line_is_dropped(tmp_path: Path, cut: int) -> None:
    """Whatever part of it had reached the disk."""
    begin(tmp_path, 3)
    path = tmp_path / "predictions.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with RunWriter(tmp_path, HEADER, resume=True) as writer:
        assert writer.torn
        assert set(writer.known) == {("t", "0"), ("t", "1")}
        writer.write(prediction(2))
    assert len(Run.open(tmp_path).predictions) == 3


def test_what_cannot_be_resumed_is_refused(tmp_path: Path) -> None:
    """No run, another model, other settings, a line in the middle that is not whole: nothing is written."""
    with pytest.raises(UserError, match="does not hold a run to resume"):
        RunWriter(tmp_path / "none", HEADER, resume=True)
    assert not (tmp_path / "none").exists()
    begin(tmp_path / "run", 3)
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    for other in ({"model": {"sha256": "other"}}, {"settings": {"limit": 3}}, {"engine": "y"}):
        with pytest.raises(UserError, match="holds a run with other"):
            RunWriter(tmp_path / "run", {**HEADER, **other}, resume=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    lines = before["predictions.jsonl"].splitlines(keepends=True)
    (tmp_path / "run" / "predictions.jsonl").write_bytes(lines[0] + b"{\n" + lines[2])
    with pytest.raises(UserError, match="line 2"):
        RunWriter(tmp_path / "run", HEADER, resume=True)


def test_two_processes_on_one_folder_are_refused(tmp_path: Path) -> None:
    """The second one, for as long as the first writes."""
    begin(tmp_path, 1)
    with RunWriter(tmp_path, HEADER, resume=True):
        code = (
            "import sys; from pathlib import Path; from eval.runs.run import RunWriter\n"
            f"RunWriter(Path({str(tmp_path)!r}), {HEADER!r}, resume=True)"
        )
        second = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "another process is writing" in second.stderr
    with RunWriter(tmp_path, HEADER, resume=True):
        pass


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, str]:
    """Answers of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("run") / "run"
    subprocess.run([*COMMAND, "--model", model, "--limit", str(ITEMS), "--out", out], capture_output=True, check=True)
    return answers(out)


def answers(run: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    found = {line["id"]: line["prediction"] for line in lines}
    assert len(found) == len(lines), "an item stands there twice"
    return found


def disturb(model: Path, out: Path, how: signal.Signals, after: float, *options: str) -> subprocess.Popen[str]:
    """Start a run and send a signal after so many seconds."""
    process = subprocess.Popen(
        [*COMMAND, "--model", model, "--limit", str(ITEMS), "--out", out, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    time.sleep(after)
    process.send_signal(how)
    return process


def test_fifty_kills(tmp_path: Path, model: Path, undisturbed: dict[str, str]) -> None:
    """SIGKILL at fifty random moments, each run taken up where the last one was killed, begun anew when it is done."""
    rng = random.Random(1)
    finished = 0
    out = tmp_path / "run-0"
    for _ in range(50):
        resume = ["--resume"] if (out / "run.json").exists() else []
        process = disturb(model, out, signal.SIGKILL, rng.uniform(0.3, 3.5), *resume)
        process.communicate()
        if (out / "report.json").exists():
            assert answers(out) == undisturbed
            finished += 1
            out = tmp_path / f"run-{finished}"
    done = subprocess.run(
        [*COMMAND, "--model", model, "--limit", str(ITEMS), "--out", out]
        + (["--resume"] if (out / "run.json").exists() else []),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert answers(out) == undisturbed


def test_ctrl_c_ends_with_a_partial_report(tmp_path: Path, model: Path, undisturbed: dict[str, str]) -> None:
    """What is answered is reported, and the run can go on."""
    out = tmp_path / "run"
    command = [*COMMAND, "--model", model, "--out", out]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (out / "predictions.jsonl").exists() or not (out / "predictions.jsonl").stat().st_size:
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "items unanswered" in stdout
    assert "--resume" in stderr
    section = Run.open(out).report["tasks"]["exam"]
    assert section["items"] + section["unanswered"] == 480
    assert 0 < section["items"] < 480
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"interrupted with {section['unanswered']} items not asked yet" in page
    sampled = (out / "samples.jsonl").read_bytes()
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (out / "samples.jsonl").read_bytes().startswith(sampled)
    run = Run.open(out)
    assert {sample.part for sample in run.samples} == {0, 1}
    assert run.report["measured"]["samples"] == len(run.samples)
    again = answers(out)
    assert len(again) == 480
    assert all(again[key] == answer for key, answer in undisturbed.items())
