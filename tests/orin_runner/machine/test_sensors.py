"""The machine's counters: power, memory of the processes, nvidia-smi; nothing is made up where one is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.jetson_rails import Rails
from orin_runner.machine.nvidia_smi import NvidiaSmi
from orin_runner.machine.sensors import find_sensors
from tests.support.rails import AGX_ORIN, rails
from tests.support.waiting import until

NX_ORIN = {"1-0040": [("VDD_IN", 5000, 1200), ("VDD_CPU_GPU_CV", 5000, 400), ("VDD_SOC", 5000, 300)]}


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
        assert sensors.gpu is None
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
