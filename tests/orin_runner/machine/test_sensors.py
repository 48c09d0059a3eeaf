"""The machine's counters: power, memory of the processes, the GPUs; nothing is made up where one is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.jetson_rails import Rails
from orin_runner.machine.sensors import find_sensors
from tests.support.nvml import FakeNvml, gpu
from tests.support.rails import AGX_ORIN, rails

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
    """Children of every thread and theirs; one that has just ended counts for nothing."""
    process(tmp_path, 10, 1000, {10: "20 ", 11: "30 99 "})
    process(tmp_path, 20, 200, {20: "40 "})
    process(tmp_path, 30, 30, {30: ""})
    process(tmp_path, 40, 4, {40: ""})
    memory, page = HostMemory(tmp_path, 10), os.sysconf("SC_PAGE_SIZE") / 2**20
    assert memory.processes() == (pytest.approx(1234 * page), {10, 20, 30, 40, 99})
    (tmp_path / "10" / "task" / "10" / "children").unlink()
    assert memory.processes() == (None, frozenset()), "a kernel that lists no children: one process is not all"


def test_the_machines_memory_is_what_is_not_available(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal:  31433728 kB\nMemFree: 1024 kB\nMemAvailable:  2097152 kB\n")
    assert HostMemory(tmp_path, 1).machine() == 31433728 / 1024 - 2048
    (tmp_path / "meminfo").write_text("MemTotal:  31433728 kB\nMemFree: 1024 kB\n")
    assert HostMemory(tmp_path, 1).machine() is None


def test_this_machines_memory() -> None:
    """The real ``/proc``: a child that takes 96 MiB is seen, and ends being seen."""
    memory = HostMemory()
    before, _ = memory.processes()
    code = "x = bytearray(b'x') * (96 << 20); print('there', flush=True); input()"
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    child.stdout.readline()
    during, pids = memory.processes()
    child.communicate("\n")
    after, _ = memory.processes()
    assert before is not None
    assert during is not None
    assert after is not None
    assert {os.getpid(), child.pid} <= pids
    assert during - before > 96
    assert during - after > 96
    assert (memory.machine() or 0) > 0


def test_totals_are_those_of_the_runs_gpus(tmp_path: Path) -> None:
    """Memory of the fullest, power of both together; of the third, which the run does not use, nothing."""
    library = FakeNvml(
        gpu(0, memory={"total": 90 << 30, "reserved": 0, "used": 10 << 30}, power=300_500),
        gpu(1, memory={"total": 90 << 30, "reserved": 0, "used": 80 << 30}, power=1),
        gpu(2, memory={"total": 90 << 30, "reserved": 0, "used": 30 << 30}, power=200_000),
    )
    sensors = find_sensors(cuda=True, gpus=["2", "0"], ina3221=tmp_path / "nowhere", library=library)
    reading = sensors.read()
    assert [each.id for each in reading.gpus] == ["0", "2"]
    assert (reading.gpu_mib, reading.watts, sensors.power_source) == (30 << 10, 500.5, "NVML GPU 0 + GPU 2")
    sensors.close()
    assert library.opened == 0
    assert sensors.failure is None


@pytest.mark.parametrize("unknown", [{"power": None}, {"memory": None}])
def test_a_total_of_a_part_is_none(tmp_path: Path, unknown: dict) -> None:
    """One of two GPUs knows nothing of it: what the other says is not the run's."""
    sensors = find_sensors(cuda=True, gpus=["0", "1"], ina3221=tmp_path, library=FakeNvml(gpu(0), gpu(1, **unknown)))
    reading = sensors.read()
    assert (reading.watts is None, reading.gpu_mib is None) == ("power" in unknown, "memory" in unknown)
    first, second = reading.gpus
    assert (first.watts, first.mib) == (312.45, 20_000)
    assert (second.watts is None, second.mib is None) == ("power" in unknown, "memory" in unknown)
    assert sensors.failure is None, "what a device does not know is no failure"


def test_a_run_that_names_no_gpu_has_those_that_cuda_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the driver knows a GPU and not its memory."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    sensors = find_sensors(cuda=True, ina3221=tmp_path, library=FakeNvml(gpu(0), gpu(1, memory=None)))
    assert [each.id for each in sensors.read().gpus] == ["1"]


def test_which_sensors_a_run_has(tmp_path: Path) -> None:
    """NVML only where the run computes on a GPU of this machine that is no Jetson's."""
    nowhere, jetson = tmp_path / "nowhere", rails(tmp_path / "sys", AGX_ORIN)
    library = FakeNvml(gpu(0))
    library.broken.add("nvmlInit")
    for cuda, gpus, folder, power, source in (
        (False, [], nowhere, None, None),
        (True, None, nowhere, None, None),
        (True, [], jetson, 27.2, "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"),
    ):
        sensors = find_sensors(cuda=cuda, gpus=gpus, ina3221=folder, library=library)
        reading = sensors.read()
        sensors.close()
        assert (reading.gpu_mib, reading.watts, sensors.power_source) == (None, power, source)
        assert (reading.gpus, sensors.failure) == ((), None), "NVML was not asked"
        assert (reading.host_mib or 0) > 0
        assert (reading.machine_mib or 0) > 0
    sensors = find_sensors(cuda=True, ina3221=nowhere, library=library)
    reading = sensors.read()
    sensors.close()
    assert (reading.watts, reading.gpus, sensors.power_source) == (None, (), None)
    assert sensors.failure == "NVML: GPU is lost"


def test_sensors_import_neither_the_binding_nor_llama_cpp() -> None:
    """A run on a CPU does without the one, a report without both."""
    code = "import sys, orin_runner.machine.sensors; print({'pynvml', 'llama_cpp'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
