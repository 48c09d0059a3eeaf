"""What later commands make of what ``orin-run bench`` has measured."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orin_runner.cli.bench import keep, print_findings, to_json
from orin_runner.cli.launch import f32_line
from orin_runner.cli.measuring import Findings
from orin_runner.console import Notes
from orin_runner.engine.bench import Pace, Rate
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.shape import Shape
from orin_runner.machine.tuned import KEPT, Tuned, name_of
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.bench import Bench, BenchJob, Ceilings, Measure, Measured, NoCeilings, Ready
from tests.support.checkpoints import small_gguf
from tests.support.commands import orin_run
from tests.support.shapes import PHI3_MEDIUM, header_only


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of what is remembered."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    return small_gguf(tmp_path_factory.mktemp("small"), tiny)


ODD = Shape(1, 1024, 256)
"""That no plan chooses by itself."""


@pytest.fixture
def known(small: Path, state: Path) -> Tuned:
    """What is known of ``small`` here: ``ODD`` is the fastest for everything."""
    here = name_of(present_device())
    at = "2026-01-02T03:04:05+00:00"
    scores = Tuned(GGUFFile.open(small).digest(), here, llama_library.version(), "scores", ODD, 1000.0, at)
    KEPT.keep([scores, replace(scores, work="texts")])
    return scores


class TestLater:
    """What ``plan`` and ``eval`` make of it."""

    def test_plan(self, small: Path, known: Tuned) -> None:
        """The settings, and a line that says where they come from; not with --no-tuned."""
        done = orin_run("plan", "exam", "--model", small, "--json")
        found = json.loads(done.stdout)
        assert found["tuned"] is True
        assert (found["n_contexts"], found["settings"]["n_batch"], found["settings"]["n_ubatch"]) == (1, 1024, 256)
        assert f"tuned: {known.shape}, the fastest that orin-run bench has measured here" in done.stderr
        done = orin_run("plan", "exam", "--model", small, "--json", "--no-tuned")
        assert json.loads(done.stdout)["tuned"] is False
        assert "tuned:" not in done.stderr

    @pytest.mark.parametrize("foreign", [{"model": "f" * 64}, {"device": "another"}, {"library": "0.0.1"}], ids=str)
    def test_what_was_measured_elsewhere_is_not_used(self, small: Path, known: Tuned, foreign: dict[str, str]) -> None:
        KEPT.path.unlink()
        KEPT.keep([replace(known, **foreign), replace(known, work="texts", **foreign)])
        done = orin_run("plan", "exam", "--model", small, "--json")
        assert json.loads(done.stdout)["tuned"] is False

    def test_a_damaged_file_is_none(self, small: Path, known: Tuned) -> None:
        assert known.sound
        KEPT.path.write_text("{")
        done = orin_run("plan", "exam", "--model", small, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["tuned"] is False

    def test_a_device_that_is_not_here(self, small: Path, known: Tuned) -> None:
        """Nothing was measured there."""
        assert known.sound
        done = orin_run("plan", "exam", "--model", small, "--json", "--device", "orin-32gb")
        assert json.loads(done.stdout)["tuned"] is False

    @pytest.mark.parametrize("option", [(), ("--no-tuned",)], ids=str)
    def test_eval(self, small: Path, known: Tuned, tmp_path: Path, option: tuple[str, ...]) -> None:
        """As the plan says; ``run.json`` keeps it, and one line says so."""
        out = tmp_path / "run"
        done = orin_run("eval", "exam", "--limit", "8", "--model", small, "--out", out, *option)
        assert done.returncode == 0, done.stderr
        memory = json.loads((out / "run.json").read_text())["memory"]
        assert memory["tuned"] is not bool(option)
        shape = Shape(memory["n_contexts"], memory["settings"]["n_batch"], memory["settings"]["n_ubatch"])
        assert (shape == known.shape) is not bool(option)
        assert done.stderr.count("tuned: ") == (not option)

    def test_bench_measures_what_a_plan_without_measurements_chooses(self, small: Path, known: Tuned) -> None:
        """Else the fastest would be compared with itself."""
        with Bench(BenchJob(small, None, cpu_threads(), Pace(1, 0.0))) as bench:
            assert bench.measure(Measure("scores", None, 1)).shape not in {None, known.shape}


def ceilings(own: Rate, f32: Rate | None) -> Ceilings:
    return Ceilings("a CPU", "blk.0.ffn_up.weight", "BF16", 64, 128, 512, own, Rate((5e9, 5e9), 5e9), 1 << 28, f32)


def spread(mean: float, sd: float) -> Rate:
    return Rate((mean - sd, mean, mean + sd), mean)


class TestF32:
    """The same values in F32, where a CPU computes them faster."""

    @pytest.mark.parametrize(
        ("own", "f32", "gain"),
        [
            (spread(100e9, 1e9), spread(125e9, 1e9), 1.25),
            (spread(100e9, 1e9), spread(101.5e9, 0.1e9), None),  # not by 2 %
            (spread(100e9, 20e9), spread(125e9, 20e9), None),  # within what both spread by: 28.3
            (spread(100e9, 1e9), spread(80e9, 1e9), None),
            (spread(100e9, 1e9), None, None),
        ],
        ids=["faster", "hardly", "by accident", "slower", "not measured"],
    )
    def test_gain(self, small: Path, own: Rate, f32: Rate | None, gain: float | None) -> None:
        assert Findings(GGUFFile.open(small), 2, ceilings(own, f32)).f32_gain == gain
        assert Findings(GGUFFile.open(small), 2, NoCeilings("no memory")).f32_gain is None

    def test_the_file_s_type_is_measured_beside_f32(self, small: Path, tmp_path: Path, tiny: Path) -> None:
        """And a file that has it already is not."""
        found = []
        for path in (small, small_gguf(tmp_path, tiny, "f32")):
            with Bench(BenchJob(path, None, cpu_threads(), Pace(1, 0.0))) as bench:
                found.append(bench.ceilings())
        first, second = (each for each in found if isinstance(each, Ceilings))
        assert (first.kind in {"BF16", "F16"}, second.kind) == (True, "F32")
        assert first.product_f32 is not None
        assert first.product_f32.mean > 0
        assert second.product_f32 is None

    def test_bench_says_and_keeps_it(self, small: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = GGUFFile.open(small)
        row = Measured(Measure("scores", None, 4), ODD, spread(1000.0, 1.0))
        found = Findings(file, 2, ceilings(spread(100e9, 1e9), spread(125e9, 2e9)), [row])
        with Bench(BenchJob(small, None, 2, Pace())) as bench:
            bench.ready = Ready(name_of(present_device()), own_memory=False)
            stored = keep(found, bench, Notes(quiet=True))
        assert [each.f32_gain for each in KEPT.read()] == [1.25]
        print_findings(found, stored)
        said = capsys.readouterr().out
        assert "product of F32: 125.0 ± 2.0 GFLOP/s, of the same sizes" in said
        assert "F32: a product is 1.25 times as fast here" in said
        rates = to_json(found, "a CPU", stored)["ceilings"]
        assert rates["product_f32"]["mean"] == pytest.approx(125e9)
        assert to_json(Findings(file, 2, ceilings(spread(1e9, 1), None)), None, ())["ceilings"]["product_f32"] is None

    def test_the_size_is_of_four_bytes_a_value(self, tmp_path: Path) -> None:
        file = GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM))
        wide = sum(t.n_bytes * (1 if t.type == "F32" else 2) for t in file.header.tensors)
        assert 50 * 2**30 < wide < 55 * 2**30
        assert f32_line(file, 1.2).endswith(f"of {wide / 2**30:.2f} GiB")

    def test_plan_says_it(self, small: Path, known: Tuned) -> None:
        """Where it was measured on this device; not with --no-tuned, and not for another device."""
        KEPT.keep([replace(known, f32_gain=1.25)])
        said = orin_run("plan", "exam", "--model", small).stderr
        assert "F32: a product is 1.25 times as fast here with the same values in F32" in said
        for option in (("--no-tuned",), ("--device", "orin-32gb")):
            assert "F32:" not in orin_run("plan", "exam", "--model", small, *option).stderr
        KEPT.keep([replace(known, f32_gain=None)])
        assert "F32:" not in orin_run("plan", "exam", "--model", small).stderr
        KEPT.path.unlink()
        KEPT.keep([replace(known, device="another", f32_gain=1.25)])
        assert "F32:" not in orin_run("plan", "exam", "--model", small).stderr
