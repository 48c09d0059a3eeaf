"""What the keys of a GGUF that this tool reads must be, before anything is worked out from them.

pydantic takes a tenth of a second to load: this module is imported where a file is opened, not where the command line
is declared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from orin_runner.errors import UserError
from orin_runner.model import gguf_keys
from orin_runner.schema import Schema

INT32_MAX = (1 << 31) - 1
"""llama.cpp's positions and token ids are int32."""
REDO = "convert it again"


def _largest(value: Any) -> Any:
    """Of a number that a file gives layer by layer, the largest: memory has to be enough for it."""
    return max(value) if isinstance(value, list) and value and all(type(each) is int for each in value) else value


Number = Annotated[int, Field(ge=0, le=INT32_MAX)]
Positive = Annotated[int, Field(ge=1, le=INT32_MAX)]
LargestPositive = Annotated[Positive, BeforeValidator(_largest)]
Text = Annotated[str, Field(min_length=1)]


class _Keys(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class Keys(_Keys):
    """Keys that do not depend on the architecture; None where the file does not have one (``gguf_keys``)."""

    architecture: Text = Field(validation_alias=gguf_keys.ARCHITECTURE)
    manifest_sha256: Text | None = Field(None, validation_alias=gguf_keys.MANIFEST_SHA256)
    checkpoint_sha256: Text | None = Field(None, validation_alias=gguf_keys.CHECKPOINT_SHA256)
    altered_values: Annotated[int, Field(ge=0)] | None = Field(None, validation_alias=gguf_keys.ALTERED_VALUES)
    dropped_window: Number | None = Field(None, validation_alias=gguf_keys.DROPPED_WINDOW)
    stop_tokens: list[Number] | None = Field(None, validation_alias=gguf_keys.STOP_TOKENS)
    huggingface_tokenizer: Text | None = Field(None, validation_alias=gguf_keys.HUGGINGFACE_TOKENIZER)
    chat_template: str | None = Field(None, validation_alias=gguf_keys.CHAT_TEMPLATE)
    tokens: list[str] | None = Field(None, validation_alias=gguf_keys.TOKENS)
    token_scores: list[float] | None = Field(None, validation_alias=gguf_keys.SCORES)
    token_types: list[int] | None = Field(None, validation_alias=gguf_keys.TYPES)
    bos: Number | None = Field(None, validation_alias=gguf_keys.SPECIAL_TOKENS["bos"])
    eos: Number | None = Field(None, validation_alias=gguf_keys.SPECIAL_TOKENS["eos"])
    unk: Number | None = Field(None, validation_alias=gguf_keys.SPECIAL_TOKENS["unk"])
    pad: Number | None = Field(None, validation_alias=gguf_keys.SPECIAL_TOKENS["pad"])
    end_of_turn: Number | None = Field(None, validation_alias=gguf_keys.END_OF_TURN)
    end_of_message: Number | None = Field(None, validation_alias=gguf_keys.END_OF_MESSAGE)
    vocabulary_kind: str | None = Field(None, validation_alias=gguf_keys.VOCABULARY_KIND)
    pre_tokenizer: str | None = Field(None, validation_alias=gguf_keys.PRE_TOKENIZER)
    split_count: Number | None = Field(None, validation_alias=gguf_keys.SPLIT_COUNT)

    @property
    def special_tokens(self) -> dict[str, int]:
        """Token ids by the keys of ``gguf_keys.SPECIAL_TOKENS``, those that the file has."""
        found = {name: getattr(self, name) for name in gguf_keys.SPECIAL_TOKENS}
        return {name: token for name, token in found.items() if token is not None}

    @model_validator(mode="after")
    def _within_the_vocabulary(self) -> Keys:
        if self.tokens is None:
            return self
        n = len(self.tokens)
        # llama.cpp reads as many of each as there are tokens, whatever is there.
        for key, values in ((gguf_keys.SCORES, self.token_scores), (gguf_keys.TYPES, self.token_types)):
            if values is not None and len(values) != n:
                raise ValueError(f"{key} has {len(values)} entries for {n} tokens")
        named = {gguf_keys.SPECIAL_TOKENS[name]: [token] for name, token in self.special_tokens.items()}
        for key, token in (
            (gguf_keys.END_OF_TURN, self.end_of_turn),
            (gguf_keys.END_OF_MESSAGE, self.end_of_message),
        ):
            named[key] = [] if token is None else [token]
        for key, ids in {**named, gguf_keys.STOP_TOKENS: self.stop_tokens or []}.items():
            if any(token >= n for token in ids):
                raise ValueError(f"{key} names the token {max(ids)}, and there are {n} tokens")
        return self


class ArchitectureKeys(_Keys):
    """Keys after the architecture's name: the sizes of the model. Tokens, values or layers each."""

    context_length: Positive
    block_count: Positive
    embedding_length: Positive
    feed_forward_length: LargestPositive
    head_count: LargestPositive = Field(validation_alias="attention.head_count")
    head_count_kv: LargestPositive | None = Field(None, validation_alias="attention.head_count_kv")
    key_length: Positive | None = Field(None, validation_alias="attention.key_length")
    sliding_window: Number | None = Field(None, validation_alias=gguf_keys.SLIDING_WINDOW)
    window_pattern: list[bool | int] | int | None = Field(None, validation_alias=gguf_keys.SLIDING_WINDOW_PATTERN)
    original_context: Positive | None = Field(None, validation_alias=gguf_keys.ORIGINAL_CONTEXT)

    @property
    def head_size(self) -> int:
        """Values of one head's key."""
        return self.key_length or self.embedding_length // self.head_count


def read_keys(path: Path, metadata: dict[str, Any]) -> tuple[Keys, ArchitectureKeys]:
    """The keys of a file that this tool reads.

    Args:
        path: the file, for the message.
        metadata: all of its keys.

    Raises:
        UserError: one is missing, of another type, or says what cannot be; it is named.
    """
    try:
        keys = Schema(Keys).check(metadata)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}", REDO) from error
    prefix = f"{keys.architecture}."
    own = {name.removeprefix(prefix): value for name, value in metadata.items() if name.startswith(prefix)}
    try:
        return keys, Schema(ArchitectureKeys).check(own)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error} among the keys of {keys.architecture!r}", REDO) from error
