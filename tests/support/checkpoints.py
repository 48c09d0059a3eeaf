"""Random Hugging Face checkpoints, made with transformers' own model classes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM, PreTrainedModel

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")


def phi3(
    directory: Path,
    tokenizer: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    window: int | None = 64,
    layers: int = 2,
    hidden: int = 128,
    exact_in_f16: bool = False,
    sharpness: float = 1.0,
    shard_size: str | None = None,
    vocab_size: int = 3072,
    positions: int = 4096,
    seed: int = 0,
) -> Path:
    """A Phi-3 with random weights of ``dtype``, using the tokenizer files of ``tokenizer``.

    Args:
        exact_in_f16: zero the weights that float16 cannot hold.
        sharpness: factor on the output head; larger spreads the logits.
        shard_size: split into shards of at most this size.
    """
    config = Phi3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=positions,
        original_max_position_embeddings=positions,
        sliding_window=window,
        rms_norm_eps=1e-5,
        rope_theta=10000.0,
        initializer_range=0.08,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=3000,
        pad_token_id=3000,
    )
    torch.manual_seed(seed)
    model = Phi3ForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight *= sharpness
    return _save(model, directory, tokenizer, dtype, exact_in_f16=exact_in_f16, shard_size=shard_size)


def llama(
    directory: Path,
    tokenizer: Path,
    *,
    dtype: torch.dtype = torch.float16,
    kv_heads: int = 4,
    tied: bool = False,
    shard_size: str | None = None,
    sharpness: float = 1.0,
    vocab_size: int = 3072,
    positions: int = 2048,
    seed: int = 0,
) -> Path:
    """A Llama with random weights of ``dtype``; as LLaMA-1 where ``kv_heads`` equals its four heads."""
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        max_position_embeddings=positions,
        initializer_range=0.08,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=2,
    )
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight *= sharpness
    return _save(model, directory, tokenizer, dtype, exact_in_f16=False, shard_size=shard_size)


def _begin_with_bos(directory: Path) -> None:
    """Make the tokenizer a Llama's: BOS before plain text (the post-processor's doing), no chat template."""
    path = directory / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    text = [{"Sequence": {"id": name, "type_id": i}} for i, name in enumerate("AB")]
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [bos, text[0]],
        "pair": [bos, *text],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    path.write_text(json.dumps(tokenizer), encoding="utf-8")
    path = directory / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["add_bos_token"] = True
    config.pop("chat_template", None)
    path.write_text(json.dumps(config), encoding="utf-8")


def _save(
    model: PreTrainedModel,
    directory: Path,
    tokenizer: Path,
    dtype: torch.dtype,
    *,
    exact_in_f16: bool,
    shard_size: str | None,
) -> Path:
    with torch.no_grad():
        for parameter in model.parameters():
            values = parameter.data.to(dtype)
            if exact_in_f16:
                survives = values.to(torch.float16).to(dtype) == values
                values = torch.where(survives, values, torch.zeros_like(values))
            parameter.data = values
    model.config.dtype = dtype
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=[3000, 3001, 3007], pad_token_id=3000)
    model.save_pretrained(directory, **({"max_shard_size": shard_size} if shard_size else {}))
    for name in TOKENIZER_FILES:
        if (tokenizer / name).exists():
            shutil.copy(tokenizer / name, directory / name)
    if model.config.model_type == "llama":
        _begin_with_bos(directory)
    return directory


def small_gguf(folder: Path, tokenizer: Path, outtype: str = "auto") -> Path:
    """A Phi-3 of one layer as GGUF, which is fast everywhere, using the tokenizer files of ``tokenizer``."""
    out = folder / "small.gguf"
    convert(Checkpoint.open(phi3(folder / "m", tokenizer, hidden=64, layers=1)), out, Options(outtype))
    return out
