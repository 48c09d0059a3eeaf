"""What is written down beside a run: the machine's counters, how far the run is, and what all of it comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.runs.meter import Meter
from eval.runs.samples import Sample, read_samples, summary
from orin_runner.machine.sensors import HostMemory, NvidiaSmi, Rails, Reading, Sensors, find_sensors

AGX_ORIN = {
    "1-0040": [("VDD_GPU_SOC", 19000, 1000), ("VDD_CPU_CV", 18500, 200), ("VIN_SYS_5V0", 5000, 900)],
    "1-0041": [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 300), ("NC", 0, 0)],
}
"""Labels as the kernel's device tree of the module has them; mV and mA. 19 + 3.7 + 4.5 W."""
NX_ORIN = {"1-0040": [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)]}


def rails(root: Path, chips: dict[str, list[tuple[str, int, int]]]) -> Path:
    """The driver's folder in sysfs, its chips links into the device tree as there."""
    driver = root / "drivers" / "ina3221"
    driver.mkdir(parents=True)
    for chip, (name, channels) in enumerate(chips.items()):
        folder = root / "devices" / name / "hwmon" / f"hwmon{chip + 3}"
        folder.mkdir(parents=True)
        for number, (label, millivolts, milliamperes) in enumerate(channels, start=1):
            (folder / f"in{number}_label").write_text(f"{label}\n")
            (folder / f"in{number}_input").write_text(f"{millivolts}\n")
            (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
        (folder / "in7_label").write_text("sum of shunt voltages\n")
        (folder / "in7_input").write_text("760\n")
        (driver / name).symlink_to(root / "devices" / name)
    return driver


@pytest.mark.parametrize(
    ("chips", "watts", "source"),
    [
        (AGX_ORIN, 27.2, "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
        (NX_ORIN, 6.0, "INA3221 VDD_IN"),
    ],
)
def test_a_modules_power_is_its_inputs_counted_once(
    tmp_path: Path, chips: dict[str, list[tuple[str, int, int]]], watts: float, source: str
) -> None:
    """Not the memory's rail, which the 5 V input feeds, nor the rails behind VDD_IN, nor the sum of shunts."""
    found = Rails.find(rails(tmp_path, chips))
    assert found is not None
    assert found.watts() == pytest.approx(watts)
    assert found.source == source


def test_power_that_is_not_known_is_none(tmp_path: Path) -> None:
    """No driver, another board's rails, a rail that cannot be read: no number is made up."""
    assert Rails.find(tmp_path / "nothing") is None
    assert Rails.find(rails(tmp_path / "other", {"1-0040": AGX_ORIN["1-0040"][:2]})) is None
    driver = rails(tmp_path / "agx", AGX_ORIN)
    found = Rails.find(driver)
    assert found is not None
    (driver / "1-0040" / "hwmon" / "hwmon3" / "curr2_input").unlink()
    assert found.watts() is None


def process(proc: Path, pid: int, pages: int, tasks: dict[int, str]) -> None:
    """A process in a procfs of our own; ``tasks``: its threads and the children each has started."""
    for task, children in tasks.items():
        (proc / str(pid) / "task" / str(task)).mkdir(parents=True)
        (proc / str(pid) / "task" / str(task) / "children").write_text(children)
    (proc / str(pid) / "statm").write_text(f"9999 {pages} 7 1 0 1 0\n")


def test_the_whole_tree_of_processes_is_counted(tmp_path: Path) -> None:
    """Children of every thread and theirs; one that has just ended counts for nothing, the measuring tool neither."""
    process(tmp_path, 10, 1000, {10: "20 ", 11: "30 99 "})
    process(tmp_path, 20, 200, {20: "40 "})
    process(tmp_path, 30, 30, {30: ""})
    process(tmp_path, 40, 4, {40: ""})
    memory, page = HostMemory(tmp_path, 10), os.sysconf("SC_PAGE_SIZE") / 2**20
    assert memory.processes() == pytest.approx(1234 * page)
    assert memory.processes(without=30) == pytest.approx(1204 * page)
    (tmp_path / "10" / "task" / "10" / "children").unlink()
    assert memory.processes() is None, "a kernel that lists no children: one process is not all"


def test_the_machines_memory_is_what_is_not_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  31433728 kB\nMemFree: 1024 kB\nMemAvailable:  2097152 kB\n")
    assert HostMemory(tmp_path, 1).machine() == 31433728 / 1024 - 2048
    (tmp_path / "meminfo").write_text("MemTotal:  31433728 kB\nMemFree: 1024 kB\n")
    assert HostMemory(tmp_path, 1).machine() is None


def test_this_machines_memory() -> None:
    """The real ``/proc``: a child that takes 96 MiB is seen, and ends being seen."""
    memory = HostMemory()
    before = memory.processes()
    code = "x = bytearray(b'x') * (96 << 20); print('there', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    during = memory.processes()
    child.communicate("\n")
    after = memory.processes()
    assert before is not None
    assert during is not None
    assert after is not None
    assert during - before > 96
    assert during - after > 96
    assert (memory.machine() or 0) > 0


def nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, *printed: str, then: str = "exec sleep 600") -> Path:
    """A program of this name first on PATH; it keeps its arguments in the file returned."""
    folder.mkdir()
    said = folder / "arguments"
    lines = "\n".join(f"echo '{line}'" for line in printed)
    (folder / "nvidia-smi").write_text(f'#!/bin/sh\necho "$@" > {said}\n{lines}\necho > {folder}/done\n{then}\n')
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return said


def until(what: Callable[[], bool]) -> None:
    """Wait for another process."""
    for _ in range(3000):
        if what():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("28713, 312.45", (28713.0, 312.45)),
        ("28713, [N/A]", (28713.0, None)),
        ("[Not Supported], 7.5", (None, 7.5)),
        ("Unable to determine the device handle", (None, None)),
    ],
)
def test_nvidia_smi_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, expected: tuple[float | None, float | None]
) -> None:
    """Its last whole line counts; what it does not know is None."""
    said = nvidia_smi(tmp_path / "bin", monkeypatch, "1, 2", line)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,1")
    found = NvidiaSmi.find()
    assert found is not None
    try:
        until((tmp_path / "bin" / "done").exists)
        assert found.read() == expected
        assert found.read() == expected, "nothing new: the last line still holds"
    finally:
        found.close()
    query = "--query-gpu=memory.used,power.draw --format=csv,noheader,nounits -lms 1000 -i 3"
    assert said.read_text().split() == query.split()
    with pytest.raises(ProcessLookupError):
        os.kill(found.pid, 0)


def test_what_nvidia_smi_said_long_ago_is_not_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has ended, or hangs: its last line holds for some seconds, not for ever."""
    nvidia_smi(tmp_path / "bin", monkeypatch, "5, 6", then="exit 3")
    now = 100.0
    found = NvidiaSmi(str(tmp_path / "bin" / "nvidia-smi"), clock=lambda: now)
    try:
        until((tmp_path / "bin" / "done").exists)
        assert found.read() == (5.0, 6.0)
        now = 103.0
        assert found.read() == (5.0, 6.0)
        now = 106.0
        assert found.read() == (None, None)
    finally:
        found.close()


def test_which_sensors_a_run_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nvidia-smi only where the run computes on a GPU that is no Jetson's."""
    said = nvidia_smi(tmp_path / "bin", monkeypatch, "28713, 312.45")
    nowhere, jetson = tmp_path / "nowhere", rails(tmp_path / "sys", AGX_ORIN)
    for cuda, folder, power, source in (
        (False, nowhere, None, None),
        (True, jetson, 27.2, "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
    ):
        sensors = find_sensors(cuda=cuda, ina3221=folder)
        assert sensors._gpu is None
        reading = sensors.read()
        sensors.close()
        assert (reading.gpu_mib, reading.watts, sensors.power_source) == (None, power, source)
        assert (reading.host_mib or 0) > 0
        assert (reading.machine_mib or 0) > 0
    assert not said.exists()
    sensors = find_sensors(cuda=True, ina3221=nowhere)
    until((tmp_path / "bin" / "done").exists)
    reading = sensors.read()
    sensors.close()
    assert (reading.gpu_mib, reading.watts, sensors.power_source) == (28713, 312.45, "nvidia-smi power.draw")
    monkeypatch.setenv("PATH", str(nowhere))
    sensors = find_sensors(cuda=True, ina3221=nowhere)
    assert (sensors.read().watts, sensors.power_source) == (None, None)


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
    assert {(s.host_mib, s.machine_mib, s.gpu_mib, s.watts) for s in found} == {(1.0, 2.0, 3.0, 4.0)}
    assert sensors.closed


def test_a_meter_samples_by_itself(tmp_path: Path) -> None:
    """While nobody calls it; and no more once it has ended."""
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


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    """Nor one that a kill has torn, in a run that nobody resumes."""
    path = tmp_path / "samples.jsonl"
    line = json.dumps(row(0, 0.0))
    path.write_text(f"{line}\n{line[:20]}")
    assert read_samples(path) == (sample(0, 0.0),)


def test_a_full_disk_ends_the_samples_not_the_run(tmp_path: Path) -> None:
    with Meter(tmp_path / "samples.jsonl", Scripted(), interval=1e6) as meter:
        meter._file.close()
        meter._file = Path("/dev/full").open("ab", buffering=0)  # noqa: SIM115 - the meter closes it
        meter.begin("a")
        meter.update(5, 1)
    assert isinstance(meter.failure, OSError)
    assert len(read_samples(tmp_path / "samples.jsonl")) == 1


def test_damaged_samples_cost_nothing_but_themselves(tmp_path: Path) -> None:
    """Neither the run's report nor its going on may hang on a line that a full disk has cut short."""
    path = tmp_path / "samples.jsonl"
    for line in ("{}", "[]", "x", json.dumps(row(0, 1.0))[:40] + json.dumps(row(0, 1.0))):
        path.write_text(json.dumps(row(0, 0.0)) + f"\n{line}\n" + json.dumps(row(0, 2.0)) + "\n")
        assert [sample.seconds for sample in read_samples(path)] == [0.0, 2.0]


def row(part: int, seconds: float, **changes: Any) -> dict[str, Any]:
    base = {"part": part, "seconds": seconds, "task": "t", "computed": 0, "computed_at": 0.0, "done": 0}
    return {**base, **dict.fromkeys(("host_mib", "machine_mib", "gpu_mib", "watts")), **changes}


def sample(part: int, seconds: float, **changes: Any) -> Sample:
    return Sample(**row(part, seconds, **changes))


def test_energy_is_power_times_time_where_power_is_known() -> None:
    """10 W rising to 30 W in 2 s, then 1 s unknown on both sides of a gap, then in another part 40 W for 3 s."""
    samples = [
        sample(0, 0.0, watts=10.0, host_mib=5.0),
        sample(0, 2.0, watts=30.0, host_mib=9.0, gpu_mib=7.0),
        sample(0, 3.0, machine_mib=11.0),
        sample(0, 4.0, watts=50.0),
        sample(1, 0.0, watts=40.0),
        sample(1, 3.0, watts=40.0),
    ]
    found = summary(samples, power_source="here")
    assert found == {
        "samples": 6,
        "seconds": 7.0,
        "unified": False,
        "peak_host_mib": 9.0,
        "peak_machine_mib": 11.0,
        "peak_gpu_mib": 7.0,
        "peak_watts": 50.0,
        "mean_watts": 32.0,  # 160 J in 5 s
        "joules": 160.0,
        "power_seconds": 5.0,
        "power_source": "here",
    }


def test_what_was_never_read_is_null() -> None:
    found = summary([sample(0, 0.0), sample(0, 1.0)])
    assert found is not None
    names = ("peak_host_mib", "peak_machine_mib", "peak_gpu_mib", "peak_watts", "mean_watts", "joules", "power_source")
    assert {found[name] for name in names} == {None}
    assert summary([]) is None
