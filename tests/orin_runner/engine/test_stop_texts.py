"""Stop texts on a real model: the engine and transformers end the same texts with the same token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.predict import cut_before
from eval.reference import Reference
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, ContextSettings, Model
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Generated, GenerateRequest
from tests.support.runs import run_gguf

NOISE = 0.1  # llama.cpp and transformers differ by up to 0.04 in a log-probability of this model
STOPS = ("<|end|>", "<|endoftext|>", "<|assistant|>")
UNTIL = (("e",), ("on", "ing"), ("qq",), ())


@pytest.fixture(scope="module")
def gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), path, Options("auto", allow_rounding=False, window="exact"))
    return path


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    return Reference(tiny, "float32", "cpu")


@pytest.fixture(scope="module")
def plain(reference: Reference) -> list[GenerateRequest]:
    """Some of the exam's short questions."""
    docs = [doc for doc in get_task("exam").load(LoadOptions()).docs if doc.mode == "generate"]
    requests = [question.request for question in encode_docs(docs[::24], reference.encoder)]
    return [request for request in requests if isinstance(request, GenerateRequest) and len(request.prompt) < 400]


@pytest.fixture(scope="module")
def requests(plain: list[GenerateRequest]) -> list[GenerateRequest]:
    return [replace(r, until=UNTIL[i % 4], max_new_tokens=(40, 3)[i % 3 == 0]) for i, r in enumerate(plain)]


@pytest.fixture(scope="module")
def theirs(reference: Reference, requests: list[GenerateRequest]) -> list[Generated]:
    return texts_of(reference, requests)


@pytest.fixture(scope="module")
def whole(reference: Reference, plain: list[GenerateRequest]) -> list[Generated]:
    """The texts without stop texts."""
    return texts_of(reference, plain)


def texts_of(reference: Reference, requests: list[GenerateRequest]) -> list[Generated]:
    found = dict(reference.run(requests, 20_000))
    results = [found[i] for i in range(len(requests))]
    return [result for result in results if isinstance(result, Generated)]


def test_a_text_is_cut_before_its_first_stop_text() -> None:
    """Whichever of them comes first in the text; a text without any stays whole."""
    assert cut_before("so. Q and\n\nmore", ("\n\n", "Q")) == "so. "
    assert cut_before("so. Q", ("q", "\n")) == "so. Q"
    assert cut_before("so", ()) == "so"


def test_pieces_joined_are_the_decoded_text(gguf: Path) -> None:
    """Byte by byte, but for the space that the tokenizer drops from a text's beginning; special tokens have names."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
    text = "Grüße, naïve\n\n  cats 🙂 'n' dogs"
    (tokens,) = tokenizer.encode([text], special=False)
    with Model(gguf) as model, Context(model, ContextSettings(64, 64, 64, 64, n_seq=1)) as context:
        pieces = [context.piece(token) for token in tokens.tolist()]
        assert [context.piece(token) for token in tokens.tolist()] == pieces
        assert {context.piece(token) for token in tokenizer.stop} == {name.encode() for name in STOPS}
    assert b"".join(pieces).removeprefix(b" ").decode() == text == tokenizer.decode(tokens)


@pytest.mark.parametrize("draft", [True, False])
def test_engine_and_transformers_end_the_same_texts(
    gguf: Path, requests: list[GenerateRequest], theirs: list[Generated], whole: list[Generated], draft: bool
) -> None:
    """Stop texts and bounds of every kind in one batch; each text is the unbounded one, up to its end."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
    cut = 0
    ours, _ = run_gguf(gguf, requests, exact=True, draft=draft)
    for request, result, other, full in zip(requests, ours, theirs, whole, strict=True):
        assert isinstance(result, Generated)
        assert (result.tokens.tolist(), result.stopped) == (other.tokens.tolist(), other.stopped)
        assert result.logprob == pytest.approx(other.logprob, abs=NOISE)
        assert result.margin == pytest.approx(other.margin, abs=NOISE)
        n = len(result.tokens)
        assert n <= request.max_new_tokens
        assert result.tokens.tolist() == full.tokens.tolist()[:n]
        texts = [tokenizer.decode(full.tokens[:k]) for k in range(n + 1)]
        ends = [k for k, text in enumerate(texts) if any(stop in text for stop in request.until)]
        assert ends in ([], [n])
        cut += bool(ends)
    assert cut > 3


def test_a_stop_text_may_name_a_special_token(
    gguf: Path, requests: list[GenerateRequest], whole: list[Generated]
) -> None:
    """Where the stop tokens do not have it: it is the last token then, and adds nothing to the decoded text."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
    named = [replace(r, stop=frozenset(), until=STOPS, max_new_tokens=500) for r in requests]
    ours, _ = run_gguf(gguf, named[:4], exact=True)
    for result, full in zip(ours, whole[:4], strict=True):
        assert isinstance(result, Generated)
        assert result.tokens[:-1].tolist() == full.tokens.tolist()
        assert int(result.tokens[-1]) in tokenizer.stop
        assert tokenizer.decode(result.tokens) == tokenizer.decode(full.tokens)
