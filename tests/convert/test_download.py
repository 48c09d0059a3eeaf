"""What is fetched from the hub; the hub itself is a folder here."""

from __future__ import annotations

import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from convert import download
from orin_runner.errors import UserError

SETTINGS = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja"}
BIN = {"pytorch_model.bin"}
BINS = {"pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"}
ONE = {"model.safetensors"}
SHARDS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
OTHERS = {"flax_model.msgpack", "tf_model.h5", "training_args.bin", "optimizer.pt", "consolidated.00.pth", "README.md"}
INDEX = {"pytorch_model.bin.index.json"}  # some kB, and the same pattern as all settings


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of a repository's files, to be filled; they come as the client's patterns say."""
    there: set[str] = set()

    def fetch(_: str, allow_patterns: list[str]) -> str:
        for name in there:
            if any(fnmatch(name, pattern) for pattern in allow_patterns):
                (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(download, "snapshot_download", fetch)
    return there


@pytest.mark.parametrize(
    ("weights", "fetched"),
    [
        (ONE | BIN, ONE),
        (SHARDS | BINS, SHARDS | INDEX),
        (SHARDS | BIN, SHARDS),
        (BIN, BIN),
        (BINS, BINS),
        (BIN | {"adapter_model.safetensors"}, BIN | {"adapter_model.safetensors"}),
    ],
)
def test_bins_come_only_where_there_are_no_safetensors(hub: set[str], weights: set[str], fetched: set[str]) -> None:
    """Neither twice the bytes, nor another program's files."""
    hub |= weights | SETTINGS | OTHERS
    folder = download.download_checkpoint("org/model")
    assert {path.name for path in folder.iterdir()} == fetched | SETTINGS


def test_no_bin_is_fetched_that_nothing_reads(hub: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, before hours of downloading."""
    hub |= BIN | SETTINGS
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "convert.torch_bin", raising=False)
    with pytest.raises(UserError, match="takes torch to read"):
        download.download_checkpoint("org/model")
    assert not (tmp_path / "pytorch_model.bin").exists()
