"""``orin-run plan`` and what ``eval`` makes of the same plan."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlanner, Needs
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from tests.support.commands import orin_run, refused
from tests.support.devices import memory


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model."""
    out = tmp_path_factory.mktemp("plan") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


class TestCommand:
    """``orin-run plan`` and what ``eval`` makes of the same plan."""

    def test_a_plan_that_fits(self, gguf: Path) -> None:
        done = orin_run("plan", "exam", "--model", str(gguf))
        assert done.returncode == 0, done.stderr
        for term in ("weights", "KV cache", "compute", "outputs", "program", "remaining", "longest request"):
            assert term in done.stdout
        found = json.loads(orin_run("plan", "exam", "--model", str(gguf), "--json").stdout)
        assert found["fits"] is True
        assert found["settings"]["n_cells"] >= found["longest"]

    def test_a_device_that_is_not_here(self, gguf: Path) -> None:
        done = orin_run("plan", "exam", "--model", str(gguf), "--device", "orin-32gb")
        assert done.returncode == 0, done.stderr
        assert "Jetson AGX Orin 32GB" in done.stdout
        assert "compute (assumed)" in done.stdout
        assert "compute = n_ubatch x 2 n_cells + max(n_ubatch" in done.stdout

    def test_eval_refuses_in_the_plans_words(self, gguf: Path, tmp_path: Path) -> None:
        arguments = ("exam", "--model", str(gguf), "--device", "100MiB")
        shown = orin_run("plan", *arguments)
        assert shown.returncode == 1
        words = shown.stdout.splitlines()[-1]
        assert words.startswith("does not fit: ")
        assert "MiB more are needed" in words
        done = orin_run("eval", *arguments, "--out", str(tmp_path / "run"))
        assert done.returncode == 1
        assert words in done.stderr
        assert not (tmp_path / "run").exists()

    def test_what_cannot_fit_is_left_out_and_the_rest_runs(self, gguf: Path, tmp_path: Path) -> None:
        """Room for prompts of a few hundred tokens, not for all; every item has its line in the run."""
        file = GGUFFile.open(gguf)
        device = replace(memory(10**6, cuda=False), present=True)
        needs = replace(Needs(700, row_share=0.3, generated=True), tokens=150_000)
        planner = MemoryPlanner(file, device, 2, lambda settings: llama.simulate(gguf, settings))
        smallest = min(planner.sized(needs, settings).total for settings, _ in planner.candidates(needs))
        size = smallest // MIB + 1
        out = tmp_path / "run"
        done = orin_run("eval", "exam", "--model", str(gguf), "--device", f"{size}MiB", "--out", str(out))
        assert done.returncode == 1, done.stderr
        assert "requests need more than the" in done.stderr
        rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
        failed = [row for row in rows if row["failed"]]
        assert len(rows) == 480
        assert 0 < len(failed) < 480
        assert done.stderr.splitlines()[-1] == (
            f"error: {len(failed)} of 480 items failed and count as wrong: {out / 'predictions.jsonl'} says why; "
            f"orin-run eval --resume --out {out} asks them again"
        )
        assert all(not row["correct"] for row in failed)
        assert json.loads((out / "report.json").read_text())["tasks"]["exam"]["failed"] == len(failed)

    @pytest.mark.parametrize("command", ["plan", "eval", "selftest"])
    def test_a_file_that_llama_cpp_aborts_on(self, gguf: Path, tmp_path: Path, command: str) -> None:
        """Its own words in one line, at once, and no word of memory; the command itself goes on to say so."""
        damaged = tmp_path / "damaged.gguf"
        content = bytearray(gguf.read_bytes())
        key = b"granite_swa.rope.dimension_count"
        at = content.index(struct.pack("<Q", len(key)) + key) + 8 + len(key) + 4  # behind the name and the type
        struct.pack_into("<I", content, at, 7)
        damaged.write_bytes(content)
        arguments = {"plan": ("exam",), "eval": ("exam", "--out", tmp_path / "run"), "selftest": ()}[command]
        done = orin_run(command, *arguments, "--model", damaged)
        refused(done, "while it was loading (SIGABRT: granite-swa.cpp:")
        assert "GGML_ASSERT" in done.stderr
        assert "memory" not in done.stderr
        assert not (tmp_path / "run").exists()

    def test_an_unknown_device(self, gguf: Path) -> None:
        done = orin_run("plan", "exam", "--model", str(gguf), "--device", "fast")
        reason = "--device fast is neither a device nor an amount of memory"
        refused(done, f"{reason}; auto, orin-32gb, orin-64gb, or 29000M")
