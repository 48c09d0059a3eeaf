"""What a checkpoint's JSON files may say: types and sizes of the values that are read, checked before any is used.

Keys that are not named here are left alone; a layout refuses the settings that it does not support.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from orin_runner.errors import UserError
from orin_runner.schema import Schema

T = TypeVar("T")

DAMAGED = "download the checkpoint again"
"""What to do about a checkpoint that is not whole."""
OF_ONE_MODEL = "take config.json, weights and tokenizer from the same checkpoint"
"""About one whose files contradict each other."""
ELSEWHERE = "orin-run also takes GGUFs of llama.cpp's own converter, without this proof"
"""About one that has what no layout here can express."""

MAX_LAYERS = 512
"""LLAMA_MAX_LAYERS of llama.cpp (llama-hparams.h)."""

MAX_NAME = 255
"""Bytes of a file's name, on every file system."""

# Far above any model: a damaged number is refused before memory of that size is asked for.
Layers = Annotated[int, Field(gt=0, le=MAX_LAYERS)]
Heads = Annotated[int, Field(gt=0, le=1 << 10)]
HeadSize = Annotated[int, Field(gt=0, le=1 << 12, multiple_of=2)]
Width = Annotated[int, Field(gt=0, le=1 << 22)]
Rows = Annotated[int, Field(gt=0, le=1 << 24)]
Positions = Annotated[int, Field(gt=0, lt=1 << 31)]
Float32 = Annotated[float, Field(ge=2**-126, lt=2**128)]
"""A positive number that a GGUF's float32 holds."""
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
TokenIds = int | list[int]
"""As config.json has them: any number, where a negative one means none."""


def _file_name(name: str) -> str:
    if name in {"", ".", ".."} or "/" in name or "\0" in name or len(name.encode()) > MAX_NAME:
        raise ValueError("not the name of a file in this folder")
    return name


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Rope(_Form):
    """``rope_parameters``, or ``rope_scaling`` as older checkpoints have it."""

    rope_type: str | None = None
    type: str | None = None
    rope_theta: Float32 | None = None
    partial_rotary_factor: Float32 | None = None
    factor: Float32 | None = None
    low_freq_factor: Float32 | None = None
    high_freq_factor: Float32 | None = None
    original_max_position_embeddings: Positions | None = None
    short_factor: list[Float32] | None = None
    long_factor: list[Float32] | None = None
    attention_factor: Float32 | None = None


class Config(_Form):
    """``config.json``. Whether a key must be there is its layout's to say."""

    architectures: list[str] | None = None
    model_type: str | None = None
    num_hidden_layers: Layers | None = None
    num_attention_heads: Heads | None = None
    num_key_value_heads: Heads | None = None
    head_dim: HeadSize | None = None
    hidden_size: Width | None = None
    intermediate_size: Width | None = None
    ffn_dim: Width | None = None
    word_embed_proj_dim: Width | None = None
    vocab_size: Rows | None = None
    max_position_embeddings: Positions | None = None
    max_sequence_length: Positions | None = None
    original_max_position_embeddings: Positions | None = None
    sliding_window: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    use_sliding_window: bool | None = None
    max_window_layers: Annotated[int, Field(ge=0)] = 0
    layer_types: list[str] | None = None
    rms_norm_eps: Float32 | None = None
    rope_theta: Float32 | None = None
    rope_parameters: Rope | None = None
    rope_scaling: Rope | None = None
    partial_rotary_factor: Float32 | None = None
    tie_word_embeddings: bool | None = None
    attention_bias: bool | None = None
    mlp_bias: bool | None = None
    lm_head_bias: bool | None = None
    hidden_act: str | None = None
    bos_token_id: TokenIds | None = None
    eos_token_id: TokenIds | None = None
    pad_token_id: TokenIds | None = None
    transformers_weights: None = None  # transformers would read that file in place of model.safetensors

    @model_validator(mode="after")
    def _heads(self) -> Config:
        n_head, n_kv, width = self.num_attention_heads, self.num_key_value_heads, self.hidden_size
        if n_head and n_kv and n_head % n_kv:
            raise ValueError(f"{n_head} attention heads cannot share {n_kv} key and value heads")
        if n_head and width and not self.head_dim and width % (2 * n_head):
            raise ValueError(f"hidden_size {width} is not {n_head} heads of an even size")
        return self


class ShardIndex(_Form):
    """The index of shards, safetensors or ``.bin``: the shard, a file beside the index, by tensor name."""

    weight_map: Annotated[dict[str, Annotated[str, AfterValidator(_file_name)]], Field(min_length=1)]


class GenerationConfig(_Form):
    """``generation_config.json``: the tokens that end a text, and whether it was made of config.json by a program."""

    eos_token_id: TokenId | list[TokenId] | None = None
    from_model_config: bool | None = Field(None, alias="_from_model_config")


def check(form: type[T], value: Mapping[str, Any], path: Path) -> T:
    """``value``, the content of the file ``path``, as ``form``.

    Raises:
        UserError: it has not the form; the first key that is wrong is named.
    """
    try:
        return Schema(form).check(value)
    except ValueError as error:
        raise UserError(f"{path}: {error}", DAMAGED) from error
