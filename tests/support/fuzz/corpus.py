"""Sound inputs, so small that a case takes a fraction of a second: checkpoints, GGUFs, data, runs, a prompt cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tests.support.bins import pickled
from tests.support.choice_rows import GOLDEN, jsonl, write
from tests.support.published import FILES

PIECES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = [chr(c) for c in range(33, 127)]
SPECIAL = ["<unk>", "<s>", "</s>"]
ADDED = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"]
MERGED = ["▁t", "▁a", "he", "▁the", "in", "▁q", "on", "er", "▁is"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
HIDDEN, FFN, HEADS, LAYERS, POSITIONS = 32, 48, 2, 1, 4096
TASKS = {
    task: files | dict([GOLDEN[task].train] if task in GOLDEN and GOLDEN[task].shot else [])
    for task, files in FILES.items()
}
"""Files by task, with those of the worked examples."""
RUN_TASKS = ("arc_easy", "truthfulqa_mc2", "gsm8k")
BOOLQ = {"title": "Ice", "answer": True, "passage": "Ice is cold, and it is the colder the longer it lies. " * 12}
"""A question whose prompt begins with more tokens than a kept state has at least."""
N_VOCAB = len(SPECIAL) + len(PIECES) + 1 + len(LETTERS) + len(MERGED) + len(ADDED)


def tokenizer_json() -> dict[str, Any]:
    """A BPE with byte fallback, as Llama 2's."""
    tokens = [*SPECIAL, *PIECES, "▁", *LETTERS, *MERGED]
    added = [(i, token) for i, token in enumerate(tokens[:3])]
    added += [(len(tokens) + i, token) for i, token in enumerate(ADDED)]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    pairs = [("▁", "t"), ("▁", "a"), ("h", "e"), ("▁t", "he"), ("i", "n"), ("▁", "q"), ("o", "n"), ("e", "r")]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": token, "special": True, **flags} for i, token in added],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [list(pair) for pair in [*pairs, ("▁", "is")] if "".join(pair) in tokens and pair[1] in tokens],
        },
    }


def config(architecture: str) -> dict[str, Any]:
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "model_type": architecture.lower(),
        "hidden_size": HIDDEN,
        "intermediate_size": FFN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": N_VOCAB,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float16",
        **({"sliding_window": 256, "original_max_position_embeddings": POSITIONS} if architecture == "Phi3" else {}),
    }


def tensors(architecture: str, dtype: type) -> dict[str, Any]:
    """Random weights by Hugging Face's names."""
    random = np.random.default_rng(7)
    block = "model.layers.0."
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (N_VOCAB, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (N_VOCAB, HIDDEN),
        f"{block}input_layernorm.weight": (HIDDEN,),
        f"{block}post_attention_layernorm.weight": (HIDDEN,),
        f"{block}self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        f"{block}mlp.down_proj.weight": (HIDDEN, FFN),
    }
    if architecture == "Phi3":
        shapes[f"{block}self_attn.qkv_proj.weight"] = (3 * HIDDEN, HIDDEN)
        shapes[f"{block}mlp.gate_up_proj.weight"] = (2 * FFN, HIDDEN)
    else:
        shapes |= {f"{block}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkv"}
        shapes |= {f"{block}mlp.{name}_proj.weight": (FFN, HIDDEN) for name in ("gate", "up")}
    return {name: random.normal(0.0, 0.2, shape).astype(dtype) for name, shape in shapes.items()}


def checkpoint(folder: Path, architecture: str = "Llama", dtype: type = np.float16, shards: int = 1) -> Path:
    """A checkpoint folder."""
    folder.mkdir(parents=True)
    dump(folder / "config.json", config(architecture))
    dump(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, N_VOCAB - 1]})
    dump(folder / "tokenizer.json", tokenizer_json())
    dump(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "model_max_length": POSITIONS,
            "clean_up_tokenization_spaces": False,
            "chat_template": TEMPLATE,
        },
    )
    weights = tensors(architecture, dtype)
    if shards == 1:
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder
    names = [f"model-{i + 1:05}-of-{shards:05}.safetensors" for i in range(shards)]
    where = {name: names[i % shards] for i, name in enumerate(weights)}
    for file in names:
        part = {name: values for name, values in weights.items() if where[name] == file}
        save_file(part, folder / file, {"format": "pt"})
    dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": 1}, "weight_map": where})
    return folder


def dump(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")


def build(base: Path, run: Callable[[list[str]], None]) -> None:
    """Everything below ``base``.

    Args:
        run: a command line, which must end with status 0.
    """
    checkpoint(base / "llama")
    checkpoint(base / "sharded", shards=2)
    checkpoint(base / "phi3", "Phi3", np.float32)
    pickled(checkpoint(base / "bin"))
    pickled(checkpoint(base / "bins"), 2)
    for name in ("llama", "phi3", "bin"):
        run(["convert", str(base / name), str(base / f"{name}.gguf")])
    for task in (*TASKS, *RUN_TASKS):  # some read the same file, and those that are run have the last word
        write(base / "data", TASKS[task])
    write(base / "sharing", {"boolq/dev.jsonl": jsonl(*({**BOOLQ, "question": f"is it {i}"} for i in range(6)))})
    common = ["--model", str(base / "llama.gguf"), "--data", str(base / "data"), "--max-new-tokens", "4"]
    run(["orin-run", "eval", *RUN_TASKS, *common, "--out", str(base / "run")])
    run(
        [
            "orin-run",
            "eval",
            "boolq",
            *common[:2],
            "--data",
            str(base / "sharing"),
            "--out",
            str(base / "cached"),
            "--prompt-cache",
            str(base / "cache"),
        ]
    )
    if not list((base / "cache").iterdir()):
        raise RuntimeError("no state was kept")
    shutil.copytree(base / "run", base / "other")
    run(["orin-run", "diff", str(base / "run"), str(base / "other"), "--json"])
    run(["orin-run", "plan", "boolq", *common[:4], "--chat", "--device", "orin-32gb"])
    header = json.loads((base / "other" / "run.json").read_text(encoding="utf-8"))
    dump(base / "other" / "run.json", {**header, "engine": "transformers"})
    half = shutil.copytree(base / "run", base / "half")
    lines = (half / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (half / "predictions.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    for name in ("report.json", "report.html"):
        (half / name).unlink()
