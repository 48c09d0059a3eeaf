"""The tiny model with the patched kernel and with the plain one: both as near to its F32 file as rounding allows."""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.model.gguf_header import read_header
from orin_runner.model.llama import Model
from orin_runner.model.llama_log import LOG
from orin_runner.requests import Scored
from tests.support.runs import run_gguf, whole_rows

CPU = Path("/proc/cpuinfo")
AMX = CPU.is_file() and "amx_bf16" in CPU.read_text(encoding="utf-8")
LIBRARY = Path(llama_cpp.__file__).parent / "lib" / "libggml-cpu.so"
PATCHED = LIBRARY.is_file() and b"ggml_amx_bf16_mul_mat" in LIBRARY.read_bytes()
pytestmark = [
    pytest.mark.skipif(not AMX, reason="the processor has no amx_bf16: there is the plain kernel alone"),
    pytest.mark.skipif(not PATCHED, reason="llama.cpp was compiled without the patch"),
]
TOKENS = np.random.default_rng(7).integers(259, 3000, 600).tolist()
LENGTHS = (1, 2, 17, 33, 100, 257, 600)


def rows(path: Path) -> np.ndarray:
    """Log-probabilities of the vocabulary after prefixes of one text, ``[len(LENGTHS), 384]``."""
    results, _ = run_gguf(path, whole_rows(TOKENS, LENGTHS, range(0, 3072, 8)))
    return np.array([[float(logprob[0]) for logprob in r.logprobs] for r in results if isinstance(r, Scored)])


def in_tiles(path: Path) -> Counter[str]:
    """By type, how many weights of the file llama.cpp puts into its AMX buffer in the order of tiles.

    That there is such a buffer says nothing of the patch: the unpatched library puts F16 weights there, as they are.
    """
    said: list[str] = []
    hear = llama_cpp.llama_log_callback(lambda _level, text, _data: said.append(text.decode("utf-8", "replace")))
    llama_cpp.llama_log_set(hear, ctypes.c_void_p(0))  # LOG drops what is said for debugging
    try:
        with Model(path):
            pass
    finally:
        LOG.listen()
    return Counter(re.findall(r"amx repack tensor \S+ of type (\w+)", "".join(said)))


def test_results_stay_within_the_noise(
    tiny: Path, tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most half as far again from the F32 file as the plain kernel is."""
    convert(Checkpoint.open(tiny), tmp_path / "f32.gguf", Options("f32"))
    exact = rows(tmp_path / "f32.gguf")
    assert in_tiles(tiny_gguf)
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


def test_the_type_of_a_file_decides(tiny: Path, tmp_path: Path) -> None:
    """Every BF16 matrix but the embedding table is packed, and no F16 one: the patch gains nothing there."""
    convert(Checkpoint.open(tiny), tmp_path / "bf16.gguf", Options("bf16"))
    convert(Checkpoint.open(tiny), tmp_path / "f16.gguf", Options("f16", allow_rounding=True))
    matrices = [tensor for tensor in read_header(tmp_path / "bf16.gguf").tensors if len(tensor.shape) == 2]
    assert in_tiles(tmp_path / "bf16.gguf") == {"bf16": len(matrices) - 1}
    assert not in_tiles(tmp_path / "f16.gguf")
