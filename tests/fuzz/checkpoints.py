"""Malformed checkpoints, and odd places to convert to."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from gguf import GGUFReader
from safetensors import deserialize
from safetensors.numpy import load_file, save_file

from tests.support.fuzz import corpus, kinds, texts
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged, other_json
from tests.support.fuzz.tokenizer_parts import other_tokenizer

WIDTHS = {"F16": np.uint16, "BF16": np.uint16, "F32": np.uint32}
SETTINGS = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
Weights = Callable[[Path], Iterator[tuple[str, np.ndarray[Any, Any]]]]
LEFT_OUT = ("rotary_emb.inv_freq", "decoder.version")
ADDED = ("rope_freqs.weight", "attn_sinks.weight")
"""Tensors that no checkpoint has: constants of llama.cpp's graphs."""
FURTHER = (
    "special_tokens_map.json added_tokens.json chat_template.jinja chat_template.json tokenizer.model vocab.json "
    "merges.txt preprocessor_config.json processor_config.json adapter_config.json model.safetensors.index.json "
    "modeling_x.py tokenization_x.py additional_chat_templates/x.jinja pytorch_model.bin"
).split()


def copied(place: Place, random: Random, names: Sequence[str] = ("llama", "llama", "sharded", "phi3")) -> Path:
    """One of the checkpoints, to be damaged."""
    return Path(shutil.copytree(place.base / random.choice(names), place.inputs / "checkpoint"))


def stored(checkpoint: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The values in its safetensors as that library reads them, in float32."""
    whole = checkpoint / "model.safetensors"
    for path in [whole] if whole.exists() else sorted(checkpoint.glob("model-*-of-*.safetensors")):
        for name, entry in deserialize(path.read_bytes()):
            yield name, _as_float32(np.frombuffer(entry["data"], WIDTHS[entry["dtype"]]), entry["dtype"])


def conversion(
    place: Place,
    checkpoint: Path,
    *options: str,
    out: Path | None = None,
    refuse: bool = False,
    weights: Weights = stored,
) -> Case:
    """``weights``: what reads the checkpoint's values, to compare with."""
    target = out or place.out / "model.gguf"
    made = (target, target.with_name(target.name + ".manifest.json"))
    return Case(
        ["convert", *options, str(checkpoint), str(target)],
        writes=made,
        right=lambda outcome: None if outcome.status else _differs(checkpoint, target, weights),
        must_refuse=refuse,
    )


def _differs(checkpoint: Path, gguf: Path, weights: Weights) -> str | None:
    """How the values of a conversion differ from what another library reads, whatever their order."""
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    twin = "lm_head.weight" if config.get("tie_word_embeddings") else ""
    theirs = [values for name, values in weights(checkpoint) if name != twin and not name.endswith(LEFT_OUT)]
    ours = []
    for tensor in GGUFReader(gguf).tensors:
        if not tensor.name.endswith(ADDED):
            kind = tensor.tensor_type.name
            ours.append(_as_float32(np.ascontiguousarray(tensor.data).reshape(-1).view(WIDTHS[kind]), kind))
    left, right = (
        np.sort(np.concatenate(part)[np.concatenate(part).view(np.uint32) % (1 << 31) != 0].view(np.uint32))
        for part in (theirs, ours)
    )
    return None if len(left) == len(right) and (left == right).all() else "the values are not the checkpoint's"


def _as_float32(bits: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    if kind == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    return bits.view(np.float16).astype(np.float32) if kind == "F16" else bits.view(np.float32)


def weight_bytes(random: Random, place: Place) -> Case:
    """Bytes of a safetensors file, most often of its header."""
    folder = copied(place, random)
    path = random.choice(sorted(folder.glob("*.safetensors")))
    content, other = path.read_bytes(), (place.base / "phi3" / "model.safetensors").read_bytes()
    cut = 8 + int.from_bytes(content[:8], "little")
    if random.random() < 0.6:
        path.write_bytes(content[:8] + damaged(content[8:cut], other[8:cut], random) + content[cut:])
    else:
        path.write_bytes(damaged(content, other, random))
    return conversion(place, folder)


def weight_header(random: Random, place: Place) -> Case:
    """Values of a safetensors header, whose length is that of its new text."""
    folder = copied(place, random)
    path = random.choice(sorted(folder.glob("*.safetensors")))
    content = path.read_bytes()
    cut = 8 + int.from_bytes(content[:8], "little")
    header = other_json(content[8:cut], random)
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[cut:])
    return conversion(place, folder)


def weight_tensors(random: Random, place: Place) -> Case:
    """A sound file of other tensors: names, shapes, types, values, more or fewer of them."""
    folder = copied(place, random, ("llama", "phi3"))
    path = folder / "model.safetensors"
    weights = load_file(path)
    name = random.choice(sorted(weights))
    value = weights[name]
    kind = random.randrange(9)
    if kind == 0:
        weights[name] = value.astype(random.choice((np.float64, np.int8, np.int64, np.bool_, np.uint16)))
    elif kind == 1:
        weights[
            random.choice((name + " ", name.upper(), texts.text(random).replace("\ud83d", ""), name.replace("0", "1")))
            .encode("utf-8", "ignore")
            .decode()
            or "x"
        ] = weights.pop(name)
    elif kind == 2:
        weights[name] = np.ascontiguousarray(random.choice((value.T, value[:-1], value[..., None], value.reshape(-1))))
    elif kind == 3:
        weights[name] = np.concatenate([value, value])
    elif kind == 4:
        del weights[name]
    elif kind == 5:
        extra = random.choice(
            (
                "model.layers.1.mlp.up_proj.weight",
                "model.rotary_emb.inv_freq",
                "score.weight",
                name + "_scale",
                "model.layers.0.self_attn.q_proj.bias",
                "lm_head.bias",
                "model.layers.0.self_attn.rotary_emb.inv_freq",
            )
        )
        weights[extra] = np.ones(random.choice((1, 8, 16, 32)), np.float32)
    elif kind == 6:
        flat = value.reshape(-1)
        flat[random.randrange(flat.size)] = random.choice((np.nan, np.inf, -np.inf, -0.0, 65504, 6e-8, 1e-5))
    elif kind == 7:
        weights[name] = value.astype(random.choice((np.float32, np.float16))) * value.dtype.type(
            random.choice((1, 1.0001, 1e-6))
        )
    else:
        weights[name] = np.zeros(random.choice(((0,), (0, 32), (), (1,) * 8)), value.dtype)
    save_file(weights, path, random.choice((None, {"format": "pt"}, {"format": "np", "x": "y" * 5000})))
    return conversion(place, folder)


def settings_json(random: Random, place: Place) -> Case:
    """Any value of a checkpoint's JSON files."""
    folder = copied(place, random)
    names = [name for name in (*SETTINGS, "config.json", "model.safetensors.index.json") if (folder / name).exists()]
    path = folder / random.choice(names)
    path.write_bytes(other_json(path.read_bytes(), random))
    return conversion(place, folder)


def settings_bytes(random: Random, place: Place) -> Case:
    """Bytes of these files."""
    folder = copied(place, random)
    path = folder / random.choice([name for name in SETTINGS if (folder / name).exists()])
    other = folder / random.choice(SETTINGS)
    path.write_bytes(damaged(path.read_bytes(), other.read_bytes(), random))
    return conversion(place, folder)


def settings_known(random: Random, place: Place) -> Case:
    """Keys of config.json that real checkpoints have and these have not."""
    folder = copied(place, random)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    keys = (
        "head_dim rope_scaling rope_parameters layer_types tie_word_embeddings mlp_bias attention_bias "
        "model_type architectures sliding_window use_sliding_window max_window_layers partial_rotary_factor "
        "auto_map quantization_config pad_token_id transformers_weights original_max_position_embeddings "
        "vocab_size num_hidden_layers num_key_value_heads hidden_act residual_multiplier logit_scale "
        "num_local_experts text_config torch_dtype dtype pretraining_tp attn_logit_softcapping"
    ).split()
    odd = (
        {"rope_type": "linear", "factor": 2.0}, {"rope_type": "yarn"}, {"type": "longrope", "short_factor": [1.0] * 8,
        "long_factor": [2.0] * 8}, {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 1,
        "original_max_position_embeddings": 8192}, {"rope_type": "default", "rope_theta": 0}, ["full_attention"],
        ["sliding_attention"], {"AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]},
        {"quant_method": "gptq"},
        "LlamaForCausalLM", ["GPT2LMHeadModel"], ["Phi3ForCausalLM"], ["MistralForCausalLM"], ["Qwen2ForCausalLM"],
        ["Qwen3ForCausalLM"], ["OPTForCausalLM"], "gelu", 0, 1, 2, 16, 64, 1000, -1, 0.5, True, False, None, [], {},
    )  # fmt: skip
    for _ in range(random.choice((1, 1, 2, 3))):
        config[random.choice(keys)] = random.choice(odd)
    corpus.dump(path, config)
    return conversion(place, folder)


def file_kind(random: Random, place: Place) -> Case:
    """Something else in the place of a file."""
    folder = copied(place, random)
    kinds.put(random.choice(sorted(folder.iterdir())), random)
    return conversion(place, folder)


def further_file(random: Random, place: Place) -> Case:
    """A file that checkpoints may have as well, damaged or of another kind."""
    folder = copied(place, random)
    path = folder / random.choice(FURTHER)
    path.parent.mkdir(exist_ok=True)
    kind = random.randrange(4)
    if kind == 0:
        kinds.put(path, random)
    elif kind == 1:
        source = (folder / random.choice(SETTINGS)).read_bytes()
        path.write_bytes(other_json(source, random))
    elif kind == 2:
        path.write_bytes(damaged((folder / "tokenizer.json").read_bytes(), b"{}", random))
    else:
        path.write_bytes(texts.text(random).encode("utf-8", "replace"))
    return conversion(place, folder)


def swapped(random: Random, place: Place) -> Case:
    """Two files under each other's names, or one of another checkpoint."""
    folder = copied(place, random)
    one, two = random.sample(sorted(folder.iterdir()), 2)
    if random.random() < 0.5:
        content = one.read_bytes()
        one.write_bytes(two.read_bytes())
        two.write_bytes(content)
    else:
        source = place.base / random.choice(("llama", "sharded", "phi3"))
        shutil.copy(random.choice(sorted(source.iterdir())), one)
    return conversion(place, folder)


def tokenizers(random: Random, place: Place) -> Case:
    """The tokenizer's definition: parts of other kinds, tokens that are missing, equal, empty or out of range."""
    folder = copied(place, random)
    path = folder / "tokenizer.json"
    value = json.loads(path.read_text(encoding="utf-8"))
    for _ in range(random.choice((1, 1, 2))):
        other_tokenizer(value, random)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return conversion(place, folder)


def places(random: Random, place: Place) -> Case:
    """An odd OUT.gguf."""
    folder = copied(place, random, ("llama",))
    kind = random.randrange(9)
    target = place.out / "model.gguf"
    options = ["--force"] if random.random() < 0.5 else []
    if kind == 0:
        found = kinds.put(target, random)
        replaced = options and found in {"gone", "empty"}
        return conversion(place, folder, *options, out=target) if found in {"gone",
        "swapped_name"} or replaced else Case(
            ["convert", *options, str(folder), str(target)])  # fmt: skip
    if kind == 1:
        kinds.put(
            target.with_name("model.gguf.manifest.json"),
            random,
            random.choice(("fifo", "folder", "loop", "empty", "dangling")),
        )
        return Case(["convert", *options, str(folder), str(target)])
    if kind == 2:
        name = random.choice(("model.gguf.partial", "model.gguf.manifest.json.partial"))
        kinds.put(place.out / name, random, random.choice(("fifo", "folder", "loop", "dangling", "newline", "to_null")))
        return Case(["convert", *options, str(folder), str(target)])
    if kind == 3:
        inside = folder / random.choice(
            ("model.safetensors", "config.json", "tokenizer.json", ".", "../checkpoint/config.json")
        )
        return Case(["convert", *options, str(folder), str(inside)])
    if kind == 4:
        os.chmod(place.out, random.choice((0o000, 0o500, 0o400)))  # noqa: PTH101
        return Case(["convert", *options, str(folder), str(target)])
    if kind == 5:
        name = random.choice(
            ("x" * 300, "x" * 250, "a/" * 2100 + "m", texts.name(random), "a\nb.gguf", "model", "m.GGUF ")
        )
        target = place.out / name
        return conversion(place, folder, *options, out=target)
    if kind == 6:
        target.write_bytes((place.base / "phi3.gguf").read_bytes()[: random.choice((0, 3, 4, 5, 4000))])
        if options and target.stat().st_size >= 4:
            return conversion(place, folder, *options, out=target)
        return Case(["convert", *options, str(folder), str(target)])
    if kind == 7:
        (place.out / "file").write_text("x")
        return Case(["convert", *options, str(folder), str(place.out / "file" / "model.gguf")])
    target.hardlink_to(folder / "model.safetensors")
    return Case(["convert", *options, str(folder), str(target)])
