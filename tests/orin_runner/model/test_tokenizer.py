"""Token ids are Hugging Face's: on every exam prompt, and with ORIN_DATA on every MMLU and challenge prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.vocab.vocabulary import read_vocabulary
from eval.encoding import encode_docs
from eval.reference import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Model
from orin_runner.model.tokenizer import Tokenizer
from tests.support.checkpoints import llama

CHAT = [{"role": "user", "content": "\nHi there <|end|> you\n"}]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model, converted."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


def same_prompts(task: str, options: LoadOptions, ours: Tokenizer, theirs: HFEncoder) -> int:
    """Number of prompts of ``task``, after asserting that both encode each of them the same."""
    docs = get_task(task).load(options).docs
    pairs = zip(encode_docs(docs, ours), encode_docs(docs, theirs), strict=True)
    for a, b in pairs:
        assert np.array_equal(a.request.prompt, b.request.prompt), a.doc.id
    return len(docs)


def test_every_exam_prompt(gguf: Path, tiny: Path) -> None:
    """Chats and plain prompts, special tokens and stripping included."""
    ours = Tokenizer.from_gguf(GGUFFile.open(gguf))
    assert same_prompts("exam", LoadOptions(), ours, HFEncoder(tiny, frozenset())) == 480


def test_every_mmlu_and_challenge_prompt_under_the_real_tokenizer(orin_data: Path) -> None:
    """All 14,042 five-shot prompts and the challenge's files, with Phi-3-medium's own tokenizer."""
    directory = orin_data / "tokenizers" / "phi-3-medium"
    vocabulary = read_vocabulary(directory, 32064)
    ours = Tokenizer(vocabulary.huggingface_json, vocabulary.chat_template, {}, frozenset())
    theirs = HFEncoder(directory, frozenset())
    assert same_prompts("challenge", LoadOptions(orin_data), ours, theirs) == 31
    assert same_prompts("mmlu", LoadOptions(orin_data), ours, theirs) == 14042


def test_special_tokens_strip_the_white_space_after_them(gguf: Path, tiny: Path) -> None:
    """The newline after <|user|> is no token: Phi-3's ``rstrip`` rule, through the chat template."""
    ours = Tokenizer.from_gguf(GGUFFile.open(gguf))
    (tokens,) = ours.encode([ours.chat(CHAT)], special=False)
    theirs = AutoTokenizer.from_pretrained(tiny)
    assert tokens.tolist() == theirs.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False)
    (newline,) = ours.encode(["\n"], special=False)
    assert newline[-1] not in tokens[:2]


def test_phi3_has_no_bos_and_llama_has_one(gguf: Path, tmp_path: Path, tiny: Path) -> None:
    """Plain text gets what the checkpoint's tokenizer gives it; a rendered chat gets nothing added."""
    out = tmp_path / "llama.gguf"
    directory = llama(tmp_path / "m", tiny)
    convert(Checkpoint.open(directory), out, Options())
    for path, source, bos in ((gguf, tiny, []), (out, directory, [1])):
        file = GGUFFile.open(path)
        assert file.metadata["tokenizer.ggml.add_bos_token"] == bool(bos)
        (plain,) = Tokenizer.from_gguf(file).encode(["Hello there"])
        assert plain.tolist() == AutoTokenizer.from_pretrained(source)("Hello there").input_ids
        assert (plain[0] == 1) == bool(bos)


def test_llama_cpps_own_vocabulary_agrees_on_plain_text(gguf: Path) -> None:
    """What other tools see. After special tokens llama.cpp puts a space that transformers 5 does not."""
    ours = Tokenizer.from_gguf(GGUFFile.open(gguf))
    with Model(gguf) as model:
        for text in ("Which room has the key?", "  two  spaces\nand 1,234 numbers", "Übergrößenträger naïve 漢字"):
            assert model.tokenize(text) == ours.encode([text])[0].tolist()
        chat = model.tokenize("<|user|>\nHi<|end|>\n<|assistant|>\n")
        model_newline = model.tokenize("\n")[-1:]
    assert [token for token in chat if token >= 3000] == [3010, 3007, 3001]
    (newline,) = model_newline
    assert newline not in chat  # the name written into the file makes llama.cpp strip as Phi-3 does


def test_tokenizer_model_alone_is_enough(tmp_path: Path, tiny: Path) -> None:
    """A checkpoint without tokenizer.json, as LLaMA-1's: the same pieces, scores and merges."""
    import shutil

    for name in ("tokenizer.model", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(tiny / name, tmp_path / name)
    only_model = read_vocabulary(tmp_path, 3072)
    both = read_vocabulary(tiny, 3072)
    assert only_model.tokens == both.tokens
    assert only_model.types == both.types
    assert np.argsort(only_model.scores).tolist() == np.argsort(both.scores).tolist()
    text = "Read the question: who lives in Torvanwick? Übermäßig 漢字 123."
    encodings = [Tokenizer(v.huggingface_json, None, {}, frozenset()).encode([text])[0] for v in (only_model, both)]
    assert encodings[0].tolist() == encodings[1].tolist()


def test_stop_tokens_come_from_the_generation_config(gguf: Path) -> None:
    """<|endoftext|>, <|assistant|> and <|end|>, as Phi-3-medium's does."""
    assert Tokenizer.from_gguf(GGUFFile.open(gguf)).stop == {3000, 3001, 3007}


def test_a_broken_tokenizer_is_named(tmp_path: Path, tiny: Path) -> None:
    """One line, not a traceback of the tokenizers library."""
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_bytes((tiny / "tokenizer_config.json").read_bytes())
    with pytest.raises(UserError, match="transformers cannot load the tokenizer"):
        read_vocabulary(tmp_path, 3072)


def test_a_refusing_template_is_named() -> None:
    """Templates raise for conversations they do not take."""
    tokenizer = Tokenizer(
        '{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,"pre_tokenizer":null,'
        '"post_processor":null,"decoder":null,"model":{"type":"BPE","vocab":{"a":0},"merges":[]}}',
        "{{ raise_exception('no system message') }}",
        {},
        frozenset(),
    )
    with pytest.raises(UserError, match="no system message"):
        tokenizer.chat(CHAT)
