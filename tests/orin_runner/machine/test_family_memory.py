"""The memory plan of every family's layout: heads of any size, tied embeddings, biases, windows."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.memory_plan import MemoryPlanner, Needs
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from tests.support.families import FAMILIES

SETTINGS = llama.ContextSettings(1024, 512, 256, 256, n_threads=1)


def planner(file: GGUFFile, *, cuda: bool) -> MemoryPlanner:
    device = DeviceMemory("d", 1 << 40, unified=not cuda, cuda=cuda, present=False, note="")
    return MemoryPlanner(file, device, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_formula_simulation_and_what_is_allocated(name: str, tmp_path: Path) -> None:
    """The formula's cache is llama.cpp's, its buffers are never under; weights are the tensor table's."""
    path = tmp_path / "m.gguf"
    convert(Checkpoint.open(FAMILIES[name].build(tmp_path / "m")), path, Options())
    file = GGUFFile.open(path)
    simulated = llama.simulate(path, SETTINGS)
    formula = planner(file, cuda=False).sized(Needs(300), SETTINGS)
    assert formula.terms["KV cache"] == pytest.approx(simulated.kv, abs=0.02 * 2**20)  # the log has two decimals
    assert formula.terms["compute"] >= simulated.compute_device + simulated.compute_host
    assert formula.terms["weights"] == sum(tensor.n_bytes for tensor in file.header.tensors)
    with llama.Model(path) as model, llama.Context(model, SETTINGS) as context:
        assert context.buffers["KV"] == pytest.approx(simulated.kv / 2**20, abs=0.02)
    on_gpu = planner(file, cuda=True).sized(Needs(300), SETTINGS)
    # The head is in device memory, the embedding on the host; a tied one is in both.
    tied = bool(FAMILIES[name].settings.get("tie_word_embeddings")) and name != "OPT"
    assert file.tied == tied
    assert on_gpu.terms["weights"] == file.data_bytes - (0 if tied else file.embedding_bytes)
