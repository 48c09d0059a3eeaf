"""What is asked of NVML, and what comes of what it answers; the binding itself is asked of what is here."""

from __future__ import annotations

import inspect
import math

import pynvml
import pytest

from orin_runner.machine.nvml import GpuReading, Nvml
from tests.support.nvml import FakeNvml, gpu

KNOWN = GpuReading("0", "NVIDIA H100 80GB HBM3", 20_000, 19_000, 312.45, 97, 1755, 61, ())


def test_two_gpus_are_read_each_in_its_units() -> None:
    """MiB, W, percent, MHz, °C; memory without what the driver keeps, of our processes what they have."""
    processes = [(7, 300 << 20), (8, 5 << 20), (4242, 1 << 20)]
    one, two = Nvml(FakeNvml(gpu(0), gpu(1, power=70_000, load=0, clock=345, temperature=28, processes=processes))).gpus
    assert one.read({4242, 17}) == KNOWN
    assert two.read({7, 4242}) == GpuReading("1", KNOWN.name, 20_000, 301, 70, 0, 345, 28, ())


def test_an_older_driver_says_the_same_in_its_own_calls() -> None:
    """But for memory, where it counts what it keeps for itself."""
    nvml = Nvml(FakeNvml(gpu(0), old=True))
    found = nvml.gpus[0].read({4242})
    assert found == GpuReading("0", KNOWN.name, 20_600, 19_000, 312.45, 97, 1755, 61, ())
    assert nvml.failure is None


@pytest.mark.parametrize(
    ("key", "fields"),
    [
        ("memory", ["mib"]),
        ("processes", ["own_mib"]),
        ("power", ["watts"]),
        ("load", ["load"]),
        ("clock", ["sm_mhz"]),
        ("temperature", ["celsius"]),
        ("reasons", ["throttled"]),
    ],
)
def test_what_a_gpu_does_not_know_is_none(key: str, fields: list[str]) -> None:
    """Only that, and it is no failure."""
    nvml = Nvml(FakeNvml(gpu(0, **{key: None})))
    found = nvml.gpus[0].read({4242})
    for name in GpuReading.__dataclass_fields__:
        assert getattr(found, name) == (None if name in fields else getattr(KNOWN, name)), name
    assert nvml.failure is None


@pytest.mark.parametrize("listed", [[], [(7, 1 << 30)], [(4242, None)]])
def test_memory_of_our_processes_is_not_made_up(listed: list) -> None:
    """None of ours is listed, as in a container with ids of its own; or a process's size is not said."""
    assert Nvml(FakeNvml(gpu(0, processes=listed))).gpus[0].read({4242}).own_mib is None


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [
        (0x0, ()),
        (0x1 | 0x2 | 0x10 | 0x100, ()),  # idle, clocks set by somebody, in step with others: nothing is wrong
        (0x4, ("power cap",)),
        (0x20, ("thermal",)),
        (0x40 | 0x8, ("thermal", "hardware")),
        (0x80, ("hardware",)),
        (0x4 | 0x20, ("thermal", "power cap")),
    ],
)
def test_reasons_that_slow_a_gpu_down(bits: int, reasons: tuple[str, ...]) -> None:
    """Bits as nvml.h has them."""
    assert Nvml(FakeNvml(gpu(0, reasons=bits))).gpus[0].read(()).throttled == reasons


def test_a_call_that_begins_to_fail_is_noted_once() -> None:
    """The other counters and the other GPU go on; when it answers again it is heard."""
    library = FakeNvml(gpu(0), gpu(1))
    nvml = Nvml(library)
    one, two = nvml.gpus
    assert one.read(()).watts == 312.45
    library.broken.add("nvmlDeviceGetPowerUsage")
    assert (one.read(()).watts, one.read(()).load, two.read(()).watts) == (None, 97, None)
    assert nvml.failure == "power of GPU 0: GPU is lost"
    library.broken.clear()
    assert two.read(()).watts == 312.45
    assert nvml.failure == "power of GPU 0: GPU is lost"


def test_a_gpu_that_does_not_answer_keeps_the_others_ids() -> None:
    library = FakeNvml(gpu(0), gpu(1))
    known = library.nvmlDeviceGetUUID

    def uuid(handle: dict) -> str:
        if handle is library.gpus[0]:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return known(handle)

    library.nvmlDeviceGetUUID = uuid
    nvml = Nvml(library)
    assert [found.id for found in nvml.gpus] == ["1"]
    assert nvml.failure == "GPU 0: GPU is lost"


def test_what_is_opened_is_closed_once() -> None:
    """A library that did not open is not shut down."""
    library = FakeNvml(gpu(0))
    nvml = Nvml(library)
    assert library.opened == 1
    nvml.close()
    nvml.close()
    assert library.opened == 0
    library.broken.add("nvmlInit")
    nvml = Nvml(library)
    nvml.close()
    assert (library.opened, nvml.gpus, nvml.failure) == (0, [], "NVML: GPU is lost")


def test_the_fake_has_the_bindings_calls() -> None:
    """Each of them is one of the binding's, with arguments of the same names."""
    for name, call in inspect.getmembers(FakeNvml, inspect.isfunction):
        if name.startswith("nvml"):
            asked = list(inspect.signature(call).parameters)[1:]
            assert asked == list(inspect.signature(getattr(pynvml, name)).parameters)[: len(asked)], name


def test_the_binding_is_asked_of_what_is_here() -> None:
    """With or without a driver nothing is raised, and every number is one."""
    nvml = Nvml()
    for found in nvml.gpus:
        reading = found.read(())
        assert reading.name
        assert all(value is None or math.isfinite(value) for value in (reading.mib, reading.watts, reading.celsius))
    nvml.close()
    assert nvml.gpus or nvml.failure


def test_the_bindings_missing_library_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a driver."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", lambda _: (_ for _ in ()).throw(OSError("no such file")))
    nvml = Nvml()
    nvml.close()
    assert (nvml.gpus, nvml.visible(), nvml.failure) == ([], [], "NVML: NVML Shared Library Not Found")
