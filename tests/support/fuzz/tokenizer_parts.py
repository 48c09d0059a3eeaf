"""A tokenizer's definition: parts of other kinds, and tokens that are missing, equal, empty or out of range."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.support.fuzz import texts

PARTS: dict[str, tuple[Any, ...]] = {
    "normalizer": (
        None, {"type": "NFC"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": "(a+)+$"},
        "content": ""},
        {"type": "Replace", "pattern": {"Regex": "("}, "content": ""}, {"type": "Sequence", "normalizers": []},
        {"type": "Prepend", "prepend": ""}, {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, {"type": "Nmt"},
        {"type": "Replace", "pattern": {"String": ""}, "content": "x"}, {"type": "None"}, "NFC", [],
    ),
    "pre_tokenizer": (
        {"type": "Whitespace"}, {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True,
        "use_regex": True},
        {"type": "Split", "pattern": {"Regex": ""}, "behavior": "Removed", "invert": True},
        {"type": "Metaspace", "replacement": "▁▁", "prepend_scheme": "always"}, {"type": "FixedLength", "length": 0},
        {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": True}, {"type": "Digits"},
    ),
    "post_processor": (
        {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
         {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [99999],
         "tokens": ["<s>"]}}}, {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
        {"type": "BertProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1]}, {"type": "ByteLevel"},
        {"type": "RobertaProcessing", "sep": ["x", 1 << 31], "cls": ["", 0], "trim_offsets": True,
        "add_prefix_space": True},
    ),
    "decoder": (None, {"type": "ByteLevel"}, {"type": "CTC"}, {"type": "Strip", "content": "▁", "start": 1 << 40,
    "stop": 9}),
    "truncation": ({"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0},
                   {"direction": "Left", "max_length": 2, "strategy": "OnlyFirst", "stride": 5}),
    "padding": ({"strategy": {"Fixed": 1 << 33}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
                 "pad_type_id": 0, "pad_token": "<unk>"}, {"strategy": "BatchLongest", "direction": "Left",
                 "pad_to_multiple_of": 0, "pad_id": 9999, "pad_type_id": 0, "pad_token": ""}),
    "version": ("2.0", 1, None),
}  # fmt: skip


def other_tokenizer(value: dict[str, Any], random: Random) -> None:
    model, added = value["model"], value["added_tokens"]
    kind = random.randrange(8)
    if kind < 2:
        part = random.choice(sorted(PARTS))
        value[part] = random.choice(PARTS[part])
    elif kind == 2:
        model["type"] = random.choice(("WordPiece", "Unigram", "WordLevel", "bpe", "", None))
    elif kind == 3:
        vocab = model["vocab"]
        token = random.choice(sorted(vocab))
        vocab[token] = random.choice((-1, 0, 1 << 31, 1 << 33, 10**6, 1.5, None, "7", len(vocab), vocab["<s>"]))
    elif kind == 4:
        vocab = model["vocab"]
        number = vocab.pop(random.choice(sorted(vocab)), 0)
        if random.random() < 0.7:
            vocab[texts.text(random)] = number
    elif kind == 5:
        model["merges"].append(
            random.choice((["t", "zzz"], ["", ""], ["a"], "a b c", "ab", 7, ["t", "h", "e"], ["▁", "t"]))
        )
    elif kind == 6:
        model[
            random.choice(
                (
                    "byte_fallback",
                    "ignore_merges",
                    "fuse_unk",
                    "dropout",
                    "unk_token",
                    "end_of_word_suffix",
                    "continuing_subword_prefix",
                )
            )
        ] = random.choice((True, None, "", "</w>", 0.5, 2.0, "nothing"))
    else:
        token = random.choice(added)
        key = random.choice(sorted(token))
        token[key] = random.choice((True, False, None, -1, 0, 5, 1 << 32, "", "a", "▁t", "<0x41>", texts.text(random)))
