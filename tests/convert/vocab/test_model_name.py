"""The name in the GGUF, by which llama.cpp decides whether special tokens strip the white space after them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from convert.vocab.vocabulary import read_vocabulary
from orin_runner.workers.vocabulary import tokenized
from tests.support.families import save_byte_level
from tests.support.shapes import PHI3_MEDIUM, header_only


@pytest.mark.parametrize(
    ("name", "strips", "expected"),
    [
        ("tiny", True, "phi-3 tiny"),
        ("My-Phi-3-Medium", True, "My-Phi-3-Medium"),
        ("phi3-tuned", True, "phi3-tuned"),
        ("Phi-4-mini", False, "Phi-4-mini"),
        ("not-phi3-but-llama", False, "not-phi 3-but-llama"),
        ("Phi-3", False, "Phi 3"),
    ],
)
def test_the_name_says_whether_white_space_is_stripped(
    name: str, strips: bool, expected: str, tiny: Path, tmp_path: Path
) -> None:
    """A Phi-3's has phi-3 or phi3 in it, no other's has: llama.cpp would not load it."""
    if strips:
        vocabulary = read_vocabulary(tiny, 3072)
    else:
        save_byte_level(tmp_path, "dbrx")
        vocabulary = read_vocabulary(tmp_path, 3072)
    assert vocabulary.model_name(name) == expected


def test_llama_cpp_loads_a_vocabulary_whose_folder_is_named_phi3(tmp_path: Path) -> None:
    """A Phi-4's, say: it lacks tokens that llama.cpp looks up under that name."""
    save_byte_level(tmp_path, "dbrx")
    vocabulary = replace(read_vocabulary(tmp_path, 512), chat_template=None)
    path = header_only(tmp_path / "m.gguf", {**PHI3_MEDIUM, "vocab_size": 512}, vocabulary=vocabulary)
    assert tokenized(path, ["a b"])[0]
