"""The published tokenizers of ``ORIN_DATA``, as folders that transformers loads."""

from __future__ import annotations

import json
import lzma
import shutil
from pathlib import Path

ROWS = {"llama-3.1": 128256, "qwen3": 151936, "smollm2": 49152, "llama2": 32000, "phi-3-medium": 32064}
"""Rows of the published models' embeddings, by folder; Qwen 3's and Phi-3's are more than their tokenizers' tokens."""


def unpacked(source: Path, target: Path) -> Path:
    """The files of ``source`` in ``target``, decompressed."""
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.suffix == ".xz":
            (target / path.stem).write_bytes(lzma.decompress(path.read_bytes()))
        else:
            shutil.copy(path, target / path.name)
    if source.name == "llama2":
        _mend_llama2(target / "tokenizer.json")
    return target


def _mend_llama2(path: Path) -> None:
    """Put back the no-break spaces of Llama 2's pieces, which this copy has as spaces: no library loads it so.

    A merge of two such pieces has its separator in the middle.
    """
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    model = tokenizer["model"]
    model["vocab"] = {piece.replace(" ", "\u00a0"): token for piece, token in model["vocab"].items()}
    for i, merge in enumerate(model["merges"]):
        if merge.count(" ") > 1:
            middle = len(merge) // 2
            halves = (merge[:middle], merge[middle + 1 :])
            model["merges"][i] = " ".join(half.replace(" ", "\u00a0") for half in halves)
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
