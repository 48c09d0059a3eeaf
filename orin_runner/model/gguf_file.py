"""What the runner reads from a GGUF before llama.cpp loads it: sizes, tokenizer, digests. No tensor data."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType, GGUFReader

from orin_runner.errors import UserError
from orin_runner.model import gguf_keys

FULL_PRECISION = (GGMLQuantizationType.F32, GGMLQuantizationType.F16, GGMLQuantizationType.BF16)
HEADER_SAMPLE = 1 << 20


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A GGUF's metadata and tensor table.

    Attributes:
        path: the file.
        architecture: ``general.architecture``.
        metadata: every key's value; arrays as lists.
        tensor_types: number of tensors and bytes per ggml type name.
        data_bytes: bytes of tensor data.
        n_vocab: rows of the token embedding.
        embedding_bytes: bytes of the token embedding, which llama.cpp keeps on the host.
    """

    path: Path
    architecture: str
    metadata: dict[str, Any]
    tensor_types: dict[str, tuple[int, int]]
    data_bytes: int
    n_vocab: int
    embedding_bytes: int

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Read the header.

        Raises:
            UserError: missing, not a GGUF, truncated, or quantized.
        """
        if not path.is_file():
            raise UserError(f"{path} does not exist", "make convert MODEL=... writes a GGUF")
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise UserError(f"{path} is not a GGUF file", "make convert MODEL=... writes one")
            _version, n_tensors, n_keys = struct.unpack("<IQQ", file.read(20).ljust(20, b"\xff"))
        # Every tensor and key takes some bytes: counts beyond the file's size would be read for minutes.
        if n_tensors + n_keys > path.stat().st_size:
            raise UserError(f"{path} is truncated or damaged (impossible counts)", "convert it again")
        try:
            reader = GGUFReader(path)
            end = max((int(t.data_offset) + int(t.n_bytes) for t in reader.tensors), default=0)
            metadata = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
        except (ValueError, IndexError, KeyError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
            # The reader builds views of every tensor; one that reaches past the end cannot be reshaped.
            raise UserError(f"{path} is truncated or damaged ({error})", "convert it again") from error
        if end > path.stat().st_size:
            raise UserError(
                f"{path} is truncated: its tensors end at byte {end}, the file has {path.stat().st_size}",
                "convert it again",
            )
        types: dict[str, tuple[int, int]] = {}
        n_vocab = embedding_bytes = 0
        for tensor in reader.tensors:
            if tensor.tensor_type not in FULL_PRECISION:
                raise UserError(
                    f"{path} is quantized: tensor {tensor.name} is {tensor.tensor_type.name}",
                    "this tool runs F32, F16 and BF16 files only; convert the original checkpoint",
                )
            count, size = types.get(tensor.tensor_type.name, (0, 0))
            types[tensor.tensor_type.name] = (count + 1, size + int(tensor.n_bytes))
            if tensor.name == "token_embd.weight":
                n_vocab, embedding_bytes = int(tensor.shape[1]), int(tensor.n_bytes)
        return cls(
            path=path,
            architecture=str(metadata.get(gguf_keys.ARCHITECTURE, "unknown")),
            metadata=metadata,
            tensor_types=types,
            data_bytes=sum(int(t.n_bytes) for t in reader.tensors),
            n_vocab=n_vocab,
            embedding_bytes=embedding_bytes,
        )

    def arch(self, key: str, default: Any = None) -> Any:
        """Value of an architecture key such as ``context_length``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)

    @property
    def n_ctx_train(self) -> int:
        """Positions the model was made for."""
        return int(self.arch(gguf_keys.CONTEXT_LENGTH, 0))

    @property
    def window(self) -> int | None:
        """The sliding window this file makes llama.cpp apply, in tokens."""
        if self.arch(gguf_keys.SLIDING_WINDOW_PATTERN) is None:
            return None
        return int(self.arch(gguf_keys.SLIDING_WINDOW))

    @property
    def dropped_window(self) -> int | None:
        """The sliding window that the model has and this file's layout cannot honour."""
        declared = self.metadata.get(gguf_keys.DROPPED_WINDOW)
        if declared is None and self.architecture == "phi3":
            declared = self.arch(gguf_keys.SLIDING_WINDOW)
        return int(declared) if declared and int(declared) < self.n_ctx_train else None

    @property
    def checkpoint_sha256(self) -> str | None:
        """Digest over the weights of the checkpoint the file was converted from, if this tool converted it."""
        return self.metadata.get(gguf_keys.CHECKPOINT_SHA256)

    @property
    def altered_values(self) -> int | None:
        """Values that the conversion rounded; None for a file of unknown origin."""
        value = self.metadata.get(gguf_keys.ALTERED_VALUES)
        return None if value is None else int(value)

    def digest(self) -> str:
        """Identity of the file: the manifest's digest, else one over header and tensor table size.

        Reading 26 GiB to name a file would cost more than many runs, so a foreign file is identified by its first
        MiB, its length and its modification time.
        """
        manifest = self.metadata.get(gguf_keys.MANIFEST_SHA256)
        if manifest is not None:
            return str(manifest)
        stat = self.path.stat()
        with self.path.open("rb") as file:
            head = file.read(HEADER_SAMPLE)
        return hashlib.sha256(head + f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
