"""Converted files that were changed afterwards."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf import GGUFReader


def manifest_of(gguf: Path) -> Path:
    """As docs/proof.md has it."""
    return gguf.with_name(gguf.name + ".manifest.json")


def copied(gguf: Path, folder: Path) -> Path:
    """A copy of a converted file and its manifest, to be changed."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(manifest_of(gguf), folder)
    return Path(shutil.copy(gguf, folder))


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Flip one bit of a file, in place; a second time undoes it."""
    with path.open("r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ (1 << bit)]))


def data_places(gguf: Path) -> dict[str, range]:
    """The bytes of each tensor's data in the file, in its order, as the gguf library has it."""
    tensors = GGUFReader(gguf).tensors
    return {t.name: range(int(t.data_offset), int(t.data_offset) + int(t.n_bytes)) for t in tensors}


def value_place(gguf: Path, key: str) -> int:
    """Where the last value of a key begins, as the gguf library has it."""
    field = GGUFReader(gguf).fields[key]
    return int(field.offset) + sum(int(part.nbytes) for part in field.parts[: field.data[-1]])


def rewritten(gguf: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest, and name it in the GGUF as if the conversion had made it."""
    path = manifest_of(gguf)
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    restamped(gguf, json.dumps(manifest).encode())


def restamped(gguf: Path, manifest: bytes) -> None:
    """Put another manifest beside the GGUF, and its digest in."""
    path = manifest_of(gguf)
    old, new = (hashlib.sha256(content).hexdigest().encode() for content in (path.read_bytes(), manifest))
    content = gguf.read_bytes()
    assert content.count(old) == 1
    gguf.write_bytes(content.replace(old, new))
    path.write_bytes(manifest)
