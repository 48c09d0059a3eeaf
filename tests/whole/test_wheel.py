"""What is installed from a wheel is the whole program: every package and data file, run from an empty folder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from tests.support.paths import ROOT

PACKAGES = ("convert", "eval", "orin_runner")
BUILT_FROM = (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built from a copy: a build leaves files beside its sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        source, target = ROOT / name, folder / "source" / name
        target.parent.mkdir(exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target)
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, folder / "source", cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_it_holds_every_file_of_the_packages(wheel: Path) -> None:
    """Modules, the exam, the page's template: nothing is forgotten, nothing else is in it."""
    kept = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == kept
    assert {"eval/data/exam.jsonl", "eval/report/page.html.j2"} <= packed


def test_it_runs_in_a_fresh_environment(wheel: Path, tiny: Path, tmp_path: Path) -> None:
    """Help, tasks, plan and the exam, where nothing of this checkout can be imported."""
    model = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), model, Options())
    environment, empty = tmp_path / "environment", tmp_path / "empty"
    empty.mkdir()
    venv.create(environment, with_pip=False)
    binaries = environment / "bin"
    run(sys.executable, "-m", "pip", "--python", binaries / "python", "install", "-q", "--no-deps", wheel, cwd=empty)
    # What orin-run needs is taken from the environment of the tests. Its own editable install there is not followed:
    # a path in a .pth file is added, the .pth files below it are not read.
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    where = run(binaries / "python", "-c", "import orin_runner, eval, convert; print(eval.__file__)", cwd=empty)
    assert Path(where.strip()).is_relative_to(environment)
    orin_run = binaries / "orin-run"
    assert "eval" in run(orin_run, "--help", cwd=empty)
    assert "mmlu" in run(orin_run, "tasks", cwd=empty)
    assert "memory plan" in run(orin_run, "plan", "exam", "--model", model, cwd=empty)
    report = json.loads(run(orin_run, "eval", "exam", "--limit", "8", "--model", model, "--json", cwd=empty))
    assert report["tasks"]["exam"]["items"] == 8
