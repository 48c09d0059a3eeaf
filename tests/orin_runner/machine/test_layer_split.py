"""How layers are divided over GPUs, and the plan for each of these."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orin_runner.machine.device_memory import DeviceMemory, GpuMemory
from orin_runner.machine.layer_split import ModelBytes, balanced, split_of
from orin_runner.machine.memory_formula import MIB, context_bytes
from orin_runner.machine.memory_plan import MemoryPlanner, Needs
from orin_runner.machine.seats import BESIDE_WEIGHTS
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import ContextSettings, Simulated
from tests.support.shapes import PHI3_MEDIUM, header_only

NEEDS = Needs(3478, tokens=10**6, n_parts=8)


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """Phi-3-medium's shape."""
    return GGUFFile.open(header_only(tmp_path_factory.mktemp("medium") / "m.gguf", PHI3_MEDIUM))


def gpus(*mib: int) -> DeviceMemory:
    each = tuple(GpuMemory(f"CUDA{k}", n * MIB) for k, n in enumerate(mib))
    return DeviceMemory("GPUs", sum(mib) * MIB, unified=False, cuda=True, present=True, note="free", gpus=each)


@given(
    n_layers=st.integers(1, 12),
    head=st.floats(0, 4),
    room=st.lists(st.integers(0, 14), min_size=1, max_size=3),
)
def test_no_other_division_is_done_earlier(n_layers: int, head: float, room: list[int]) -> None:
    """Against all divisions that fit."""

    def slowest(split: tuple[int, ...]) -> float:
        return max(n + (head if k == len(split) - 1 else 0) for k, n in enumerate(split))

    found = balanced(n_layers, head, room)
    assert sum(found) == n_layers
    fitting = [split for split in itertools.product(*(range(n + 1) for n in room)) if sum(split) == n_layers]
    if fitting:
        assert all(n <= most for n, most in zip(found, room, strict=True))
        assert slowest(found) <= min(map(slowest, fitting)) + 1e-9


def test_the_bytes_of_all_devices_are_those_of_the_file(medium: GGUFFile) -> None:
    """Phi-3-medium: a layer has 4 x 5,120 x 5,120 x 5/8 + 3 x 5,120 x 17,920 weights of two bytes, and small ones."""
    found = ModelBytes.of(medium)
    assert len(found.layers) == 40
    assert found.layers[0] == pytest.approx(2 * (5120 * 5120 * 5 / 2 + 3 * 5120 * 17920), rel=1e-3)
    assert found.head == pytest.approx(2 * 5120 * 32064, rel=1e-3)
    assert sum(found.on((13, 14, 13))) + medium.embedding_bytes == medium.data_bytes
    assert found.on((13, 14, 13))[2] == sum(found.layers[27:]) + found.head


def test_equal_gpus_get_equal_stages(medium: GGUFFile) -> None:
    """The head is half a layer here, of which half counts."""
    assert split_of(medium, gpus(80000, 80000)) == (20, 20)
    assert split_of(medium, gpus(80000, 80000, 80000)) == (14, 13, 13)


def test_a_small_gpu_gets_what_it_has_room_for(medium: GGUFFile) -> None:
    layer = ModelBytes.of(medium).layers[0]
    room = GpuMemory("small", 7 * layer + BESIDE_WEIGHTS), GpuMemory("large", 80000 * MIB)
    assert split_of(medium, replace(gpus(1, 1), gpus=room)) == (7, 33)


def test_a_column_for_each_gpu_and_the_sum_of_all(medium: GGUFFile) -> None:
    plan = MemoryPlanner(medium, gpus(40000, 40000), 8).plan(NEEDS)
    assert [column.name for column in plan.columns] == ["CUDA0", "CUDA1"]
    assert [column.layers for column in plan.columns] == [20, 20]
    for term in plan.on_device:
        assert plan.terms[term] == sum(column.terms[term] for column in plan.columns)
    cells = plan.n_contexts * plan.settings.n_cells
    assert plan.columns[0].terms["KV cache"] == cells * 200 * 1024 // 2
    assert plan.columns[1].terms["weights"] - plan.columns[0].terms["weights"] == ModelBytes.of(medium).head
    assert plan.total == sum(column.total for column in plan.columns)
    assert plan.remaining == min(column.remaining for column in plan.columns)
    assert plan.to_json()["columns"][1]["total"] == plan.columns[1].total


def test_each_gpu_has_the_buffers_that_llama_cpp_says(medium: GGUFFile) -> None:
    def simulate(settings: ContextSettings) -> Simulated:
        return replace(context_bytes(medium, settings), compute=(100 * MIB, 300 * MIB))

    plan = MemoryPlanner(medium, gpus(40000, 40000), 8, simulate).plan(NEEDS)
    assert [column.terms["compute"] for column in plan.columns] == [
        plan.n_contexts * 100 * MIB,
        plan.n_contexts * 300 * MIB,
    ]


def test_layers_over_gpus_have_contexts_for_each_stage(medium: GGUFFile) -> None:
    """So that every GPU has something to do while the others compute."""
    for n in (2, 3):
        plan = MemoryPlanner(medium, gpus(*[40000] * n), 8).plan(NEEDS)
        assert (plan.n_contexts, plan.settings.n_batch, plan.settings.n_ubatch) == (2 * n, 512, 512)
    few = MemoryPlanner(medium, gpus(40000, 40000), 8).plan(replace(NEEDS, n_parts=3))
    assert few.n_contexts == 3


def test_the_gpu_that_is_too_small_is_named(medium: GGUFFile) -> None:
    """Together they have room for all, which is of no use."""
    plan = MemoryPlanner(medium, gpus(80000, 1000), 8).plan(NEEDS)
    assert not plan.fits
    assert plan.total < plan.device.available
    assert plan.advice is not None
    assert "on CUDA1" in plan.advice
