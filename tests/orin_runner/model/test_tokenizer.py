"""Token ids are Hugging Face's: on every exam prompt, and with ORIN_DATA on every MMLU and challenge prompt."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.vocab.vocabulary import read_vocabulary
from eval.encoding import encode_docs
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.huggingface_vocabulary import HuggingFaceVocabulary
from orin_runner.model.llama import Model
from orin_runner.model.tokenizer import BATCH, Tokenizer
from tests.support.checkpoints import llama
from tests.support.gguf_bytes import tokenizer_json

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
    ours = Tokenizer(HuggingFaceVocabulary(vocabulary.huggingface_json), vocabulary.chat_template, {}, frozenset())
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
    encodings = [
        Tokenizer(HuggingFaceVocabulary(v.huggingface_json), None, {}, frozenset()).encode([text])[0]
        for v in (only_model, both)
    ]
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


SEQUENCE = {"Sequence": {"id": "A", "type_id": 0}}
BOS = {"SpecialToken": {"id": "<s>", "type_id": 0}}


@pytest.mark.parametrize(
    "changed",
    [
        # Python's exceptions
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}},
        {"model": {"type": "WordLevel", "vocab": {"b": 0}, "unk_token": "[UNK]"}},
        {"model": {"type": "Unigram", "unk_id": None, "vocab": []}},
        {"model": {"type": "Unigram", "unk_id": 9, "vocab": [["a", 0.0]]}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}},
        {"version": "9"},
        # Rust's panics, which are no Exception in Python
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a a"]}},
        {
            "model": {
                "type": "BPE",
                "vocab": {"a": 0, "b": 1, "ab": 2},
                "merges": ["a b"],
                "continuing_subword_prefix": "#" * 6,
            }
        },
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"}},
        {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
        {
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [BOS, SEQUENCE],
                "pair": [SEQUENCE],
                "special_tokens": {},
            }
        },
    ],
)
def test_a_damaged_tokenizer_is_one_error(changed: dict[str, object], capfd: pytest.CaptureFixture[str]) -> None:
    """Whatever the library raises at it, and without the traceback that Rust writes by itself."""
    with pytest.raises(UserError, match=r"the tokenizer of this model is damaged: ."):
        Tokenizer(HuggingFaceVocabulary(tokenizer_json(**changed)), None, {}, frozenset())
    assert capfd.readouterr().err == ""


def test_long_texts_are_given_to_the_vocabulary_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's encodings of millions of tokens need more memory than a device has; in order, each text once."""
    tokenizer = Tokenizer(HuggingFaceVocabulary(tokenizer_json()), None, {}, frozenset())
    texts = ["a" * n for n in (5, 0, 4, 12, 3, 1, *[0] * 2 * BATCH, 10, 1, 11)]
    expected = [found.tolist() for text in texts for found in tokenizer.encode([text])]
    given: list[Sequence[str]] = []
    encode = tokenizer.vocabulary.encode

    def noted(part: Sequence[str], *, special: bool) -> list[Sequence[int]]:
        given.append(part)
        return encode(part, special=special)

    monkeypatch.setattr(tokenizer.vocabulary, "encode", noted)
    monkeypatch.setattr("orin_runner.model.tokenizer.BATCH_CHARACTERS", 10)
    assert [found.tolist() for found in tokenizer.encode(texts)] == expected
    assert [text for part in given for text in part] == texts
    assert all(len(part) == 1 or sum(map(len, part)) <= 10 for part in given)
    assert max(map(len, given)) == BATCH
    assert tokenizer.encode([]) == []


def test_a_text_that_the_library_cannot_take_is_one_error(capfd: pytest.CaptureFixture[str]) -> None:
    """A half surrogate pair; a pattern that a text makes too slow; a word without tokens."""
    slow = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+b"}, "behavior": "Isolated", "invert": False}
    unknown = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "<u>"}
    for changed, text in (({}, "so \ud83d"), ({"pre_tokenizer": slow}, "a" * 3000), ({"model": unknown}, "b")):
        with pytest.raises(UserError, match="the tokenizer of this model cannot encode a text"):
            Tokenizer(HuggingFaceVocabulary(tokenizer_json(**changed)), None, {}, frozenset()).encode([text])
    assert capfd.readouterr().err == ""


def test_ids_beyond_the_models_are_refused() -> None:
    """In the vocabulary, or put around a text by the post-processor: llama.cpp would read past its embedding."""
    around = {
        "type": "TemplateProcessing",
        "single": [BOS, SEQUENCE],
        "pair": [SEQUENCE, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [99999], "tokens": ["<s>"]}},
    }
    far = {"type": "BPE", "vocab": {"a": (1 << 32) - 1}, "merges": []}
    for changed, token in (({"post_processor": around}, 99999), ({"model": far}, (1 << 32) - 1)):
        tokenizer = Tokenizer(HuggingFaceVocabulary(tokenizer_json(**changed)), None, {}, frozenset(), n_vocab=8)
        with pytest.raises(UserError, match=f"makes the token {token}, and the model knows 8"):
            tokenizer.encode(["a"])


def test_random_damage_to_the_tokenizer_is_one_error(tiny: Path) -> None:
    """Five hundred files of the tiny model's tokenizer with a bit flipped, bytes cut out or others put in."""
    chosen, sound = random.Random(14), (tiny / "tokenizer.json").read_bytes()
    vocabulary = sound.index(b'"vocab"')
    refused: list[str] = []
    for _ in range(500):
        content = bytearray(sound)
        at = chosen.randrange(vocabulary if chosen.random() < 0.6 else len(content))
        if (kind := chosen.randrange(3)) == 0:
            content[at] ^= 1 << chosen.randrange(8)
        elif kind == 1:
            del content[at : at + chosen.randrange(1, 40)]
        else:
            content[at:at] = chosen.choice((b"null", b"-1", b"[]", b"{}", b'""', b"4294967295", b"true"))
        try:
            tokenizer = Tokenizer(
                HuggingFaceVocabulary(content.decode(errors="replace")), None, {}, frozenset(), n_vocab=3072
            )
            for tokens in tokenizer.encode(["Who? Über 漢", "<s></s>", ""]):
                tokenizer.decode(tokens)
        except UserError as error:
            refused.append(str(error))
    assert 300 < len(refused) < 500
    assert [line for line in refused if len(line.splitlines()) != 1] == []
