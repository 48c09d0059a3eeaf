"""``orin-run eval`` beside a machine's GPUs: those of its replicas are read, and it says what it could not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from eval.runs.run import Run
from orin_runner.cli.launch import chosen_places
from orin_runner.cli.main import app
from orin_runner.machine.seats import Seat
from orin_runner.machine.sensors import find_sensors
from orin_runner.workers.places import Place, gpus_here, places_here
from tests.support.nvml import FakeNvml, gpu

Evaluate = Callable[[FakeNvml, "tuple[str, ...] | None"], tuple[Result, Run]]


@pytest.fixture
def evaluate(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """A run on the CPU that takes itself for one on GPUs of a fake NVML."""

    def run(library: FakeNvml, gpus: tuple[str, ...] | None) -> tuple[Result, Run]:
        @contextmanager
        def places(*asked: Any) -> Iterator[list[Place]]:
            with chosen_places(*asked) as found:
                yield [replace(place, gpus=gpus) for place in found]

        def sensors(**known: Any) -> Any:
            return find_sensors(cuda=True, gpus=known["gpus"], ina3221=tmp_path, library=library)

        monkeypatch.setattr("orin_runner.cli.eval.chosen_places", places)
        monkeypatch.setattr("orin_runner.cli.metered.find_sensors", sensors)
        out = tmp_path / "run"
        words = ["eval", "exam", "--limit", "8", "--no-draft", "--model", str(tiny_gguf), "--out", str(out), "-v"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        return done, Run.open(out)

    return run


def test_the_gpus_of_the_replicas_are_read(evaluate: Evaluate) -> None:
    """In samples, report, print and page; energy is that of both, over eight items."""
    done, run = evaluate(FakeNvml(gpu(0), gpu(1), gpu(2, power=100_000)), ("0", "2"))
    assert {tuple(each.id for each in sample.reading.gpus) for sample in run.samples} == {("0", "2")}
    assert {sample.reading.watts for sample in run.samples} == {412.4}
    measured = run.report["measured"]
    assert [(each["id"], each["mean_watts"]) for each in measured["gpus"]] == [("0", 312.4), ("2", 100.0)]
    assert measured["energy"]["exam"]["joules_per_item"] == pytest.approx(
        measured["energy"]["exam"]["joules"] / 8, rel=1e-3, abs=0.01
    )
    assert measured["power_source"] == "NVML GPU 0 + GPU 2"
    for said in ("exam: ", " J an item", "GPU 2 (NVIDIA H100 80GB HBM3): 20,000 MiB at most", "the fullest GPU 20,000"):
        assert said in done.stdout
    assert "has gaps" not in done.stderr
    assert "2: NVIDIA H100 80GB HBM3" in (run.directory / "report.html").read_text(encoding="utf-8")


def test_a_sensor_that_fails_is_said_once_and_the_run_ends(evaluate: Evaluate) -> None:
    library = FakeNvml(gpu(0))
    library.broken.add("nvmlDeviceGetPowerUsage")
    done, run = evaluate(library, ("0",))
    assert done.stderr.count("samples.jsonl has gaps: power of GPU 0: GPU is lost") == 1
    assert run.report["measured"]["mean_watts"] is None
    assert run.report["measured"]["gpus"][0]["mean_load"] == 97
    assert library.opened == 0


def test_of_other_machines_nothing_is_read_and_that_is_said(evaluate: Evaluate) -> None:
    """Nor is this machine's energy told for what they answered."""
    done, run = evaluate(FakeNvml(gpu(0)), None)
    assert "memory, power and GPUs are measured on this machine only" in done.stderr
    assert all(sample.elsewhere and not sample.reading.gpus for sample in run.samples)
    assert run.report["measured"]["energy"] == {}


def test_places_here_know_their_gpus(tmp_path: Path) -> None:
    seats = [Seat("GPU 1", ("1",)), Seat("GPUs 2 and 3", ("2", "3")), Seat("this machine")]
    places = places_here(tmp_path, seats)
    assert [place.gpus for place in places] == [("1",), ("2", "3"), ()]
    away = replace(places[0], gpus=None)
    assert gpus_here(places) == ["1", "2", "3"]
    assert gpus_here([away, places[1]]) == ["2", "3"]
    assert gpus_here([away, places[2]]) == []
    assert gpus_here([away]) is None
