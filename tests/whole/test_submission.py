"""``make submission`` gathers what was run, with its proof and the licences; and nothing of another model."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from tests.support.altered import copied, data_places, flip
from tests.support.commands import convert, orin_run
from tests.support.foreign import quantized
from tests.support.paths import ROOT, SUBMISSION

GATHER = SUBMISSION / "gather.py"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    assert convert(str(tiny), str(out)).returncode == 0
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, gguf: Path) -> Path:
    """A folder with one finished run in the challenge's form."""
    folder = tmp_path_factory.mktemp("work")
    done = orin_run("eval", "exam", "--model", str(gguf), "--limit", "8", "--out", str(folder / "runs" / "exam"))
    assert done.returncode == 0, done.stderr
    return folder


def gather(cwd: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, GATHER, *arguments], capture_output=True, text=True, check=False, cwd=cwd)


def test_everything_is_there(runs: Path, gguf: Path) -> None:
    """The last run's result, the conversion's manifest, the recipe, and every component with version and licence."""
    done = gather(runs, "--model", str(gguf))
    assert done.returncode == 0, done.stderr
    folder = runs / "build" / "submission"
    names = {path.name for path in folder.iterdir()}
    assert {"run_challenge.py", "Dockerfile", "requirements.txt", "README.md", "projection.md", "licences"} <= names
    assert json.loads((folder / "tiny.gguf.manifest.json").read_text())["changed_values"] == 0
    result = (folder / "RESULT.txt").read_text()
    assert "0 values altered" in result
    assert "proof: verified" in result
    assert "s an item" in result
    table = (folder / "COMPONENTS.md").read_text()
    for package in ("llama-cpp-python", "numpy", "tokenizers", "transformers", "jinja2"):
        row = re.search(rf"^\| {package} \| (\S+) \| (\w.+) \|$", table, re.MULTILINE)
        assert row is not None, package
        assert row[1] == version(package)
    assert "| llama.cpp and ggml |" in table
    assert "| torch |" not in table
    assert "MIT" in (folder / "licences" / "llama-cpp-python" / "LICENSE.md").read_text()
    with tarfile.open(runs / done.stdout.strip()) as archive:
        assert {f"submission/{name}" for name in names} <= set(archive.getnames())


def test_a_run_of_another_model_is_refused(runs: Path, tmp_path: Path, tiny: Path, gguf: Path) -> None:
    """The manifest has to be that of the weights that were run; and there has to be a run."""
    other = tmp_path / "other.gguf"
    assert convert(str(tiny), str(other), "--window", "off").returncode == 0
    done = gather(runs, "--model", str(other))
    assert (done.returncode, f"no finished challenge run of {other} in runs" in done.stderr) == (2, True)
    done = gather(runs, "--model", str(other), "--run", "runs/exam")
    assert (done.returncode, "runs/exam is not a run of" in done.stderr) == (2, True)
    done = gather(tmp_path, "--model", str(gguf))
    assert (done.returncode, "no finished challenge run" in done.stderr) == (2, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    done = gather(runs, "--model", str(gguf), "--out", str(tmp_path / "mine"))
    assert (done.returncode, "holds something else" in done.stderr) == (2, True)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_no_run_is_guessed(runs: Path, tmp_path: Path, gguf: Path) -> None:
    """Of those below runs/ that could be meant; those that could not be do not count."""

    def copy(name: str, **report: Any) -> Path:
        run = Path(shutil.copytree(runs / "runs" / "exam", tmp_path / "runs" / name))
        found = json.loads((run / "report.json").read_text())
        found["tasks"]["exam"] |= report
        (run / "report.json").write_text(json.dumps(found))
        return run

    copy("first")
    copy("interrupted", unanswered=3)
    (copy("damaged") / "report.json").write_text("{")
    (copy("killed") / "report.json").unlink()
    other = copy("other")
    header = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps(header | {"model": header["model"] | {"sha256": "0" * 64}}))
    done = gather(tmp_path, "--model", str(gguf))
    assert done.returncode == 0, done.stderr
    assert f"run runs/first: the only finished challenge run of {gguf} in runs" in " ".join(done.stderr.split())
    copy("second")
    done = gather(tmp_path, "--model", str(gguf))
    assert done.returncode == 2
    assert (
        f"runs holds 2 finished challenge runs of {gguf}: runs/first and runs/second; make submission RUN="
        in done.stderr
    )
    done = gather(tmp_path, "--model", str(gguf), "--run", "runs/interrupted")
    assert (done.returncode, "runs/interrupted did not end" in done.stderr) == (2, True)


def test_a_model_that_is_not_verified_is_refused(runs: Path, tmp_path: Path, gguf: Path) -> None:
    """All data is compared with the manifest, whatever the run did; nothing is gathered of a damaged model."""
    model = copied(gguf, tmp_path)
    flip(model, data_places(model)["output.weight"][-1])
    done = gather(runs, "--model", str(model), "--out", str(tmp_path / "out"))
    assert (done.returncode, "the data of tensor output.weight is not what" in done.stderr) == (2, True)
    run = Path(shutil.copytree(runs / "runs" / "exam", tmp_path / "run"))
    header = json.loads((run / "run.json").read_text())
    header["model"]["proof"] = "refuted"
    (run / "run.json").write_text(json.dumps(header))
    done = gather(runs, "--model", str(gguf), "--run", str(run), "--out", str(tmp_path / "out"))
    assert (done.returncode, "a damaged model" in done.stderr) == (2, True)
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_no_submission(runs: Path, tmp_path: Path, gguf: Path) -> None:
    """Neither a run of one, nor a quantized file for a run that was none; nothing is written."""
    path = quantized(gguf, tmp_path / "q8.gguf")
    done = gather(runs, "--model", str(path), "--out", str(tmp_path / "submission"))
    assert done.returncode == 2
    assert "is quantized: " in done.stderr
    lossy = Path(shutil.copytree(runs / "runs" / "exam", tmp_path / "run"))
    header = json.loads((lossy / "run.json").read_text(encoding="utf-8"))
    header["model"]["types"] = {"Q8_0": 30, "F32": 13}
    (lossy / "run.json").write_text(json.dumps(header), encoding="utf-8")
    done = gather(runs, "--run", str(lossy), "--model", str(gguf), "--out", str(tmp_path / "submission"))
    assert done.returncode == 2
    assert "is no submission: its model is quantized (Q8_0)" in done.stderr
    assert not (tmp_path / "submission").exists()


def test_the_recipe_pins_what_the_program_allows() -> None:
    """Every requirement of the program has an exact version in the container, within its range."""
    from packaging.requirements import Requirement

    pinned = dict(
        line.split("==") for line in (SUBMISSION / "requirements.txt").read_text().splitlines() if line[0] != "#"
    )
    text = (ROOT / "pyproject.toml").read_text()
    block = re.search(r"^dependencies = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    extra = re.search(r"^convert = \[(.*?)\]", text, re.MULTILINE)
    assert block
    assert extra
    wanted = [Requirement(found) for found in re.findall(r'"(.+?)"', block[1] + extra[1])]
    assert len(wanted) > 8
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
