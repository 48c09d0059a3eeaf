"""Checkpoints as ``torch.save`` wrote them before safetensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file

WEIGHTS = "pytorch_model.bin"


def pickled(directory: Path, shards: int = 1) -> Path:
    """Replace the one safetensors file of a checkpoint by ``.bin`` files of the same tensors."""
    source = directory / "model.safetensors"
    tensors = load_file(source)
    source.unlink()
    if shards == 1:
        torch.save(tensors, directory / WEIGHTS)
        return directory
    names = [f"pytorch_model-{i + 1:05}-of-{shards:05}.bin" for i in range(shards)]
    where = {name: names[i % shards] for i, name in enumerate(sorted(tensors))}
    for file in names:
        torch.save({name: tensor for name, tensor in tensors.items() if where[name] == file}, directory / file)
    index = {"metadata": {"total_size": 1}, "weight_map": where}
    (directory / f"{WEIGHTS}.index.json").write_text(json.dumps(index))
    return directory


def repacked(
    source: Path, target: Path, change: Callable[[str, bytes], bytes], packing: int = zipfile.ZIP_STORED
) -> Path:
    """``source``, a ``.bin``, with ``change(record, content)`` for each record, and checksums to match."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", packing) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename.partition("/")[2], old.read(entry)))
    return target
