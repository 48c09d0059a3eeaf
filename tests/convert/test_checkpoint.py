"""Checkpoints that are not whole, or not supported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.errors import UserError
from tests.support.checkpoints import phi3


class TestBrokenCheckpoints:
    """Each gives one clear line, and nothing is written."""

    @pytest.fixture
    def checkpoint(self, tmp_path: Path, tiny: Path) -> Path:
        return phi3(tmp_path / "m", tiny, shard_size="500KB")

    def refused(self, checkpoint: Path, message: str) -> None:
        out = checkpoint.parent / "m.gguf"
        with pytest.raises(UserError, match=message):
            convert(Checkpoint.open(checkpoint), out, Options())
        assert list(checkpoint.parent.glob("m.gguf*")) == []

    def test_missing_shard(self, checkpoint: Path) -> None:
        shard = sorted(checkpoint.glob("model-*.safetensors"))[1]
        shard.unlink()
        self.refused(checkpoint, f"shard {shard.name} of .* is missing")

    def test_truncated_shard(self, checkpoint: Path) -> None:
        shard = min(checkpoint.glob("model-*.safetensors"))
        shard.write_bytes(shard.read_bytes()[:-5])
        self.refused(checkpoint, f"{shard.name} is not a complete safetensors file: .*not fully covered")

    def test_not_safetensors(self, checkpoint: Path) -> None:
        shard = min(checkpoint.glob("model-*.safetensors"))
        shard.write_bytes(b"no such header")
        self.refused(checkpoint, "is not a complete safetensors file")

    def test_missing_tensor(self, checkpoint: Path) -> None:
        index = checkpoint / "model.safetensors.index.json"
        content = json.loads(index.read_text())
        shard = content["weight_map"].pop("model.norm.weight")
        index.write_text(json.dumps(content))
        self._drop(checkpoint / shard, "model.norm.weight")
        self.refused(checkpoint, "tensor model.norm.weight is missing")

    def test_tensor_not_in_the_shard_the_index_names(self, checkpoint: Path) -> None:
        content = json.loads((checkpoint / "model.safetensors.index.json").read_text())
        self._drop(checkpoint / content["weight_map"]["model.norm.weight"], "model.norm.weight")
        self.refused(checkpoint, "tensor model.norm.weight is not in model-.*, where the index says")

    def test_unknown_tensor(self, checkpoint: Path) -> None:
        from safetensors.torch import load_file, save_file

        shard = min(checkpoint.glob("model-*.safetensors"))
        save_file({**load_file(shard), "model.extra.weight": torch.zeros(3)}, shard, metadata={"format": "pt"})
        self.refused(checkpoint, "tensor model.extra.weight is unknown to the granite_swa layout")

    def test_wrong_shape(self, checkpoint: Path) -> None:
        config = checkpoint / "config.json"
        content = json.loads(config.read_text())
        content["intermediate_size"] = 255
        config.write_text(json.dumps(content))
        self.refused(checkpoint, r"has shape \[\d+, \d+\], config.json calls for")

    def test_unsupported_architecture(self, checkpoint: Path) -> None:
        config = checkpoint / "config.json"
        content = json.loads(config.read_text())
        content["architectures"] = ["Gemma2ForCausalLM"]
        config.write_text(json.dumps(content))
        self.refused(checkpoint, "architecture Gemma2ForCausalLM is not supported")

    def test_rope_scaling(self, checkpoint: Path) -> None:
        config = checkpoint / "config.json"
        content = json.loads(config.read_text())
        content["rope_parameters"] = {"rope_type": "yarn", "rope_theta": 1e4}
        config.write_text(json.dumps(content))
        self.refused(checkpoint, "rope scaling of type 'yarn' is not supported")

    def test_no_tokenizer(self, checkpoint: Path) -> None:
        for name in ("tokenizer.json", "tokenizer.model"):
            (checkpoint / name).unlink()
        self.refused(checkpoint, "has neither tokenizer.json nor tokenizer.model")

    def test_broken_config(self, checkpoint: Path) -> None:
        (checkpoint / "config.json").write_text("{")
        self.refused(checkpoint, "config.json is not valid JSON")

    def test_no_weights(self, checkpoint: Path) -> None:
        for path in checkpoint.glob("model*"):
            path.unlink()
        self.refused(checkpoint, "holds no model.safetensors and no pytorch_model.bin")

    def _drop(self, shard: Path, name: str) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(shard)
        del tensors[name]
        save_file(tensors, shard, metadata={"format": "pt"})
