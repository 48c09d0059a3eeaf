"""What is written down beside a run: the machine's counters, and how far the run is."""

from __future__ import annotations

import math
import time
from pathlib import Path

import pytest

from eval.runs.meter import INTERVAL, Meter
from eval.runs.samples import read_samples
from orin_runner.machine.nvml import GpuReading
from orin_runner.machine.sensors import Reading, Sensors
from tests.support.waiting import until


class Scripted(Sensors):
    """Sensors that always say the same, after some time."""

    def __init__(self, reading: Reading | None = None, seconds: float = 0.0) -> None:
        self.reading, self.seconds = reading or Reading(100.0, 2000.0, None, None), seconds
        self.power_source = "a script"
        self.closed = False

    def read(self) -> Reading:
        time.sleep(self.seconds)
        return self.reading

    def close(self) -> None:
        self.closed = True


def test_a_meter_writes_where_the_run_is(tmp_path: Path) -> None:
    """Two tasks; each line is on disk when it is taken, and a task's last tokens stand before the next one begins."""
    now, path, sensors = 50.0, tmp_path / "samples.jsonl", Scripted(Reading(1.04, 2.0, 3.0, 4.0))
    with Meter(path, sensors, interval=1e6, clock=lambda: now) as meter:
        meter.begin("a")
        now = 52.0
        meter.update(100, 0)
        now = 53.0
        meter.update(100, 7)
        now = 54.0
        meter.begin("b")
        now = 55.0
        assert len(read_samples(path)) == 5
    found = read_samples(path)
    assert [(s.seconds, s.task, s.computed, s.computed_at, s.done) for s in found] == [
        (0.0, None, 0, 0.0, 0),
        (0.0, None, 0, 0.0, 0),
        (0.0, "a", 0, 0.0, 0),
        (4.0, "a", 100, 2.0, 7),
        (4.0, "b", 0, 4.0, 0),
        (5.0, "b", 0, 4.0, 0),
    ]
    assert {s.reading for s in found} == {Reading(1.0, 2.0, 3.0, 4.0)}
    assert sensors.closed


def test_readings_are_numbers_of_one_decimal(tmp_path: Path) -> None:
    """Those of each GPU, too; what is no number is not known."""
    path = tmp_path / "samples.jsonl"
    gpu = GpuReading("0", "card", 1.26, None, math.nan, 99.99, math.inf, -3.04, ("thermal",))
    with Meter(path, Scripted(Reading(1.04, 2.0, math.nan, None, (gpu,))), interval=1e6, elsewhere=True):
        pass
    first, _ = read_samples(path)
    assert first.reading == Reading(
        1.0, 2.0, None, None, (GpuReading("0", "card", 1.3, None, None, 100.0, None, -3.0, ("thermal",)),)
    )
    assert first.elsewhere


def test_a_meter_samples_by_itself(tmp_path: Path) -> None:
    """While nobody calls it, twice a second; and no more once it has ended."""
    assert INTERVAL == 0.5
    path = tmp_path / "samples.jsonl"
    with Meter(path, Scripted(seconds=0.02), interval=0.001) as meter:
        until(lambda: len(read_samples(path)) > 5)
    assert not meter._thread.is_alive(), "it could still write"


@pytest.mark.parametrize("torn", [b"", b'{"part": 0, "seco'])
def test_a_resumed_run_goes_on_with_another_part(tmp_path: Path, torn: bytes) -> None:
    """What is there stays, but for a last line that a kill has torn."""
    path = tmp_path / "samples.jsonl"
    for part in range(3):
        before = path.read_bytes() if part else b""
        path.write_bytes(before + torn)
        with Meter(path, Scripted(), interval=1e6) as meter:
            pass
        assert path.read_bytes().startswith(before)
        assert [s.part for s in read_samples(path)] == sorted(2 * [*range(part + 1)])
    measured = meter.measured()
    assert measured is not None
    assert measured["samples"] == 6


def test_a_full_disk_ends_the_samples_not_the_run(tmp_path: Path) -> None:
    with Meter(tmp_path / "samples.jsonl", Scripted(), interval=1e6) as meter:
        meter._file.close()
        meter._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 - the meter closes it
        meter.begin("a")
        meter.update(5, 1)
    assert isinstance(meter.failure, OSError)
    assert len(read_samples(tmp_path / "samples.jsonl")) == 1
