"""``orin-run doctor``, on this machine and on a board's files."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import llama_cpp
import pytest

from orin_runner.cli import doctor, launch
from orin_runner.cli.launch import Launch
from orin_runner.console import Notes
from orin_runner.errors import RunError
from orin_runner.machine.diagnosis import Library, Machine, Seen, Verdict
from orin_runner.machine.seats import Seat
from orin_runner.machine.tree import Tree
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.places import places_here
from tests.support.commands import orin_run, refused
from tests.support.jetson_tree import jetson_tree, meminfo
from tests.support.machines import said
from tests.support.shapes import PHI3_MEDIUM, header_only

HERE = {"ORIN_MODEL": "", "XDG_STATE_HOME": "/nowhere"}
"""Variables with which there is no default model."""
CPU_ONLY = pytest.mark.skipif(llama_library.has_cuda(), reason="of a library that was built without CUDA")


def found(*arguments: str | Path, **environment: str) -> tuple[int, dict[str, dict[str, str | None]]]:
    """Exit status, and the lines of ``--json`` by name."""
    done = orin_run("doctor", "--json", *arguments, env=HERE | environment)
    answer = json.loads(done.stdout, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert answer["passed"] == (done.returncode == 0), done.stderr
    return done.returncode, {line["name"]: line for line in answer["checks"]}


class TestThisMachine:
    """What applies here, and nothing else."""

    @CPU_ONLY
    def test_a_cpu(self, tiny_gguf: Path) -> None:
        """Nothing of GPUs and boards; the model fits."""
        status, lines = found("--model", tiny_gguf)
        assert status == 0
        assert set(lines) - {"memory limit", "swap"} == {"device", "library", "versions", "memory"}
        assert {line["verdict"] for line in lines.values()} <= {"ok", "unknown"}
        assert "for one request of" in str(lines["memory"]["fact"])
        assert all((line["verdict"] == "ok") == (line["command"] is None) for line in lines.values())

    def test_as_text(self) -> None:
        """A line a check, one more with a command, and a count of verdicts."""
        done = orin_run("doctor", env=HERE)
        lines = done.stdout.splitlines()
        assert any(line.split()[:2] == ["unknown", "memory"] for line in lines)
        assert "-> orin-run doctor --model FILE.gguf" in done.stdout
        assert "checks: " in lines[-1]

    def test_a_library_from_elsewhere(self, tmp_path: Path) -> None:
        """It may be of any version: said, with what takes it back."""
        shutil.copytree(Path(llama_cpp.__file__).parent / "lib", tmp_path / "lib", symlinks=True)
        _, lines = found(LLAMA_CPP_LIB_PATH=str(tmp_path / "lib"))
        assert str(tmp_path / "lib") in str(lines["versions"]["fact"])
        assert lines["versions"]["command"] == "unset LLAMA_CPP_LIB_PATH"

    def test_the_default_model(self, tmp_path: Path, tiny_gguf: Path) -> None:
        """Used where none is named; one that is gone is none."""
        _, lines = found(ORIN_MODEL=str(tiny_gguf))
        assert "for one request of" in str(lines["memory"]["fact"])
        _, lines = found(ORIN_MODEL=str(tmp_path / "gone.gguf"))
        assert lines["memory"]["command"] == "orin-run doctor --model FILE.gguf"

    def test_mistakes(self, tmp_path: Path) -> None:
        refused(orin_run("doctor", "--model", tmp_path / "gone.gguf"), "gone.gguf")
        refused(orin_run("doctor", "--root", tmp_path), f"{tmp_path} holds no machine's files")


class TestTree:
    """A board's files below a folder."""

    @CPU_ONLY
    def test_a_board_in_its_default_mode(self, tmp_path: Path) -> None:
        """Every bad line at once, with the variables of this process; exit status 1."""
        root = jetson_tree(tmp_path / "board", mode=2, l4t="36.4.7", files={"proc/9/comm": "Xorg\n"})
        model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM)
        variables = {"GGML_CUDA_ENABLE_UNIFIED_MEMORY": "0", "CUDA_SCALE_LAUNCH_QUEUES": "4x"}
        status, lines = found("--root", root, "--model", model, **variables)
        assert status == 1
        bad = {name: line["verdict"] for name, line in lines.items() if line["verdict"] in {"slower", "fails"}}
        assert bad == {
            "L4T": "fails",
            "library": "slower",
            "power mode": "slower",
            "GPU clock": "slower",
            "SM mask": "slower",
            "launch queues": "fails",
        }
        assert lines["unified memory"]["command"] == "unset GGML_CUDA_ENABLE_UNIFIED_MEMORY"
        assert "architectures" not in lines, "this machine's library was not opened for another machine"

    def test_memory_is_planned_for_that_machine(self, tmp_path: Path) -> None:
        """A 14 B model at 16 bit fits what a headless board has, and not 3 GiB less."""
        model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM)
        verdicts = {}
        for available in (29_300, 26_300):
            root = jetson_tree(tmp_path / str(available), memory={"MemAvailable": available})
            verdicts[available] = found("--root", root, "--model", model)[1]["memory"]["verdict"]
        assert verdicts == {29_300: "ok", 26_300: "fails"}

    def test_another_machine_without_a_gpu(self, tmp_path: Path) -> None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc" / "meminfo").write_text(meminfo(MemAvailable=1000))
        model = header_only(tmp_path / "m.gguf", PHI3_MEDIUM)
        status, lines = found("--root", tmp_path, "--model", model)
        assert (status, lines["memory"]["verdict"]) == (1, "fails")


class TestWithCuda:
    """What is asked of processes that may open the GPU."""

    def looked_at(self, monkeypatch: pytest.MonkeyPatch, model: Path) -> Machine:
        """This machine with a library that was built with CUDA, as far as the doctor knows."""
        monkeypatch.setattr(doctor, "seen_from", lambda path: Seen((90,), failure=f"looked at {path.name}"))
        machine = replace(Machine.read(Tree(), GGUFFile.open(model)), library=Library("0.3.36", cuda=True))
        return doctor._looked_at(Notes(), machine)

    def test_a_look_by_another_process(self, monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> None:
        machine = self.looked_at(monkeypatch, tiny_gguf)
        assert machine.plan is not None
        assert said(machine, "offload").fact == f"llama.cpp finds no GPU: looked at {tiny_gguf.name}"

    def test_a_plan_that_kills_its_process(self, monkeypatch: pytest.MonkeyPatch, tiny_gguf: Path) -> None:
        """A line of the diagnosis, not the end of it."""

        def die(*_: object) -> None:
            raise RunError("the engine died: SIGABRT")

        monkeypatch.setattr(doctor, "plan_here", die)
        check = said(self.looked_at(monkeypatch, tiny_gguf), "memory")
        assert check.verdict is Verdict.FAILS
        assert "SIGABRT" in check.fact


def test_a_run_warns_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tiny_gguf: Path
) -> None:
    """While the weights are loaded; not of this machine where the run is on others."""
    monkeypatch.setattr(launch, "quick_warning", lambda file: f"{file.path.name} will be slow")
    file = GGUFFile.open(tiny_gguf)
    places = places_here(file.path, [Seat("this machine")])
    with Launch(Notes(), file, None, places):
        assert f"warning: {tiny_gguf.name} will be slow" in capsys.readouterr().err
    monkeypatch.setattr(launch, "gpus_here", lambda places: None)
    with Launch(Notes(), file, None, places):
        assert capsys.readouterr().err == ""
