"""A random checkpoint of every family that can be converted, tiny, with sharp logits, and tokenizers for them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tokenizers
import torch
from tokenizers import Regex, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.support.checkpoints import TOKENIZER_FILES
from tests.support.paths import TINY

CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = CL100K.replace("{1,3}", "")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEKKEN = O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "").replace("{1,3}", "")
"""Patterns as the published tokenizers have them."""

TEXT = (
    "The quick brown fox jumps over 13 lazy dogs; it's 1,234,567 o'clock. They'll say: which of these is true?",
    "Der schnelle Fuchs überquert die Straße. Широкая дорога. 漢字とかな。 हिन्दी में 123\n\n\tdef f(x):\n    return x",
)
N_TOKENS = 500


def byte_level(name: str) -> tokenizers.Tokenizer:
    """A small tokenizer whose definition is that of llama.cpp's pre-tokenizer ``name``."""
    tokenizer = tokenizers.Tokenizer(BPE(ignore_merges=name in {"llama-bpe", "tekken"}))
    split = {"llama-bpe": CL100K, "dbrx": CL100K, "qwen2": QWEN2, "gpt-4o": O200K, "tekken": TEKKEN}.get(name)
    steps: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split is not None:
        steps.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    if name == "smollm":
        steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.normalizer = normalizers.NFC() if name == "qwen2" else None
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=N_TOKENS,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT * 4, trainer)
    if name == "llama-bpe":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
        )
    return tokenizer


def save_byte_level(directory: Path, name: str) -> None:
    """Put ``byte_level(name)`` into a checkpoint folder; of OPT as its vocabulary and merges alone."""
    tokenizer = byte_level(name)
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", **special, "chat_template": template}
    if name == "gpt-2":
        tokenizer.model.save(str(directory))
        config = {"tokenizer_class": "GPT2Tokenizer", **special, "unk_token": "<|endoftext|>"}
    else:
        tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


@dataclass(frozen=True)
class Family:
    """A random checkpoint and what is asked of it.

    Attributes:
        model, config: transformers' classes.
        settings: of the config, beside ``SIZES``.
        pre: llama.cpp's name of the pre-tokenizer; ``default`` takes the tiny Phi-3's SentencePiece tokenizer.
        architecture: llama.cpp's graph that it becomes.
        runs: prefix lengths that are asked together, a run each.
        dtype: of the weights.
        sharpness: factor on the last norm; larger spreads the logits.
        old_keys: keys of config.json as checkpoints older than transformers 5 have them.
    """

    model: type[PreTrainedModel]
    config: type[PreTrainedConfig]
    architecture: str
    pre: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[tuple[int, ...], ...] = ((8, 63, 200),)
    dtype: torch.dtype = torch.bfloat16
    sharpness: float = 6.0
    old_keys: Callable[[dict[str, Any]], None] = lambda _: None

    def build(self, directory: Path) -> Path:
        """The checkpoint, with random norms and biases too, in ``directory``."""
        sentencepiece = self.pre == "default"
        sizes = {**SIZES, "vocab_size": 3072 if sentencepiece else N_TOKENS + 12}
        torch.manual_seed(0)
        model = self.model(self.config(**{**sizes, **self.settings}))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() == 1:
                    parameter.copy_(torch.randn_like(parameter) * 0.2 + (0.0 if name.endswith("bias") else 1.0))
                if name.endswith(("model.norm.weight", "decoder.final_layer_norm.weight")):
                    parameter.mul_(self.sharpness)
                parameter.data = parameter.data.to(self.dtype)
        model.config.dtype = self.dtype
        model.generation_config = GenerationConfig(eos_token_id=[2], bos_token_id=0, pad_token_id=0)
        model.save_pretrained(directory)
        if sentencepiece:
            for file in TOKENIZER_FILES:
                shutil.copy(TINY / file, directory / file)
        else:
            save_byte_level(directory, self.pre)
        path = directory / "config.json"
        written = json.loads(path.read_text(encoding="utf-8"))
        self.old_keys(written)
        path.write_text(json.dumps(written), encoding="utf-8")
        return directory


WINDOW = 64
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.1,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": WINDOW,
    "short_factor": [1.0 + 0.05 * i for i in range(8)],
    "long_factor": [1.0 + 0.9 * i for i in range(8)],
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
BOTH_SIDES = ((8, 40, WINDOW), (9, WINDOW + 1, 300))


def _before_5(config: dict[str, Any]) -> None:
    """Rope settings as transformers 4 wrote them: the base and a partial rotary factor beside ``rope_scaling``."""
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    if "original_max_position_embeddings" in rope and rope["rope_type"] == "longrope":
        config["original_max_position_embeddings"] = rope.pop("original_max_position_embeddings")
    config["rope_scaling"] = {"type": rope.pop("rope_type"), **rope}


FAMILIES: dict[str, Family] = {
    "LLaMA-1": Family(LlamaForCausalLM, LlamaConfig, "llama", "default", {"num_key_value_heads": 4}),
    "Llama 3.1": Family(
        LlamaForCausalLM, LlamaConfig, "llama", "llama-bpe", {"rope_parameters": LLAMA3}, ((8, 127, 129, 400),)
    ),
    "SmolLM2": Family(
        LlamaForCausalLM,
        LlamaConfig,
        "llama",
        "smollm",
        {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 1, "tie_word_embeddings": True},
    ),
    "Mistral 0.1": Family(
        MistralForCausalLM,
        MistralConfig,
        "granite_swa",
        "default",
        {"sliding_window": WINDOW, "num_hidden_layers": 3},
        ((8, WINDOW, WINDOW + 1, 300),),
    ),
    "Mistral Nemo": Family(
        MistralForCausalLM, MistralConfig, "llama", "tekken", {"sliding_window": None, "head_dim": 32}
    ),
    "Qwen2.5": Family(Qwen2ForCausalLM, Qwen2Config, "qwen2", "qwen2"),
    "Qwen2.5 small": Family(Qwen2ForCausalLM, Qwen2Config, "qwen2", "qwen2", {"tie_word_embeddings": True}),
    "Qwen3": Family(Qwen3ForCausalLM, Qwen3Config, "qwen3", "qwen2", {"head_dim": 32}),
    "Phi-3 4k": Family(
        Phi3ForCausalLM, Phi3Config, "granite_swa", "default", {"sliding_window": WINDOW}, ((8, WINDOW, 300),)
    ),
    "Phi-4": Family(Phi3ForCausalLM, Phi3Config, "phi3", "dbrx", {"sliding_window": None}),
    "Phi-3.5-mini": Family(
        Phi3ForCausalLM,
        Phi3Config,
        "phi3",
        "default",
        {"rope_parameters": LONGROPE, "original_max_position_embeddings": WINDOW, "sliding_window": 4096},
        BOTH_SIDES,
        old_keys=_before_5,
    ),
    "Phi-4-mini": Family(
        Phi3ForCausalLM,
        Phi3Config,
        "phi3",
        "gpt-4o",
        {
            "rope_parameters": {
                **LONGROPE,
                "partial_rotary_factor": 0.75,
                "short_factor": LONGROPE["short_factor"][:6],
                "long_factor": LONGROPE["long_factor"][:6],
            },
            "original_max_position_embeddings": WINDOW,
            "sliding_window": None,
            "tie_word_embeddings": True,
        },
        BOTH_SIDES,
    ),
    "OPT": Family(
        OPTForCausalLM,
        OPTConfig,
        "gpt2",
        "gpt-2",
        {"ffn_dim": 96, "word_embed_proj_dim": 64, "init_std": 0.1, "tie_word_embeddings": True, "dropout": 0.0},
        dtype=torch.float16,
        sharpness=3.0,
    ),
}
