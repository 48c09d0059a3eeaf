"""llama.cpp's own vocabulary of a file, against the checkpoint's Hugging Face tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.vocab.sample import LINES
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.workers.vocabulary import own_tokenizer
from tests.support.families import FAMILIES
from tests.support.foreign import rewritten

Three = tuple[Tokenizer, Any, Tokenizer]
CHAT = [{"role": "user", "content": "Hi there, who is it?"}]


@pytest.fixture(scope="module", params=["tiny Phi-3", "SmolLM2", "Llama 3.1"])
def three(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Three:
    """By llama.cpp, transformers and the converted file: SentencePiece; byte-level, without BOS and with."""
    folder = tmp_path_factory.mktemp("vocabulary")
    checkpoint = tiny if request.param == "tiny Phi-3" else FAMILIES[request.param].build(folder / "ck")
    convert(Checkpoint.open(checkpoint), folder / "m.gguf", Options())
    foreign = GGUFFile.open(rewritten(folder / "m.gguf", folder / "foreign.gguf"))
    ours, theirs = own_tokenizer(foreign), AutoTokenizer.from_pretrained(checkpoint)
    assert ours.vocabulary.kind == "llama.cpp"
    return ours, theirs, Tokenizer.from_gguf(GGUFFile.open(folder / "m.gguf"))


def test_ids_and_texts_are_the_checkpoints(three: Three) -> None:
    """Prompts of a task, with BOS where the file adds it; the empty text; conversations; texts that are decoded."""
    ours, theirs, own = three
    texts = [doc.prompt for doc in get_task("exam").load(LoadOptions(limit=40)).docs if isinstance(doc.prompt, str)]
    texts += ["", "a", " b", "The quick brown fox\n\n  jumps over 13 lazy dogs"]
    expected = [theirs(text)["input_ids"] for text in texts]
    assert [ids.tolist() for ids in ours.encode(texts)] == expected
    chats = ours.chats([CHAT])
    assert chats == own.chats([CHAT])
    assert ours.encode(chats, special=False)[0].tolist() == own.encode(chats, special=False)[0].tolist()
    for tokens in own.encode([*texts, *chats], special=False):
        assert ours.decode(tokens) == own.decode(tokens)
    assert (ours.prefix, ours.chat_template) == (own.prefix, own.chat_template)
    assert own.stop <= ours.stop | {3001}  # of which no key of llama.cpp's speaks


def test_names_of_special_tokens_in_a_text_are_text(three: Three) -> None:
    """In a benchmark's plain text; the same text as a rendered conversation has the token."""
    ours, _, own = three
    (name,) = {name for name in ("<|end|>", "<|im_end|>") if own.encode([name], special=False)[0].size == 1}
    (token,) = own.encode([name], special=False)[0].tolist()
    plain, chat = ours.encode([f"x {name} y"])[0].tolist(), ours.encode([f"x {name} y"], special=False)[0].tolist()
    assert token not in plain
    assert token in chat
    assert ours.decode(ours.encode([f"x {name} y"])[0]).strip() == f"x {name} y"


def test_many_scripts_come_back(three: Three) -> None:
    """Whatever the pieces are, their bytes are the text's."""
    ours, _, _ = three
    encoded = ours.encode(LINES, special=False)
    assert [ours.decode(tokens) for tokens in encoded] == list(LINES)


def test_a_text_that_is_no_unicode_is_one_error(three: Three) -> None:
    """As with the checkpoint's own tokenizer."""
    ours, _, _ = three
    other = own_tokenizer(GGUFFile.open(Path(ours._name)))
    with pytest.raises(UserError, match="surrogates not allowed"):
        other.encode(["so \ud83d"])


def test_the_digest_is_of_all_that_decides_ids(three: Three, tmp_path: Path) -> None:
    """Another value of a key of the vocabulary is another tokenizer; another name of the model is not."""
    path = Path(three[0]._name)
    digests = [
        own_tokenizer(GGUFFile.open(rewritten(path, tmp_path / f"{i}.gguf", changed=changed))).vocabulary.sha256
        for i, changed in enumerate(({}, {"general.finetune": "x"}, {"tokenizer.ggml.padding_token_id": 5}))
    ]
    assert digests[0] == digests[1] == three[0].vocabulary.sha256 != digests[2]
