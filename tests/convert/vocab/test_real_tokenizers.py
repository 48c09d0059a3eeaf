"""Published tokenizers, on MMLU's prompts, a text of many scripts and a chat: ids are Hugging Face's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convert.vocab.sample import LINES, cut_otherwise
from convert.vocab.vocabulary import Vocabulary, read_vocabulary
from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.workers.vocabulary import tokenized
from tests.support.real_tokenizers import ROWS, unpacked
from tests.support.shapes import header_only

CUT_OTHERWISE = {"llama-3.1": 0, "qwen3": 2, "smollm2": 0, "llama2": 1, "phi-3-medium": 1}
"""Qwen 3 normalizes to NFC; SentencePiece's three spaces at the end of a text are joined in another order."""
SPREAD = 250
CHAT = [
    {"role": "system", "content": "You answer briefly."},
    {"role": "user", "content": " Which planet is 4,880 km wide?\n"},
    {"role": "assistant", "content": "Mercury."},
    {"role": "user", "content": "Und 漢字?"},
]


@pytest.fixture(scope="module", params=ROWS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, orin_data: Path) -> Path:
    """The folder of one tokenizer."""
    return unpacked(orin_data / "tokenizers" / request.param, tmp_path_factory.mktemp("real") / request.param)


@pytest.fixture(scope="module")
def vocabulary(tokenizer: Path) -> Vocabulary:
    return read_vocabulary(tokenizer, ROWS[tokenizer.name])


@pytest.fixture(scope="module")
def gguf(vocabulary: Vocabulary, tokenizer: Path) -> Path:
    config: dict[str, object] = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-5,
        "vocab_size": ROWS[tokenizer.name],
    }
    return header_only(tokenizer / "m.gguf", config, vocabulary=vocabulary)


@pytest.fixture(scope="module")
def docs(orin_data: Path) -> list[Doc]:
    """MMLU's 5-shot prompts."""
    return list(get_task("mmlu").load(LoadOptions(orin_data)).docs)


@pytest.fixture(scope="module")
def pair(gguf: Path, tokenizer: Path) -> tuple[Tokenizer, HFEncoder]:
    """The runner's tokenizer and transformers'."""
    return Tokenizer.from_gguf(GGUFFile.open(gguf)), HFEncoder(tokenizer, frozenset())


def same(docs: list[Doc], pair: tuple[Tokenizer, HFEncoder]) -> None:
    ours, theirs = pair
    for a, b in zip(encode_docs(docs, ours), encode_docs(docs, theirs), strict=True):
        assert np.array_equal(a.request.prompt, b.request.prompt), a.doc.id


def test_a_spread_of_mmlu(docs: list[Doc], pair: tuple[Tokenizer, HFEncoder]) -> None:
    """Prompts of every subject's beginning, middle and end."""
    assert len(docs[::SPREAD]) > 50
    same(docs[::SPREAD], pair)


@pytest.mark.slow
def test_all_of_mmlu(docs: list[Doc], pair: tuple[Tokenizer, HFEncoder]) -> None:
    """Every prompt."""
    assert len(docs) == 14042
    same(docs, pair)


def test_many_scripts(gguf: Path, tokenizer: Path, vocabulary: Vocabulary, pair: tuple[Tokenizer, HFEncoder]) -> None:
    """With what plain text gets before and after it, and without; llama.cpp's own vocabulary beside it."""
    texts = [*LINES, "\n".join(LINES)]
    for special in (True, False):
        ours, theirs = (encoder.encode(texts, special=special) for encoder in pair)
        assert [ids.tolist() for ids in ours] == [ids.tolist() for ids in theirs]
    assert vocabulary.add_bos == (tokenizer.name in {"llama-3.1", "llama2"})
    assert cut_otherwise(gguf, vocabulary.huggingface_json, tokenized)[0] == CUT_OTHERWISE[tokenizer.name]


def test_chat_templates(pair: tuple[Tokenizer, HFEncoder]) -> None:
    """Ids of a conversation, where the published files have a template."""
    ours, theirs = pair
    assert ours.has_chat_template == theirs.has_chat_template
    if ours.has_chat_template:
        (found,) = ours.encode([ours.chat(CHAT)], special=False)
        expected = theirs._tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
        assert found.tolist() == expected
