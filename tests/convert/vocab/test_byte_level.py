"""Byte-level BPE: the pre-tokenizer is recognised by its definition, and llama.cpp cuts as the checkpoint does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import pre_tokenizers
from transformers import AutoTokenizer

from convert.vocab.byte_level import PRE
from convert.vocab.sample import LINES, cut_otherwise
from convert.vocab.vocabulary import read_vocabulary
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.workers.vocabulary import tokenized
from tests.support.families import byte_level, save_byte_level
from tests.support.shapes import header_only

SIZES: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}
NAMES = ("gpt-2", "smollm", "llama-bpe", "dbrx", "qwen2", "gpt-4o", "tekken")
SPECIAL = "a <|im_start|> b<|im_end|>\n  c"
"""White space on both sides of special tokens."""


@pytest.mark.parametrize("name", NAMES)
def test_llama_cpp_cuts_as_the_checkpoint_does(name: str, tmp_path: Path) -> None:
    """Ids of the runner's tokenizer are Hugging Face's on every line; llama.cpp's differ where the table says.

    qwen2 normalizes to NFC, llama.cpp does not: one character of one line. gpt-4o and tekken take a combining mark
    for a part of its word, llama.cpp does not.
    """
    save_byte_level(tmp_path, name)
    (tmp_path / "config.json").write_text('{"model_type": "opt"}' if name == "gpt-2" else "{}")
    vocabulary = read_vocabulary(tmp_path, 512)
    assert (vocabulary.model, vocabulary.pre) == ("gpt2", name)
    assert vocabulary.tokens[500:] == [f"[PAD{i}]" for i in range(500, 512)]
    path = header_only(tmp_path / "m.gguf", {**SIZES, "vocab_size": 512}, vocabulary=vocabulary)
    ours, theirs = Tokenizer.from_gguf(GGUFFile.open(path)), AutoTokenizer.from_pretrained(tmp_path)
    lines = [*LINES, SPECIAL]
    assert [ids.tolist() for ids in ours.encode(lines)] == theirs(lines).input_ids
    differing, pieces = cut_otherwise(path, vocabulary.huggingface_json, tokenized)
    assert pieces > 1000
    assert differing <= {"qwen2": 4, "gpt-4o": 0.05 * pieces, "tekken": 0.05 * pieces}.get(name, 0)


def test_every_name_is_tried() -> None:
    """The table has no other."""
    assert set(PRE.values()) == set(NAMES)


def test_what_is_cut_otherwise_is_counted(tmp_path: Path) -> None:
    """A file with another pre-tokenizer's name: digits by threes instead of one by one."""
    save_byte_level(tmp_path, "qwen2")
    vocabulary = read_vocabulary(tmp_path, 512)
    serialized = byte_level("dbrx").to_str()
    path = header_only(tmp_path / "m.gguf", {**SIZES, "vocab_size": 512}, vocabulary=vocabulary)
    same, _ = cut_otherwise(path, vocabulary.huggingface_json, tokenized)
    differing, _ = cut_otherwise(path, serialized, tokenized)
    assert differing > same


class TestRefused:
    """Pre-tokenizers that llama.cpp has no name for are named, with what is known."""

    def refused(self, folder: Path, changes: dict[str, object], message: str) -> None:
        save_byte_level(folder, "qwen2")
        path = folder / "tokenizer.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        with pytest.raises(UserError, match=message) as error:
            read_vocabulary(folder, 512)
        assert error.value.hint is not None

    def test_another_pattern(self, tmp_path: Path) -> None:
        steps = pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "isolated"), pre_tokenizers.ByteLevel(use_regex=False, add_prefix_space=False)]
        )
        definition = json.loads(steps.__getstate__())
        self.refused(tmp_path, {"pre_tokenizer": definition}, "none that llama.cpp is known to have: .*Split")

    def test_a_space_before_the_text(self, tmp_path: Path) -> None:
        definition = json.loads(pre_tokenizers.ByteLevel(add_prefix_space=True).__getstate__())
        self.refused(tmp_path, {"pre_tokenizer": definition}, "'add_prefix_space': True")

    def test_another_normalizer(self, tmp_path: Path) -> None:
        self.refused(tmp_path, {"normalizer": {"type": "Lowercase"}}, "Lowercase normalizer")

    def test_another_model(self, tmp_path: Path) -> None:
        model = {"type": "WordLevel", "vocab": {"a": 0, "<unk>": 1}, "unk_token": "<unk>"}
        self.refused(tmp_path, {"model": model, "added_tokens": []}, "is of kind WordLevel")

    def test_more_tokens_than_rows(self, tmp_path: Path) -> None:
        save_byte_level(tmp_path, "qwen2")
        with pytest.raises(UserError, match=r"has a token \d+, the embeddings only 300 rows"):
            read_vocabulary(tmp_path, 300)
