"""The fastest shapes: what is kept of them, what of it is used where, and how a plan takes them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.memory_plan import MemoryPlanner, Needs
from orin_runner.machine.shape import MOST_CONTEXTS, SIZES, Shape, score_shapes, text_shapes
from orin_runner.machine.tuned import KEPT, Tuned, name_of, shape_on, tuned_for
from orin_runner.model.gguf_file import GGUFFile
from tests.support.shapes import PHI3_MEDIUM, header_only

GPU = DeviceMemory("CUDA0 (NVIDIA H100)", 79_000 * MIB, unified=False, cuda=True, present=False, note="as given")
ONE = Tuned("a" * 64, name_of(GPU), "0.3.36", "scores", Shape(2, 512, 512), 1000.5, "2026-01-02T03:04:05+00:00")
TEXTS = replace(ONE, work="texts", shape=Shape(3, 1024, 1024))


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of what is remembered; the file there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "orin-run" / "tuned.json"


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """Phi-3-medium's shape."""
    return GGUFFile.open(header_only(tmp_path_factory.mktemp("medium") / "m.gguf", PHI3_MEDIUM))


class TestKept:
    """The file."""

    def test_round_trip(self, state: Path) -> None:
        """The last of each model, device, library and work."""
        assert KEPT.read() == []
        KEPT.keep([ONE, TEXTS])
        newer = replace(ONE, shape=Shape(1, 2048, 1024), tokens_per_s=2000.0)
        KEPT.keep([newer])
        assert KEPT.read() == [TEXTS, newer]
        assert KEPT.path == state
        assert [path.name for path in state.parent.iterdir()] == ["tuned.json"]

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[1]", '{"a": 1}', "null", "[{}]", b"\xff\xfe", "[" * 300, '[{"model": "x", "shape": {}}]'],
        ids=range(9),
    )
    def test_a_damaged_file_is_none(self, state: Path, content: str | bytes) -> None:
        """It is written anew."""
        state.parent.mkdir()
        state.write_bytes(content if isinstance(content, bytes) else content.encode())
        assert KEPT.read() == []
        KEPT.keep([ONE])
        assert KEPT.read() == [ONE]

    def test_a_folder_of_that_name(self, state: Path) -> None:
        state.mkdir(parents=True)
        assert KEPT.read() == []

    @pytest.mark.parametrize(
        "shape",
        [(0, 512, 512), (MOST_CONTEXTS + 1, 512, 512), (1, 512, 1024), (1, 128, 128), (1, 512, 0), (1, 4096, 512)],
    )
    def test_a_shape_that_no_run_can_have(self, state: Path, shape: tuple[int, int, int]) -> None:
        """Somebody has edited the file: that entry is none, the others are."""
        KEPT.keep([ONE, TEXTS])
        rows = json.loads(state.read_text())
        rows[0]["shape"] = dict(zip(("n_contexts", "n_batch", "n_ubatch"), shape, strict=True))
        state.write_text(json.dumps(rows))
        assert KEPT.read() == [TEXTS]

    @pytest.mark.parametrize("rate", [0.0, -1.0, 1e300])
    def test_a_rate_that_cannot_be(self, rate: float) -> None:
        KEPT.keep([replace(ONE, tokens_per_s=rate)])
        assert KEPT.read() == []


class TestUsed:
    """Only where it was measured."""

    def test_by_model_library_device_and_work(self) -> None:
        KEPT.keep([ONE, TEXTS])
        known = tuned_for(ONE.model, ONE.library)
        assert shape_on(GPU, known, texts=False) == ONE.shape
        assert shape_on(GPU, known, texts=True) == TEXTS.shape
        assert tuned_for("b" * 64, ONE.library) == ()
        assert tuned_for(ONE.model, "0.3.37") == ()
        assert shape_on(replace(GPU, name="CUDA0 (NVIDIA A100)"), known, texts=False) is None
        assert shape_on(GPU, known[:1], texts=True) is None

    def test_a_cpu_goes_by_its_threads(self) -> None:
        """What is the fastest on many is not on few."""
        cpu = DeviceMemory("CPU", 1000 * MIB, unified=True, cuda=False, present=True, note="")
        assert name_of(cpu).endswith(f", {cpu_threads()} threads")


class TestPlan:
    """It comes first, and memory decides."""

    NEEDS = Needs(3478, row_share=0.05, tokens=10**6, n_parts=8)

    def test_a_measured_shape_comes_first(self, medium: GGUFFile) -> None:
        for shape in (Shape(1, 512, 256), Shape(2, 512, 512), Shape(3, 2048, 1024)):
            plan = MemoryPlanner(medium, GPU, 8, tuned=shape).plan(self.NEEDS)
            assert (plan.shape, plan.tuned, plan.fits) == (shape, True, True)
            assert plan.to_json()["tuned"] is True
            assert plan.settings.n_cells >= self.NEEDS.longest + shape.n_batch

    def test_without_one_nothing_is_tuned(self, medium: GGUFFile) -> None:
        plan = MemoryPlanner(medium, GPU, 8).plan(self.NEEDS)
        assert plan.to_json()["tuned"] is False

    def test_what_does_not_fit_is_not_taken(self, medium: GGUFFile) -> None:
        """The plan is then the one without measurements, to the byte."""
        shape = Shape(8, 2048, 2048)
        roomy = MemoryPlanner(medium, GPU, 8, tuned=shape).plan(self.NEEDS)
        assert roomy.shape == shape
        short = replace(GPU, available=roomy.total - MIB)
        assert MemoryPlanner(medium, short, 8, tuned=shape).plan(self.NEEDS) == MemoryPlanner(medium, short, 8).plan(
            self.NEEDS
        )

    def test_half_the_memory_after_a_death(self, medium: GGUFFile) -> None:
        """The shape that has died is not taken again."""
        planner = MemoryPlanner(medium, GPU, 8, tuned=Shape(3, 2048, 2048))
        first, then = planner.plan(self.NEEDS), replace(planner, share=0.5).plan(self.NEEDS)
        assert then.elastic <= first.elastic / 2
        assert not then.tuned

    @pytest.mark.parametrize("needs", [replace(NEEDS, n_parts=1), replace(NEEDS, tokens=1024)])
    def test_several_contexts_want_work_for_several(self, medium: GGUFFile, needs: Needs) -> None:
        plan = MemoryPlanner(medium, GPU, 8, tuned=Shape(2, 512, 512)).plan(needs)
        assert (plan.n_contexts, plan.tuned) == (1, False)

    def test_texts_have_room_side_by_side_where_it_fits(self, medium: GGUFFile) -> None:
        needs = replace(self.NEEDS, generated=True)
        shape = Shape(2, 512, 512)
        planner = MemoryPlanner(medium, GPU, 8, tuned=shape)
        roomy = planner.plan(needs)
        tight = replace(planner, device=replace(GPU, available=roomy.total - MIB)).plan(needs)
        assert (roomy.shape, tight.shape) == (shape, shape)
        assert roomy.settings.n_cells - tight.settings.n_cells == 8192


def test_the_shapes_that_are_tried() -> None:
    """Each can be planned with; two contexts everywhere, more where the host has time while the device computes."""
    for own_memory in (False, True):
        tried = score_shapes(own_memory=own_memory)
        assert len(set(tried)) == len(tried)
        every = [*tried, *(each for best in tried for each in text_shapes(best, own_memory=own_memory))]
        assert all(shape.sound for shape in every)
        assert {shape.n_ubatch for shape in tried} == set(SIZES)
        assert max(shape.n_contexts for shape in every) == (4 if own_memory else 2)
