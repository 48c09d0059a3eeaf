"""``docs/jetson.md``: the way from a board to a result, walked as far as a machine without one goes.

Every ``orin-run`` and ``make`` of its steps is run in the order of the page, with the tiny model under the names that
the page uses; what it says is printed is printed. ``sudo``, ``apt``, ``pip``, ``hf`` and ``rsync`` are not run, and
neither is ``bench``, which takes minutes.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from convert.vocab.vocabulary import read_vocabulary
from tests.support.commands import orin_run
from tests.support.jetson_tree import jetson_tree
from tests.support.paths import ROOT, SUBMISSION, TINY
from tests.support.real_tokenizers import ROWS
from tests.support.shapes import PHI3_MEDIUM, header_only

PAGE = (ROOT / "docs" / "jetson.md").read_text(encoding="utf-8")
STEPS = PAGE.partition("\n## Steps\n")[2].partition("\n## Tables\n")[0]
BLOCKS = re.findall(r"^```\n(.*?)^```$", STEPS, re.MULTILINE | re.DOTALL)
COMMANDS = [line.partition("#")[0].strip() for block in BLOCKS for line in block.replace("\\\n", "").splitlines()]
VENV = "/nowhere/.venv"
MODEL = "models/Phi-3-medium-4k-instruct.gguf"
QUESTIONS = (("Which of these is a fish? A) whale B) trout", "trout"), ("Two and two is A) four B) five", "four"))


def in_steps(program: str) -> list[list[str]]:
    """The arguments of each call of a program in the steps' blocks."""
    return [shlex.split(line)[1:] for line in COMMANDS if line.startswith(f"{program} ")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page has in the repository's folder before its first command: checkpoint and questions."""
    found = tmp_path_factory.mktemp("repository")
    (found / "checkpoint").symlink_to(TINY)
    (found / "data").mkdir()
    rows = [{"message": [{"role": "user", "content": text}], "answer": answer} for text, answer in QUESTIONS]
    (found / "data" / "test_dataset.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return found


@pytest.fixture(scope="module")
def walked(folder: Path) -> dict[str, str]:
    """What each command has printed, by its name; each ends well."""
    said = {}
    for command, *arguments in in_steps("orin-run"):
        if command == "bench":
            continue
        done = orin_run(command, *arguments, cwd=folder, env={"ORIN_MODEL": MODEL, "XDG_STATE_HOME": str(folder)})
        worst = 1 if command == "doctor" else 0  # 1: something ails the machine that the tests run on
        assert done.returncode in {0, worst}, (command, done.stdout, done.stderr)
        said[command] = done.stdout + done.stderr
    return said


def test_the_way_to_a_result(walked: dict[str, str]) -> None:
    """Each command says what the page lets one look for."""
    assert list(walked) == ["convert", "inspect", "doctor", "plan", "selftest", "eval", "reference", "diff"]
    seen = {
        "convert": "0 values altered; compared bit for bit after reopening the file",
        "inspect": "proof           verified",
        "selftest": "passed",
        "eval": "proof: verified",
        "plan": "remaining",
        "diff": "the same checkpoint (proof: verified)",
    }
    for command, line in seen.items():
        assert f"`{line}`" in STEPS
        assert line in walked[command]


def test_handing_in(walked: dict[str, str], folder: Path) -> None:
    """``make submission`` calls the script below with the page's run, and this gathers it."""
    assert "eval" in walked
    (arguments,) = [found for found in in_steps("make") if found[0] == "submission"]
    shown = subprocess.run(["make", "-n", *arguments], capture_output=True, text=True, check=True, cwd=ROOT)
    script = next(line for line in shown.stdout.splitlines() if "gather.py" in line).split("gather.py")[1]
    done = subprocess.run(
        [sys.executable, SUBMISSION / "gather.py", *shlex.split(script), "--model", MODEL],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    archive = done.stdout.strip()
    assert f"`{archive}`" in STEPS
    assert (folder / archive).is_file()


def test_the_build_is_makes() -> None:
    """On a board ``make env`` runs the line that the page shows, and says what the page says."""
    board = ("NVCC=/usr/local/cuda/bin/nvcc", "GPU=/dev/nvgpu", "TEGRA=/etc/nv_tegra_release", f"VENV={VENV}")
    assert ["env"] in in_steps("make")
    shown = subprocess.run(
        ["make", "-n", "env", *board, "CACHE=/nowhere"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    (build,) = [block.replace("\\\n", "") for block in BLOCKS if block.startswith("CUDACXX=")]
    variables, _, rest = build.partition(" pip wheel ")
    assert variables.strip() in shown.stdout
    made = shlex.split(shown.stdout.replace("\\\n", " ").partition(" -m pip wheel ")[2].partition("\ntouch")[0])
    assert set(shlex.split(rest)) <= set(made)
    done = "installing orin-run into {} (llama.cpp backend: CUDA)"
    assert done.format(VENV) in shown.stdout
    assert f"`{done.format('.venv')}`" in STEPS


def test_what_the_doctor_says_of_a_delivered_board(tmp_path: Path) -> None:
    """In the default mode, with a desktop in the memory that the plan needs."""
    root = jetson_tree(
        tmp_path / "board",
        mode=2,
        locked=False,
        memory={"MemAvailable": 28_300},
        files={"proc/9/comm": "Xorg\n", "proc/10/comm": "gnome-shell\n"},
    )
    done = orin_run("doctor", "--root", root, "--model", header_only(tmp_path / "m.gguf", PHI3_MEDIUM))
    (shown,) = [block for block in BLOCKS if block.startswith("slower ")]
    assert len(shown.splitlines()) > 6
    assert [line for line in shown.splitlines() if line not in done.stdout.splitlines()] == []


def test_the_plan_of_the_public_questions(orin_data: Path, tmp_path: Path) -> None:
    """Term by term; what stands in brackets is shortened on the page."""

    def terms(text: str) -> list[tuple[str, str]]:
        return re.findall(r"^([a-zKVCUDA ]+?)(?: \(.*\))?  +([\d,]+)(?:  unified)?$", text, re.MULTILINE)

    vocabulary = read_vocabulary(orin_data / "tokenizers" / "phi-3-medium", ROWS["phi-3-medium"])
    model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM, vocabulary=vocabulary)
    data = orin_data / "cechallenge2024" / "test_dataset.jsonl"
    done = orin_run("plan", "challenge", "--data", data, "--device", "orin-32gb", "--model", model)
    shown = terms(PAGE.partition("\nterm ")[2].partition("```")[0])
    assert len(shown) == 11
    assert shown == terms(done.stdout)


def test_every_step_says_how_far_it_was_tried() -> None:
    """And what of it never was; and the overview has all of them."""
    steps = re.findall(r"^### (\d+)\. (.+?)\n(.*?)(?=^### |\Z)", STEPS, re.MULTILINE | re.DOTALL)
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    for number, title, text in steps:
        assert re.search(r"[Nn]ever tried", text), title
        assert f"| [{number} {title}](#{number}-{title.lower().replace(' ', '-')}) |" in PAGE


def test_projected_times_are_those_of_the_projection() -> None:
    """Every number of the table stands in the row of its mode."""
    projection = (SUBMISSION / "projection.md").read_text(encoding="utf-8").splitlines()
    rows = re.findall(r"^\| (MAXN|\d+W) \| (.*) \|$", PAGE.partition("\n## What to expect\n")[2], re.MULTILINE)
    assert len(rows) == 4
    for mode, cells in rows:
        known = {cell for line in projection if f"| {mode} |" in line for cell in line.strip("| ").split(" | ")}
        numbers = [cell.removesuffix(" tokens/s").removesuffix(" s") for cell in cells.split(" | ")]
        assert [number for number in numbers if number not in known] == []
