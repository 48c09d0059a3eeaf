"""The tiny model with the patched kernel and with the plain one: both as near to its F32 file as rounding allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.model.llama import Model
from orin_runner.model.llama_log import LOG
from orin_runner.requests import Scored
from tests.support.runs import run_gguf, whole_rows

CPU = Path("/proc/cpuinfo")
AMX = CPU.is_file() and "amx_bf16" in CPU.read_text(encoding="utf-8")
TOKENS = np.random.default_rng(7).integers(259, 3000, 600).tolist()
LENGTHS = (1, 2, 17, 33, 100, 257, 600)


def rows(path: Path) -> np.ndarray:
    """Log-probabilities of the vocabulary after prefixes of one text, ``[len(LENGTHS), 384]``."""
    results, _ = run_gguf(path, whole_rows(TOKENS, LENGTHS, range(0, 3072, 8)))
    return np.array([[float(logprob[0]) for logprob in r.logprobs] for r in results if isinstance(r, Scored)])


def in_tiles(path: Path) -> bool:
    """Whether llama.cpp puts weights of the file into its AMX buffer."""
    with Model(path):
        return bool(LOG.find(r"AMX model buffer size"))


@pytest.mark.skipif(not AMX, reason="the processor has no amx_bf16: there is the plain kernel alone")
def test_results_stay_within_the_noise(
    tiny: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most half as far again from the F32 file as the plain kernel is."""
    convert(Checkpoint.open(tiny), tmp_path / "f32.gguf", Options("f32"))
    exact = rows(tmp_path / "f32.gguf")
    if not in_tiles(tiny_gguf):
        pytest.skip("llama.cpp was compiled without the patch")
    tiles = rows(tiny_gguf)
    defaults = llama_cpp.llama_model_default_params

    def plain_defaults() -> Any:
        params = defaults()
        params.use_extra_bufts = False
        return params

    monkeypatch.setattr(llama_cpp, "llama_model_default_params", plain_defaults)
    assert not in_tiles(tiny_gguf)
    plain = rows(tiny_gguf)
    assert np.abs(tiles - exact).max() <= 1.5 * np.abs(plain - exact).max()
    assert (tiles.argmax(axis=1) == plain.argmax(axis=1)).all()
