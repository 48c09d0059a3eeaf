"""What converter and runner must agree on to prove a GGUF: where its manifest lies, what its digests are over.

It knows neither all that a manifest says (``convert/manifest.py`` writes it) nor what follows from it (``proof.py``).
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from orin_runner.model import gguf_keys
from orin_runner.model.gguf_header import Header

MANIFEST_FORMAT = 2
"""Of the manifests that are written now. Format 1 has no digests of keys and tensor table."""
STAMPED = frozenset({gguf_keys.MANIFEST_SHA256, gguf_keys.CHECKPOINT_SHA256})
"""Keys that get their values when the manifest is made: its own digest, and one that stands in it."""


def manifest_path(gguf: Path) -> Path:
    """Where the manifest of ``gguf`` lies."""
    return gguf.with_name(gguf.name + ".manifest.json")


def metadata_digests(header: Header) -> dict[str, str]:
    """sha256 of the type and value of every key but the ``STAMPED`` ones, in the file's order."""
    return {key: digest for key, digest in header.key_sha256.items() if key not in STAMPED}


def text_digest(text: str | None) -> str | None:
    """sha256 of a text's UTF-8; None of no text."""
    return None if text is None else hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def constant_digest(shape: list[int], value: float | list[float]) -> str:
    """sha256 of an F32 tensor whose values are all the same, or ``value``."""
    return hashlib.sha256(np.full(shape, value, dtype=np.float32).data).hexdigest()
