"""Malformed ``.bin`` files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.fuzz.checkpoints import conversion
from tests.support.bins import repacked
from tests.support.fuzz import kinds
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged, other_json


class Runs:
    """Unpickled, it would write into the folder of the case's inputs, where nothing may be changed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def stored(checkpoint: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The values that torch reads without mapping the file, in float32."""
    whole = checkpoint / "pytorch_model.bin"
    for path in [whole] if whole.exists() else sorted(checkpoint.glob("pytorch_model-*-of-*.bin")):
        for name, tensor in torch.load(path, weights_only=True, map_location="cpu").items():
            yield name, tensor.detach().float().reshape(-1).numpy()


def bins(random: Random, place: Place) -> Case:
    """Bytes of a file, its pickle with a checksum to match, its index, what it holds, or something in its place."""
    folder = Path(shutil.copytree(place.base / random.choice(("bin", "bins")), place.inputs / "checkpoint"))
    path = random.choice(sorted(folder.glob("*.bin")))
    content, other = path.read_bytes(), (place.base / "bin" / "pytorch_model.bin").read_bytes()
    kind = random.randrange(6)
    if kind == 0:
        path.write_bytes(damaged(content, other, random))
    elif kind == 1:
        records = {"data.pkl"} if random.random() < 0.8 else {"byteorder", "version", ".storage_alignment"}
        kept = Path(shutil.copy(path, place.root / "kept.bin"))
        repacked(kept, path, lambda name, record: damaged(record, content, random) if name in records else record)
        kept.unlink()
    elif kind == 2 and (index := folder / "pytorch_model.bin.index.json").exists():
        index.write_bytes(other_json(index.read_bytes(), random))
    elif kind == 3:
        kinds.put(path, random)
    else:
        torch.save(_other(torch.load(path, weights_only=True), random, place), path)
    return conversion(place, folder, weights=stored)


def _other(weights: dict[str, torch.Tensor], random: Random, place: Place) -> Any:
    """What else torch can save."""
    name = random.choice(sorted(weights))
    value = weights[name]
    return random.choice(
        (
            {**weights, name: value.t().contiguous().t()},
            {**weights, name: torch.nn.Parameter(value)},
            {**weights, name: torch.stack([value, value])[1]},
            {**weights, name: value[:1].expand_as(value)},
            {**weights, name: value.to(random.choice((torch.float64, torch.bfloat16, torch.int8, torch.float8_e5m2)))},
            {**weights, name: value.to_sparse()},
            {**weights, name: value.to("meta")},
            {**weights, name: random.choice((None, 3, "text", [value], {"a": value}))},
            {**weights, random.choice((7, None, "\ud83d", "", "a\nb", "x" * 5000, "decoder.version")): value},
            {**weights, "a": Runs(place.inputs / "ran")},
            {"model": weights, "optimizer": {"step": 1}},
            list(weights.values()),
            Runs(place.inputs / "ran"),
        )
    )
