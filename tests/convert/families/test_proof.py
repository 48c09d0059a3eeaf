"""Every tensor of every family's checkpoint is accounted for, bit for bit, and one flipped bit is caught."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from convert.checkpoint import Checkpoint
from convert.conversion import Conversion
from convert.convert import Options, _decide, convert
from convert.verify import verify
from convert.write import write
from orin_runner.errors import RunError, UserError
from orin_runner.model.gguf_digests import manifest_path
from tests.support.families import FAMILIES


def checkpoint_of(name: str, folder: Path) -> Path:
    return FAMILIES[name].build(folder / "checkpoint")


def bits(values: np.ndarray) -> np.ndarray:
    """In the order of their bits."""
    return np.sort(np.ascontiguousarray(values).reshape(-1).view(f"u{values.dtype.itemsize}"))


def sources(folder: Path) -> dict[str, np.ndarray]:
    """The checkpoint's tensors in float32, read by safetensors."""
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        return {name: file.get_tensor(name).float().numpy() for name in file.keys()}  # noqa: SIM118


def written(path: Path) -> dict[str, np.ndarray]:
    """The GGUF's tensors of 32-bit values, rows first."""
    return {tensor.name: np.array(tensor.data) for tensor in GGUFReader(path).tensors}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "OPT"])
def test_no_value_changes_and_none_is_lost(name: str, tmp_path: Path) -> None:
    """The values of each checkpoint tensor are those of the GGUF tensors made of it, in whatever order."""
    folder, out = checkpoint_of(name, tmp_path), tmp_path / "m.gguf"
    convert(Checkpoint.open(folder), out, Options("f32"))
    manifest = json.loads(manifest_path(out).read_text())
    found = written(out)
    parts: dict[str, list[np.ndarray]] = {}
    for record in manifest["tensors"]:
        parts.setdefault(record["source"], []).append(found.pop(record["name"]).reshape(-1))
    assert {record["name"] for record in manifest["added"]} == set(found)
    assert all(np.array_equal(found[a["name"]], np.full(a["shape"], a["value"], "f4")) for a in manifest["added"])
    expected = sources(folder)
    assert set(parts) == set(expected) == set(manifest["source_sha256"])
    for source, values in expected.items():
        assert np.array_equal(bits(np.concatenate(parts[source])), bits(values)), source
    assert manifest["verified"]
    assert manifest["changed_values"] == 0


def test_opt_is_scaled_by_one_power_of_two(tmp_path: Path) -> None:
    """Every tensor against the recipe, with the power that LayerNorm's epsilon tells."""
    folder, out = checkpoint_of("OPT", tmp_path), tmp_path / "m.gguf"
    convert(Checkpoint.open(folder), out, Options("f32"))
    found, model = written(out), sources(folder)
    epsilon = GGUFReader(out).fields["gpt2.attention.layer_norm_epsilon"].contents()
    k = round(math.log2(epsilon / 1e-5) / 2)
    assert 6 <= k <= 12
    scaled = {name: np.ldexp(values, k) for name, values in model.items()}
    top = "model.decoder"
    expected = {
        "token_embd.weight": scaled[f"{top}.embed_tokens.weight"],
        "position_embd.weight": scaled[f"{top}.embed_positions.weight"][2:],
        "output.weight": model[f"{top}.embed_tokens.weight"],
        "output_norm.weight": model[f"{top}.final_layer_norm.weight"],
        "output_norm.bias": model[f"{top}.final_layer_norm.bias"],
    }
    for n in range(2):
        layer, attention = f"{top}.layers.{n}", f"{top}.layers.{n}.self_attn"
        for kind in ("weight", "bias"):
            q, keys, v = (f"{attention}.{name}_proj.{kind}" for name in "qkv")
            expected |= {
                f"blk.{n}.attn_norm.{kind}": model[f"{attention}_layer_norm.{kind}"],
                f"blk.{n}.attn_qkv.{kind}": np.concatenate([model[q], model[keys], scaled[v]]),
                f"blk.{n}.ffn_norm.{kind}": scaled[f"{layer}.final_layer_norm.{kind}"],
            }
        expected |= {
            f"blk.{n}.attn_output.weight": model[f"{attention}.out_proj.weight"],
            f"blk.{n}.attn_output.bias": scaled[f"{attention}.out_proj.bias"],
            f"blk.{n}.ffn_up.weight": model[f"{layer}.fc1.weight"],
            f"blk.{n}.ffn_up.bias": scaled[f"{layer}.fc1.bias"],
            f"blk.{n}.ffn_down.weight": model[f"{layer}.fc2.weight"],
            f"blk.{n}.ffn_down.bias": scaled[f"{layer}.fc2.bias"],
        }
    assert set(found) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(found[name], values), name
    manifest = json.loads(manifest_path(out).read_text())
    (omitted,) = manifest["omitted"]
    assert (omitted["source"], omitted["rows"]) == (f"{top}.embed_positions.weight", 2)
    assert set(manifest["source_sha256"]) == set(model)
    assert manifest["changed_values"] == 0


@pytest.mark.parametrize("name", FAMILIES)
def test_one_flipped_bit_is_caught_in_every_tensor(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the weights, the norms, the biases and the added ones; the file as it was is accepted."""
    path = tmp_path / "m.gguf"
    conversion: Conversion = _decide(Checkpoint.open(checkpoint_of(name, tmp_path)), path, Options(), lambda *_: None)
    write(path, conversion, lambda *_: None)
    verify(path, conversion, lambda *_: None)
    reader = GGUFReader(path)  # its views are of the file as it is
    monkeypatch.setattr("convert.verify.GGUFReader", lambda _: reader)
    for tensor in reader.tensors:
        if tensor.name.startswith("blk.1."):
            continue
        at = int(tensor.data_offset) + int(tensor.n_bytes) // 2
        with path.open("r+b", buffering=0) as file:
            file.seek(at)
            (byte,) = file.read(1)
            file.seek(at)
            file.write(bytes([byte ^ 4]))
            with pytest.raises(RunError):
                verify(path, conversion, lambda *_: None)
            file.seek(at)
            file.write(bytes([byte]))
    verify(path, conversion, lambda *_: None)


@pytest.mark.parametrize("name", ["SmolLM2", "OPT"])
def test_a_tied_head_may_stand_in_the_checkpoint_twice(name: str, tmp_path: Path) -> None:
    """It is not written, if it is the embedding bit for bit; else the checkpoint contradicts itself."""
    folder, out = checkpoint_of(name, tmp_path), tmp_path / "m.gguf"
    shard = folder / "model.safetensors"
    tensors = load_file(shard)
    (embedding,) = (tensor for source, tensor in tensors.items() if source.endswith("embed_tokens.weight"))
    save_file({**tensors, "lm_head.weight": embedding.clone()}, shard, metadata={"format": "pt"})
    convert(Checkpoint.open(folder), out, Options())
    manifest = json.loads(manifest_path(out).read_text())
    assert "lm_head.weight" in manifest["source_sha256"]
    assert not any(record["source"] == "lm_head.weight" for record in manifest["tensors"])
    embedding[3, 3] += 1
    save_file({**tensors, "lm_head.weight": embedding.clone() * 2}, shard, metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head.weight is not .*embed_tokens.weight, to which"):
        convert(Checkpoint.open(folder), tmp_path / "n.gguf", Options())
    assert list(tmp_path.glob("n.gguf*")) == []


def test_opt_s_older_names(tmp_path: Path) -> None:
    """Published OPT checkpoints have no model. before decoder."""
    folder, out = checkpoint_of("OPT", tmp_path), tmp_path / "m.gguf"
    shard = folder / "model.safetensors"
    tensors = {name.removeprefix("model."): tensor for name, tensor in load_file(shard).items()}
    before = convert(Checkpoint.open(folder), out, Options())
    save_file(tensors, shard, metadata={"format": "pt"})
    after = convert(Checkpoint.open(folder), tmp_path / "n.gguf", Options())
    assert [(r.name, r.sha256) for r in before.tensors] == [(r.name, r.sha256) for r in after.tensors]


def test_opt_without_room_in_float16_is_refused(tmp_path: Path) -> None:
    """Feed-forward units that 2^6 would take beyond 65,504."""
    folder = checkpoint_of("OPT", tmp_path)
    shard = folder / "model.safetensors"
    tensors = load_file(shard)
    tensors["model.decoder.layers.1.fc1.weight"] *= 2000
    save_file(tensors, shard, metadata={"format": "pt"})
    with pytest.raises(UserError, match="leave no room in float16"):
        convert(Checkpoint.open(folder), tmp_path / "m.gguf", Options())


class TestRefused:
    """One line, and nothing is written."""

    def refused(self, folder: Path, message: str, **changes: object) -> None:
        path = folder / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, **changes}))
        with pytest.raises(UserError, match=message):
            convert(Checkpoint.open(folder), folder / "m.gguf", Options())
        assert list(folder.glob("m.gguf*")) == []

    @pytest.mark.parametrize(
        ("name", "changes", "message"),
        [
            ("Qwen2.5", {"architectures": ["Gemma3ForCausalLM"]}, "architecture Gemma3ForCausalLM is not supported"),
            ("Qwen2.5", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "scaling of type 'yarn' .* Qwen2"),
            ("Qwen3", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "scaling of type 'dynamic'"),
            ("Llama 3.1", {"rope_parameters": {"rope_type": "linear", "factor": 8.0}}, "scaling of type 'linear'"),
            ("Llama 3.1", {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}}, "has low_freq_factor None"),
            ("Phi-4-mini", {"partial_rotary_factor": 1.0, "rope_parameters": None,
                            "rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}},
             "no short_factor of 8 positive numbers"),
            ("Qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5 is not supported"),
            ("Qwen3", {"attention_bias": True}, "sets attention_bias"),
            ("Qwen2.5", {"hidden_act": "gelu"}, "hidden_act 'gelu'"),
            ("Qwen2.5", {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["sliding_attention"] * 2},
             "sliding window of 64 tokens cannot be honoured"),
            ("Qwen2.5", {"head_dim": 32}, "are not the hidden size"),
            ("Qwen2.5", {"quantization_config": {"quant_method": "gptq"}}, "has a quantization_config"),
            ("OPT", {"activation_function": "gelu"}, "activation_function 'gelu'"),
            ("OPT", {"do_layer_norm_before": False}, "do_layer_norm_before False"),
            ("OPT", {"word_embed_proj_dim": 32}, "word_embed_proj_dim"),
        ],
    )  # fmt: skip
    def test_settings(self, name: str, changes: dict[str, object], message: str, tmp_path: Path) -> None:
        self.refused(checkpoint_of(name, tmp_path), message, **changes)
