"""``orin-run report``: where it writes a page."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.commands import orin_run, refused
from tests.support.paths import REFERENCE


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(REFERENCE / "float32", tmp_path / "run"))


@pytest.mark.parametrize("name", ["predictions.jsonl", "run.json", "model.gguf"])
def test_only_a_page_is_replaced(name: str, run: Path) -> None:
    """By ``--out`` of a slip of the keyboard: answers and models stay as they are."""
    (run / "model.gguf").write_bytes(b"GGUF")
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    refused(orin_run("report", run, "--out", run / name), f"{run / name} is no page and is not replaced")
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_pages_are_written_again(run: Path, tmp_path: Path) -> None:
    """An earlier one, an empty file, and whatever stands in the place of the run's own; not another comparison.html."""
    page = tmp_path / "page.html"
    page.touch()
    for _ in range(2):
        assert orin_run("report", run, "--out", page).returncode == 0
        assert page.read_text(encoding="utf-8").startswith("<!doctype html>")
    (run / "report.html").write_text("half of a")
    assert orin_run("report", run).returncode == 0
    assert (run / "report.html").read_bytes() == page.read_bytes()
    (tmp_path / "comparison.html").write_text("my own")
    refused(orin_run("report", run, run, cwd=tmp_path), "comparison.html is no page and is not replaced")
