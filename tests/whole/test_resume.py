"""A run that is interrupted is taken up again; nothing lost, nothing asked twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.run import Run
from tests.support.commands import orin_run, orin_run_begun
from tests.support.moments import interrupted

ITEMS = 48


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, model: Path) -> dict[str, str]:
    """Answers of a run that nobody disturbs."""
    out = tmp_path_factory.mktemp("run") / "run"
    done = orin_run("eval", "exam", "--model", model, "--limit", str(ITEMS), "--out", out)
    assert done.returncode == 0, done.stderr
    return answers(out)


def answers(run: Path) -> dict[str, str]:
    lines = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    found = {line["id"]: line["prediction"] for line in lines}
    assert len(found) == len(lines), "an item stands there twice"
    return found


def test_ctrl_c_ends_with_a_partial_report(tmp_path: Path, model: Path, undisturbed: dict[str, str]) -> None:
    """What is answered is reported, and the run can go on."""
    out = tmp_path / "run"
    arguments = ("eval", "exam", "--model", model, "--out", out)
    process = orin_run_begun(*arguments)
    stdout, stderr = interrupted(process, out)
    assert "items unanswered" in stdout
    assert "--resume" in stderr
    section = Run.open(out).report["tasks"]["exam"]
    assert section["items"] + section["unanswered"] == 480
    assert 0 < section["items"] < 480
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"interrupted with {section['unanswered']} items not asked yet" in page
    sampled = (out / "samples.jsonl").read_bytes()
    done = orin_run(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert (out / "samples.jsonl").read_bytes().startswith(sampled)
    run = Run.open(out)
    assert {sample.part for sample in run.samples} == {0, 1}
    assert run.report["measured"]["samples"] == len(run.samples)
    again = answers(out)
    assert len(again) == 480
    assert all(again[key] == answer for key, answer in undisturbed.items())
