"""Checkpoint to GGUF: bit for bit, or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGUFReader, GGUFWriter

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.layouts.layout import interleaved
from orin_runner.errors import UserError
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.model.gguf_file import GGUFFile
from tests.support.checkpoints import llama, phi3


def raw(path: Path, name: str) -> np.ndarray:
    """A GGUF tensor's raw values, read by the gguf library."""
    (tensor,) = [t for t in GGUFReader(path).tensors if t.name == name]
    dtype = {"F32": np.uint32, "F16": np.uint16, "BF16": np.uint16}[tensor.tensor_type.name]
    return np.frombuffer(tensor.data.tobytes(), dtype=dtype).reshape(tuple(reversed(tensor.shape.tolist())))


def source(directory: Path, name: str) -> np.ndarray:
    """A checkpoint tensor's raw values, read by the safetensors library through torch."""
    from safetensors import safe_open

    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as shard:
            if name in shard.keys():  # noqa: SIM118 - not a mapping
                tensor = shard.get_tensor(name)
                if tensor.dtype == torch.float32:
                    return tensor.numpy().view(np.uint32)
                return tensor.view(torch.int16).numpy().view(np.uint16)
    raise KeyError(name)


def test_phi3_tensors_are_the_checkpoints_rows_in_the_order_llama_cpp_wants(tmp_path: Path, tiny: Path) -> None:
    """Fused qkv with rotary rows interleaved per head, gate and up split, the rest as they are."""
    checkpoint = phi3(tmp_path / "m", tiny)
    out = tmp_path / "m.gguf"
    convert(Checkpoint.open(checkpoint), out, Options())
    qkv = source(checkpoint, "model.layers.1.self_attn.qkv_proj.weight")
    stored = raw(out, "blk.1.attn_qkv.weight")
    # 4 query heads, 2 key and 2 value heads of 32: row 2i of a head is its row i, row 2i + 1 its row i + 16.
    for head in range(6):
        rows = qkv[32 * head : 32 * head + 32]
        assert np.array_equal(stored[32 * head : 32 * head + 32 : 2], rows[:16])
        assert np.array_equal(stored[32 * head + 1 : 32 * head + 32 : 2], rows[16:])
    assert np.array_equal(stored[192:], qkv[192:])
    gate_up = source(checkpoint, "model.layers.1.mlp.gate_up_proj.weight")
    assert np.array_equal(raw(out, "blk.1.ffn_gate.weight"), gate_up[:256])
    assert np.array_equal(raw(out, "blk.1.ffn_up.weight"), gate_up[256:])
    assert np.array_equal(raw(out, "token_embd.weight"), source(checkpoint, "model.embed_tokens.weight"))
    assert np.all(raw(out, "blk.0.attn_sinks.weight").view(np.float32) == np.float32(-1e30))


def test_the_plain_layout_keeps_everything_fused(tmp_path: Path, tiny: Path) -> None:
    """--window off writes llama.cpp's own phi3 tensors and remembers the window it drops."""
    checkpoint = phi3(tmp_path / "m", tiny)
    out = tmp_path / "m.gguf"
    manifest = convert(Checkpoint.open(checkpoint), out, Options(window="off"))
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert np.array_equal(raw(out, "blk.0.attn_qkv.weight"), source(checkpoint, name))
    assert raw(out, "blk.0.ffn_up.weight").shape == (512, 128)
    assert manifest.added == []
    assert GGUFFile.open(out).dropped_window == 64


def test_a_model_without_a_window_needs_no_special_layout(tmp_path: Path, tiny: Path) -> None:
    """Phi-3 with sliding_window null is written as llama.cpp's own phi3 by default."""
    out = tmp_path / "m.gguf"
    manifest = convert(Checkpoint.open(phi3(tmp_path / "m", tiny, window=None)), out, Options())
    assert manifest.layout == {"architecture": "phi3", "window": None, "dropped_window": None}
    assert GGUFFile.open(out).dropped_window is None


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_llama_q_and_k_are_permuted(tmp_path: Path, tiny: Path, kv_heads: int) -> None:
    """LLaMA-1 (as many key heads as query heads) and grouped keys; float16 stays F16."""
    checkpoint = llama(tmp_path / "m", tiny, kv_heads=kv_heads)
    out = tmp_path / "m.gguf"
    manifest = convert(Checkpoint.open(checkpoint), out, Options())
    for name, heads in (("q", 4), ("k", kv_heads)):
        weights = source(checkpoint, f"model.layers.0.self_attn.{name}_proj.weight")
        rows = interleaved(32 * heads, 32)
        assert np.array_equal(raw(out, f"blk.0.attn_{name}.weight"), weights[rows])
        assert rows[:4].tolist() == [0, 16, 1, 17]
    assert {record.type for record in manifest.tensors} == {"F16", "F32"}


def test_tied_embeddings_are_stored_once(tmp_path: Path, tiny: Path) -> None:
    """llama.cpp uses the embeddings where there is no output.weight."""
    out = tmp_path / "m.gguf"
    convert(Checkpoint.open(llama(tmp_path / "m", tiny, tied=True)), out, Options())
    assert "output.weight" not in {tensor.name for tensor in GGUFReader(out).tensors}


def test_auto_uses_f16_only_where_every_value_survives(tmp_path: Path, tiny: Path) -> None:
    """A bfloat16 checkpoint with one small weight in one tensor: that tensor alone stays BF16."""
    from safetensors.torch import load_file, save_file

    checkpoint = phi3(tmp_path / "m", tiny, exact_in_f16=True)
    out = tmp_path / "m.gguf"
    assert {r.type for r in convert(Checkpoint.open(checkpoint), out, Options()).tensors} == {"F16", "F32"}
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.1.mlp.down_proj.weight"][3, 5] = 2.0**-30
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    manifest = convert(Checkpoint.open(checkpoint), out, Options(force=True))
    assert [r.name for r in manifest.tensors if r.type == "BF16"] == ["blk.1.ffn_down.weight"]
    assert manifest.changed == 0


def test_a_lossy_type_is_refused_or_recorded(tmp_path: Path, tiny: Path) -> None:
    """--outtype f16 names tensor, counts and error; --allow-rounding writes them into file and manifest."""
    checkpoint = Checkpoint.open(phi3(tmp_path / "m", tiny))
    out = tmp_path / "m.gguf"
    with pytest.raises(
        UserError, match=r"model.embed_tokens.weight: \d+ of 393,216 values do not survive f16"
    ) as error:
        convert(checkpoint, out, Options(outtype="f16"))
    assert "largest error" in error.value.message
    assert list(tmp_path.glob("m.gguf*")) == []
    manifest = convert(checkpoint, out, Options(outtype="f16", allow_rounding=True))
    assert manifest.changed > 0
    assert GGUFFile.open(out).altered_values == manifest.changed
    worst = max(record.largest_error for record in manifest.tensors)
    assert 0 < worst < 2.0**-17


def test_the_manifest_proves_the_file(tmp_path: Path, tiny: Path) -> None:
    """Digests in the manifest are those of the bytes on disk, and its own digest stands in the GGUF."""
    checkpoint = phi3(tmp_path / "m", tiny, shard_size="500KB")
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    out = tmp_path / "m.gguf"
    manifest = convert(Checkpoint.open(checkpoint), out, Options())
    file = manifest_path(out)
    written = json.loads(file.read_text())
    assert written["verified"] is True
    assert written["changed_values"] == 0
    assert GGUFFile.open(out).digest() == hashlib.sha256(file.read_bytes()).hexdigest()
    assert GGUFFile.open(out).checkpoint_sha256 == written["checkpoint"]["sha256"]
    for record in written["tensors"]:
        assert record["sha256"] == hashlib.sha256(raw(out, record["name"]).tobytes()).hexdigest()
        values = source(checkpoint, record["source"])
        assert written["source_sha256"][record["source"]] == hashlib.sha256(values.tobytes()).hexdigest()
    assert manifest.changed == 0


def test_the_checkpoint_digest_does_not_depend_on_sharding(tmp_path: Path, tiny: Path) -> None:
    """Runs of the same weights must be recognized as such."""
    digests = set()
    for i, size in enumerate((None, "500KB")):
        out = tmp_path / f"{i}.gguf"
        convert(Checkpoint.open(phi3(tmp_path / str(i), tiny, shard_size=size)), out, Options())
        digests.add(GGUFFile.open(out).checkpoint_sha256)
    assert len(digests) == 1


@pytest.mark.parametrize("flipped", ["qkv", "norm"])
def test_one_flipped_bit_is_caught(tmp_path: Path, tiny: Path, flipped: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that changes between writing and reading back must stop the conversion."""
    checkpoint = Checkpoint.open(phi3(tmp_path / "m", tiny))
    original = GGUFWriter.write_tensor_data
    name = {"qkv": (3, 256, 128), "norm": (1, 128)}[flipped]
    seen = []

    def write(self: object, tensor: np.ndarray) -> None:
        if tensor.shape == name[1:] and not seen:
            seen.append(True)
            tensor = tensor.copy()
            tensor.reshape(-1)[7] ^= 1
        original(self, tensor)

    monkeypatch.setattr(GGUFWriter, "write_tensor_data", write)
    with pytest.raises(RuntimeError, match="differ from the checkpoint"):
        convert(checkpoint, tmp_path / "m.gguf", Options())
    assert seen
    assert list(tmp_path.glob("m.gguf*")) == []


def test_a_failed_conversion_leaves_an_earlier_one_alone(tmp_path: Path, tiny: Path) -> None:
    """The old file and its manifest stay as they were."""
    checkpoint = phi3(tmp_path / "m", tiny)
    out = tmp_path / "m.gguf"
    convert(Checkpoint.open(checkpoint), out, Options())
    before = {path.name: path.read_bytes() for path in tmp_path.glob("m.gguf*")}
    with pytest.raises(UserError, match="do not survive"):
        convert(Checkpoint.open(checkpoint), out, Options(outtype="f16", force=True))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("m.gguf*")} == before


def test_an_interrupted_conversion_leaves_nothing(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while tensors are being written."""
    import convert.convert as module

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "verify", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert(Checkpoint.open(phi3(tmp_path / "m", tiny)), tmp_path / "m.gguf", Options())
    assert list(tmp_path.glob("m.gguf*")) == []


def test_too_little_disk_is_said_before_writing(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message has both numbers."""
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"needs 0\.\d GiB, .* has 0\.0 GiB free"):
        convert(Checkpoint.open(phi3(tmp_path / "m", tiny)), tmp_path / "m.gguf", Options())
    assert list(tmp_path.glob("m.gguf*")) == []
