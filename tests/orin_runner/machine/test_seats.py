"""Where replicas run: made lists of GPUs as NVML has them, and this machine's CPUs."""

from __future__ import annotations

import os

import pytest

from orin_runner.errors import UserError
from orin_runner.machine.seats import BESIDE_WEIGHTS, Gpu, seats, visible_gpus
from tests.support.nvml import FakeNvml, gpu

GIB = 1 << 30


def gpus(n: int, free: int = 80 * GIB) -> list[Gpu]:
    return [Gpu(str(k), "card", free) for k in range(n)]


@pytest.mark.parametrize(
    ("visible", "ids"),
    [
        (None, ["0", "1", "2"]),
        ("2,0", ["2", "0"]),
        ("1", ["1"]),
        ("GPU-cccc", ["2"]),
        ("1, GPU-aaaa", ["1", "0"]),
        ("MIG-cccc", []),
        ("0,7,2", ["0"]),  # what follows an unknown one is hidden, as CUDA does it
        ("", []),
        ("-1", []),
    ],
)
def test_gpus_are_those_that_cuda_would_show(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, ids: list[str]
) -> None:
    """In its order."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    half = {"total": 81559 << 20, "reserved": 559 << 20, "used": 40000 << 20}
    library = FakeNvml(gpu(0), gpu(1, memory=half), gpu(2))
    found = visible_gpus(library)
    assert [gpu.id for gpu in found] == ids
    assert [gpu.free for gpu in found if gpu.id == "1"] == [41000 << 20] * ("1" in ids)
    assert library.opened == 0


def test_no_gpu_that_the_driver_can_tell_of() -> None:
    """No driver, no device, one without memory of its own as a Jetson's, one that does not answer."""
    broken, lost = FakeNvml(gpu(0)), FakeNvml(gpu(0))
    broken.broken.add("nvmlInit")
    lost.broken.add("nvmlDeviceGetHandleByIndex")
    for library in (broken, FakeNvml(), FakeNvml(gpu(0, name="Orin (nvgpu)", memory=None)), lost):
        assert visible_gpus(library) == []
        assert library.opened == 0


@pytest.mark.parametrize(
    ("n_gpus", "weights", "asked", "groups"),
    [
        (1, 26, {}, [("0",)]),
        (4, 26, {}, [("0",), ("1",), ("2",), ("3",)]),
        (4, 100, {}, [("0", "1"), ("2", "3")]),
        (3, 100, {}, [("0", "1")]),
        (2, 200, {}, [("0", "1")]),
        (4, 26, {"asked_gpus": "2"}, [("0",), ("1",)]),
        (4, 26, {"asked_gpus": "1"}, [("0",)]),
        (4, 26, {"asked_gpus": "3,1"}, [("3",), ("1",)]),
        (4, 26, {"asked_gpus": "2,"}, [("2",)]),
        (4, 26, {"asked_replicas": "1"}, [("0", "1", "2", "3")]),
        (4, 26, {"asked_replicas": "2"}, [("0", "1"), ("2", "3")]),
        (4, 26, {"asked_replicas": "3"}, [("0",), ("1",), ("2",)]),
    ],
)
def test_one_replica_for_each_group_that_holds_the_model(
    n_gpus: int, weights: int, asked: dict[str, str], groups: list[tuple[str, ...]]
) -> None:
    """As few GPUs a replica as hold it, unless asked otherwise; each process sees its own only."""
    found, why = seats(gpus(n_gpus), weights * GIB, **asked)
    assert [seat.gpus for seat in found] == groups
    assert [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in found] == [",".join(group) for group in groups]
    assert all(seat.share == 1 and not seat.cpus for seat in found)
    assert (why == "") == (n_gpus == 1)


def test_the_fullest_gpu_decides() -> None:
    """A model that no longer fits one of them is divided, rather than left to fail there."""
    weights = 26 * GIB
    free = [weights + BESIDE_WEIGHTS, weights + BESIDE_WEIGHTS - 1]
    cards = [Gpu(str(k), "card", n) for k, n in enumerate(free)]
    assert [seat.gpus for seat in seats(cards, weights)[0]] == [("0", "1")]
    assert [seat.gpus for seat in seats(cards[:1] * 2, weights)[0]] == [("0",), ("0",)]


def test_the_line_says_what_and_why() -> None:
    """For several GPUs; for one there is nothing to say."""
    assert seats(gpus(2), 26 * GIB)[1] == "2 replicas on GPUs 0 and 1: the model's 26.0 GiB fit one GPU"
    assert seats(gpus(4), 26 * GIB)[1].startswith("4 replicas on GPUs 0 to 3: ")
    line = seats(gpus(5), 100 * GIB)[1]
    assert line == "2 replicas on GPUs 0 to 3: the model's 100.0 GiB are divided over 2 GPUs; 1 GPU stays idle"
    assert seats(gpus(3), 26 * GIB, asked_gpus="2,0")[1].startswith("2 replicas on GPUs 2 and 0: ")
    assert seats(gpus(2), 100 * GIB)[1] == "GPUs 0 and 1: the model's 100.0 GiB are divided over 2 GPUs"


def test_cpus_are_divided() -> None:
    """One replica has all of them; several have each their own, and a part of the memory."""
    cpus = sorted(os.sched_getaffinity(0))
    assert [(seat.cpus, seat.share, seat.environment) for seat in seats([], GIB)[0]] == [((), 1.0, {})]
    found, why = seats([], GIB, asked_replicas=str(len(cpus)), cuda=False)
    if len(cpus) > 1:
        assert [seat.cpus for seat in found] == [(cpu,) for cpu in cpus]
        assert sum(seat.share for seat in found) == pytest.approx(1)
        assert why.startswith(f"{len(cpus)} replicas on {len(cpus)} CPUs")


@pytest.mark.parametrize(
    ("n_gpus", "weights", "asked", "said"),
    [
        (4, 26, {"asked_replicas": "5"}, "5 replicas do not fit 4 GPUs: each needs one; --replicas 4"),
        (4, 100, {"asked_replicas": "3"}, "3 replicas do not fit 4 GPUs: each needs 2 of them; --replicas 2"),
        (1, 26, {"asked_replicas": "2"}, "2 replicas do not fit 1 GPU: each needs one; --replicas 1"),
        (4, 26, {"asked_gpus": "5"}, "--gpus 5: there are 4"),
        (4, 26, {"asked_gpus": "0,4"}, "--gpus 0,4: GPU 4 is not here"),
        (4, 26, {"asked_gpus": "1,1"}, "--gpus 1,1: an id occurs twice"),
        (4, 26, {"asked_gpus": ","}, "--gpus ,: no id is named"),
        (4, 26, {"asked_gpus": "0"}, "--gpus 0 is neither auto nor a number of at least 1"),
        (4, 26, {"asked_gpus": "all"}, "--gpus all is neither auto nor"),
        (4, 26, {"asked_replicas": "-1"}, "--replicas -1 is neither auto nor"),
        (4, 26, {"asked_replicas": "²"}, "--replicas ² is neither auto nor"),
        (0, 26, {"asked_gpus": "1"}, "--gpus 1: the NVIDIA driver shows no GPU"),
        (0, 26, {"asked_replicas": "2"}, "--replicas 2: the NVIDIA driver shows no GPU for each of them"),
        (2, 26, {"asked_gpus": "1", "cuda": False}, "--gpus 1: llama.cpp was built without CUDA"),
        (0, 26, {"asked_replicas": "100000", "cuda": False}, "100000 replicas need 100000 CPUs"),
    ],
)
def test_what_is_not_there_is_refused(n_gpus: int, weights: int, asked: dict, said: str) -> None:
    """In one line, with what to ask for instead."""
    with pytest.raises(UserError) as refused:
        seats(gpus(n_gpus), weights * GIB, **asked)
    assert f"{refused.value.message}; {refused.value.hint}".startswith(said)
    assert refused.value.hint
