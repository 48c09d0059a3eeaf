"""What the runner reads from a GGUF before llama.cpp loads it: sizes, window, types, digests. No tensor data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_header import Header, read_header
from orin_runner.model.stop_tokens import stop_tokens

if TYPE_CHECKING:
    from orin_runner.model.gguf_schema import ArchitectureKeys, Keys

EMBEDDING = "token_embd.weight"
HEAD = "output.weight"
SHORT_FACTORS = "rope_factors_short.weight"
INT32_MAX = (1 << 31) - 1
HEADER_SAMPLE = 1 << 20
EXACT = frozenset({"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"})
"""The ggml types that hold each number by itself; of all others the weights are quantized."""
WITH_WINDOW = frozenset(
    {
        *("afmoe", "cohere2", "cohere2moe", "deepseek4", "dflash", "dots3note", "exaone-moe", "exaone4", "gemma2"),
        *("gemma3", "gemma3n", "gemma4", "gemma4-assistant", "gpt-oss", "granite_swa", "laguna", "lfm2", "lfm2moe"),
        *("llama4", "maple", "mellum", "mimo2", "muse-glimmer", "olmo2", "plamo3", "smallthinker", "spark2_5"),
        "step35",
    }
)
"""The architectures whose sliding window llama.cpp applies: the files of ``src/models`` of llama-cpp-python 0.3.36
that set ``swa_type``. All others have the whole context, whatever their keys say (``phi3``: "Phi SWA is currently
disabled").
"""


@dataclass(frozen=True, slots=True)
class GGUFFile:
    """A GGUF's metadata and tensor table.

    Attributes:
        path: the file.
        header: all that stands before the data.
        metadata: every key's value; arrays as lists.
        keys: those that this tool reads, checked.
        sizes: those of them that stand after the architecture's name.
        tensor_types: number of tensors and bytes per ggml type name.
        data_bytes: bytes of tensor data.
        n_vocab: rows of the token embedding.
        embedding_bytes: bytes of the token embedding, which llama.cpp keeps on the host.
    """

    path: Path
    header: Header
    metadata: dict[str, Any]
    keys: Keys
    sizes: ArchitectureKeys
    tensor_types: dict[str, tuple[int, int]]
    data_bytes: int
    n_vocab: int
    embedding_bytes: int

    @classmethod
    def open(cls, path: Path) -> GGUFFile:
        """Read the header.

        Raises:
            UserError: missing, not a GGUF, truncated or damaged, one file of several, or a key says what cannot be.
        """
        from orin_runner.model.gguf_schema import read_keys  # noqa: PLC0415  (brings pydantic along)

        header = read_header(path)
        keys, sizes = read_keys(path, header.metadata)
        if (keys.split_count or 1) > 1:
            raise UserError(
                f"{path} is one of {keys.split_count} files that the model is divided among",
                "llama-gguf-split --merge makes one of them",
            )
        types: dict[str, tuple[int, int]] = {}
        for tensor in header.tensors:
            count, size = types.get(tensor.type, (0, 0))
            types[tensor.type] = (count + 1, size + tensor.n_bytes)
        embedding = next((tensor for tensor in header.tensors if tensor.name == EMBEDDING), None)
        if embedding is None or len(embedding.shape) != 2:
            raise UserError(f"{path} has no token embedding ({EMBEDDING}, a matrix)", "convert it again")
        n_vocab = embedding.shape[1]
        if keys.tokens is not None and len(keys.tokens) != n_vocab:
            raise UserError(f"{path} has {len(keys.tokens)} tokens and embeds {n_vocab}", "convert it again")
        return cls(
            path=path,
            header=header,
            metadata=header.metadata,
            keys=keys,
            sizes=sizes,
            tensor_types=types,
            data_bytes=sum(tensor.n_bytes for tensor in header.tensors),
            n_vocab=n_vocab,
            embedding_bytes=embedding.n_bytes,
        )

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the graph."""
        return self.keys.architecture

    @property
    def n_ctx_train(self) -> int:
        """Positions the model was made for."""
        return self.sizes.context_length

    @property
    def window(self) -> int | None:
        """The sliding window this file makes llama.cpp apply, in tokens."""
        return self.sizes.sliding_window or None if self.architecture in WITH_WINDOW else None

    @property
    def dropped_window(self) -> int | None:
        """The sliding window that the model has and this file's layout cannot honour."""
        declared = self.keys.dropped_window
        if declared is None and self.architecture not in WITH_WINDOW:
            declared = self.sizes.sliding_window
        return declared if declared and declared < self.n_ctx_train else None

    @property
    def quantized(self) -> tuple[str, ...]:
        """Names of the quantized types among its tensors', the one with most bytes first; empty at full precision."""
        return tuple(
            name for name, _ in sorted(self.tensor_types.items(), key=lambda item: -item[1][1]) if name not in EXACT
        )

    def need_full_precision(self, hint: str) -> None:
        """Refuse a quantized file, whose answers are not the checkpoint's.

        Raises:
            UserError: it is one; ``hint`` says how it is run nevertheless.
        """
        if self.quantized:
            n = sum(self.tensor_types[name][0] for name in self.quantized)
            types = ", ".join(self.quantized)
            raise UserError(
                f"{self.path} is quantized: {n} of its {len(self.header.tensors)} tensors are {types}", hint
            )

    @property
    def stop_tokens(self) -> dict[int, str]:
        """By token that ends a text, the key or the text of the token that says so."""
        return stop_tokens(self.keys)

    @property
    def tied(self) -> bool:
        """Whether the output head is the token embedding, which llama.cpp then loads once more for a GPU."""
        return all(tensor.name != HEAD for tensor in self.header.tensors)

    @property
    def original_context(self) -> int | None:
        """Of long-rope, the longest sequence in tokens that the short factors are for; None without long-rope."""
        has_both = any(tensor.name == SHORT_FACTORS for tensor in self.header.tensors)
        return self.sizes.original_context if has_both else None

    def rope_factors(self, longest: int) -> str | None:
        """``"short"`` or ``"long"``: the long-rope factors for a run whose longest sequence has ``longest`` tokens.

        transformers decides so at every forward pass, by the longest sequence in it
        (``modeling_rope_utils.longrope_frequency_update``). A run is one such batch.
        """
        context = self.original_context
        return None if context is None else "long" if longest > context else "short"

    def rope_overrides(self, longest: int) -> dict[str, int]:
        """Keys to load the file with, so that llama.cpp takes the factors of ``rope_factors``.

        By itself it compares the original context with the number of KV cells (``llama_model::get_rope_factors``),
        which are many sequences' here.
        """
        factors = self.rope_factors(longest)
        if factors is None:
            return {}
        return {f"{self.architecture}.{gguf_keys.ORIGINAL_CONTEXT}": 1 if factors == "long" else INT32_MAX}

    @property
    def checkpoint_sha256(self) -> str | None:
        """Digest over the weights of the checkpoint the file was converted from, if this tool converted it.

        A quantized file has it where it was made from such a file: llama.cpp's quantization keeps all keys.
        """
        return self.keys.checkpoint_sha256

    @property
    def altered_values(self) -> int | None:
        """Values that the conversion rounded; None for a file of unknown origin, and for a quantized one."""
        return None if self.quantized else self.keys.altered_values

    def digest(self) -> str:
        """Identity of the file: its manifest's digest; ``digest_as_it_lies`` of a foreign file and of a quantized one.

        A quantized file's manifest is that of another file.
        """
        if self.keys.manifest_sha256 is not None and not self.quantized:
            return self.keys.manifest_sha256
        return self.digest_as_it_lies()

    def digest_as_it_lies(self) -> str:
        """Identity of a file whose data nothing proves: over its first MiB, its length and its modification time.

        Reading 26 GiB to name a file would cost more than many runs.
        """
        stat = self.path.stat()
        with self.path.open("rb") as file:
            head = file.read(HEADER_SAMPLE)
        return hashlib.sha256(head + f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
