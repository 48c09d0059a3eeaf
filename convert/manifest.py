"""The proof that lies beside a GGUF: what became of every checkpoint tensor, with digests.

The GGUF carries the manifest's own digest and the checkpoint's, so that a run can name the weights it used and two runs
can be told to come from the same checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from orin_runner.model.gguf_digests import MANIFEST_FORMAT


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """One GGUF tensor and where its values come from; one of several, if it is stacked of several checkpoint tensors.

    Attributes:
        name, type, shape, sha256: of the whole tensor in the GGUF.
        source, source_dtype: the checkpoint tensor it is made from.
        transform: which rows it takes and in what order.
        exponent: the values are multiplied by two to this power.
        changed: values that differ from the checkpoint's.
        largest_error: the largest such difference.
        non_finite: values that are infinite or not a number, as they are in the checkpoint.
    """

    name: str
    type: str
    shape: tuple[int, ...]
    sha256: str
    source: str
    source_dtype: str
    transform: str
    exponent: int
    changed: int
    largest_error: float
    non_finite: int


@dataclass(frozen=True, slots=True)
class AddedRecord:
    """A tensor that the checkpoint does not have: ``value`` everywhere, or its values."""

    name: str
    type: str
    shape: tuple[int, ...]
    value: float | tuple[float, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class OmittedRecord:
    """The first ``rows`` rows of checkpoint tensor ``source``, which are not in the GGUF."""

    source: str
    rows: int
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a conversion did.

    Attributes:
        tool: name and version of this program.
        checkpoint: folder name, model type, and the digest over all its weights.
        layout: GGUF architecture, the sliding window it honours and the one it drops.
        tokenizer: what built the tokenizer, the digest of its serialized form, llama.cpp's names of model and
            pre-tokenizer, how many of the pieces of ``convert/vocab/sample.py`` llama.cpp's own vocabulary cuts
            otherwise, and the special tokens that the checkpoint's other files name otherwise.
        metadata_sha256: digest of every key of the GGUF but the two that are stamped into it afterwards.
        tensor_table_sha256: digest of its tensor table.
        source_sha256: digest of every checkpoint tensor's bytes.
        tensors, added, omitted: see the records.
        verified: whether the file was reopened and every value compared.
    """

    tool: str
    checkpoint: dict[str, Any]
    layout: dict[str, Any]
    tokenizer: dict[str, Any]
    metadata_sha256: dict[str, str]
    tensor_table_sha256: str
    source_sha256: dict[str, str]
    tensors: list[TensorRecord]
    added: list[AddedRecord]
    omitted: list[OmittedRecord]
    verified: bool

    @property
    def changed(self) -> int:
        """Values in the GGUF that differ from the checkpoint's."""
        return sum(record.changed for record in self.tensors)

    def to_json(self) -> str:
        """The manifest as written to disk."""
        return json.dumps({"format": MANIFEST_FORMAT, "changed_values": self.changed, **asdict(self)}, indent=1) + "\n"

    def digest(self) -> str:
        """sha256 of the manifest file's bytes."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()
