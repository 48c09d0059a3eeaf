"""Values that are infinite or no number are kept, counted and named; none is made; and tensors that are left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file, save_file

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.exactness import non_finite, to_float32
from orin_runner.errors import UserError
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.model.gguf_file import GGUFFile
from tests.support.checkpoints import llama, phi3
from tests.support.commands import convert as convert_command

GATE_UP = "model.layers.0.mlp.gate_up_proj.weight"
NORM = "model.norm.weight"


def change(directory: Path, **values: dict[tuple[int, ...], float]) -> None:
    """Set single values of a checkpoint of one file, by tensor name and index."""
    path = directory / "model.safetensors"
    tensors = load_file(path)
    for name, changes in values.items():
        for at, value in changes.items():
            tensors[name][at] = value
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture
def broken(tmp_path: Path, tiny: Path) -> Path:
    """A Phi-3 with one infinite and two NaN weights in the gate's half, one in the other, and one NaN in a norm."""
    directory = phi3(tmp_path / "m", tiny, layers=1, hidden=64)
    gate_up = {(0, 1): np.inf, (3, 5): np.nan, (127, 63): np.nan, (128, 0): -np.inf}
    change(directory, **{GATE_UP: gate_up, NORM: {(7,): np.nan}})
    return directory


def test_every_pattern_is_told_as_numpy_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of bfloat16 and float16, a sample of float32, across the seams of chunks."""
    monkeypatch.setattr("convert.exactness.CHUNK_VALUES", 1000)
    halves = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).reshape(256, 256)
    words = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    words[:3] = [0x7F800000, 0xFFC00000, 0x7F800001]
    for dtype, bits in (("BF16", halves), ("F16", halves), ("F32", words)):
        wanted = np.count_nonzero(~np.isfinite(to_float32(bits, dtype)))
        assert wanted > 3
        assert non_finite(bits, dtype) == wanted


def test_the_manifest_counts_them_by_tensor(broken: Path, tmp_path: Path) -> None:
    """The GGUF holds the same values; 0 are altered."""
    manifest = convert(Checkpoint.open(broken), tmp_path / "m.gguf", Options())
    found = {record.name: record.non_finite for record in manifest.tensors if record.non_finite}
    assert found == {"blk.0.ffn_gate.weight": 3, "blk.0.ffn_up.weight": 1, "output_norm.weight": 1}
    written = json.loads(manifest_path(tmp_path / "m.gguf").read_text(), parse_constant=pytest.fail)
    assert {r["name"]: r["non_finite"] for r in written["tensors"] if r["non_finite"]} == found
    assert manifest.changed == 0
    (norm,) = (tensor for tensor in GGUFReader(tmp_path / "m.gguf").tensors if tensor.name == "output_norm.weight")
    assert np.flatnonzero(np.isnan(norm.data)).tolist() == [7]


def test_the_command_names_them_in_one_line(broken: Path, tmp_path: Path) -> None:
    """By their names in the checkpoint; that is no error. Without any nothing is said."""
    done = convert_command(str(broken), str(tmp_path / "m.gguf"))
    assert done.returncode == 0, done.stderr
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1
    assert f"5 values of the checkpoint are not finite: 4 in {GATE_UP}, 1 in {NORM};" in warnings[0]
    change(broken, **{GATE_UP: {(0, 1): 0, (3, 5): 0, (127, 63): 0, (128, 0): 0}, NORM: {(7,): 0}})
    done = convert_command(str(broken), str(tmp_path / "m.gguf"), "--force")
    assert (done.returncode, "finite" in done.stderr) == (0, False), done.stderr


@pytest.mark.parametrize(("dtype", "outtype", "value"), [("bfloat16", "f16", 1e30), ("float32", "bf16", 3.4e38)])
def test_no_value_becomes_infinite(tmp_path: Path, tiny: Path, dtype: str, outtype: str, value: float) -> None:
    """--allow-rounding rounds; infinity is not near to anything."""
    directory = phi3(tmp_path / "m", tiny, layers=1, hidden=64, dtype=getattr(torch, dtype))
    change(directory, **{GATE_UP: {(0, 0): value}})
    with pytest.raises(UserError, match=f"{GATE_UP} has values that are too large for {outtype}"):
        convert(Checkpoint.open(directory), tmp_path / "m.gguf", Options(outtype=outtype, allow_rounding=True))
    assert list(tmp_path.glob("m.gguf*")) == []
    change(directory, **{GATE_UP: {(0, 0): np.inf}})
    manifest = convert(Checkpoint.open(directory), tmp_path / "m.gguf", Options(outtype=outtype, allow_rounding=True))
    assert sum(record.non_finite for record in manifest.tensors) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64, torch.int8])
def test_rotary_frequencies_of_older_checkpoints_are_left_out(tmp_path: Path, tiny: Path, dtype: torch.dtype) -> None:
    """LLaMA-1 as it was first converted: no tensor of the GGUF, but a digest among those of the checkpoint."""
    from eval.reference import Reference

    directory = llama(tmp_path / "m", tiny)
    convert(Checkpoint.open(directory), tmp_path / "without.gguf", Options())
    path = directory / "model.safetensors"
    names = [f"model.layers.{i}.self_attn.rotary_emb.inv_freq" for i in range(2)]
    frequencies = (1 / 10000 ** (torch.arange(0, 32, 2) / 32)).to(dtype)
    save_file({**load_file(path), **{name: frequencies.clone() for name in names}}, path, metadata={"format": "pt"})
    out = tmp_path / "m.gguf"
    manifest = convert(Checkpoint.open(directory), out, Options())
    assert {*names} < {*manifest.source_sha256}
    assert not {*names} & {record.source for record in manifest.tensors}
    old, new = (GGUFReader(path).tensors for path in (tmp_path / "without.gguf", out))
    assert [(a.name, a.data.tobytes()) for a in old] == [(b.name, b.data.tobytes()) for b in new]
    # The same digest as of the checkpoint that transformers loads.
    reference = Reference(directory, "float32", "cpu").header()["model"]
    assert reference["checkpoint_sha256"] == GGUFFile.open(out).checkpoint_sha256
