"""The proof that lies beside a GGUF: what became of every checkpoint tensor, with digests.

The GGUF carries the manifest's own digest and the checkpoint's, so that a run can name the weights it used and two runs
can be told to come from the same checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One GGUF tensor and where its values come from.

    Attributes:
        name, type, shape, sha256: of the tensor in the GGUF.
        source, source_dtype: the checkpoint tensor it is made from.
        transform: which rows it takes and in what order.
        changed: values that differ from the checkpoint's.
        largest_error: the largest such difference.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    sha256: str
    source: str
    source_dtype: str
    transform: str
    changed: int
    largest_error: float


@dataclass(frozen=True, slots=True)
class AddedRecord:
    """A constant tensor that the checkpoint does not have."""

    name: str
    type: str
    shape: tuple[int, ...]
    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a conversion did.

    Attributes:
        tool: name and version of this program.
        checkpoint: folder name, model type, and the digest over all its weights.
        layout: GGUF architecture, the sliding window it honours and the one it drops.
        tokenizer: what built the tokenizer, and the digest of its serialized form.
        source_sha256: digest of every checkpoint tensor's bytes.
        tensors, added: see the records.
        verified: whether the file was reopened and every value compared.
    """

    tool: str
    checkpoint: dict[str, Any]
    layout: dict[str, Any]
    tokenizer: dict[str, str]
    source_sha256: dict[str, str]
    tensors: list[TensorRecord]
    added: list[AddedRecord]
    verified: bool

    @property
    def changed(self) -> int:
        """Values in the GGUF that differ from the checkpoint's."""
        return sum(record.changed for record in self.tensors)

    def to_json(self) -> str:
        """The manifest as written to disk."""
        return json.dumps({"format": 1, "changed_values": self.changed, **asdict(self)}, indent=1) + "\n"

    def digest(self) -> str:
        """sha256 of the manifest file's bytes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def manifest_path(gguf: Path) -> Path:
    """Where the manifest of ``gguf`` lies."""
    return gguf.with_name(gguf.name + ".manifest.json")
