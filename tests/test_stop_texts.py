"""Stop texts on a real model: the engine and transformers end the same texts with the same token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from runs import run_gguf

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.ask import encode_docs
from eval.reference import Reference
from eval.tasks import get_task
from eval.tasks.base import LoadOptions
from orin_runner.gguf_file import GGUFFile
from orin_runner.llama import Context, ContextSettings, Model
from orin_runner.requests import Generated, GenerateRequest, Request
from orin_runner.tokenizer import Tokenizer

NOISE = 0.1  # llama.cpp and transformers differ by up to 0.04 in a log-probability of this model
UNTIL = (("e",), ("on", "ing"), ("qq",), ())


@pytest.fixture(scope="module")
def gguf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), path, Options("auto", allow_rounding=False, window="exact"))
    return path


def test_pieces_joined_are_the_decoded_text(gguf: Path) -> None:
    """Byte by byte, but for the space that the tokenizer drops from a text's beginning; special tokens are nothing."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
    text = "Grüße, naïve\n\n  cats 🙂 'n' dogs"
    (tokens,) = tokenizer.encode([text], special=False)
    with Model(gguf) as model, Context(model, ContextSettings(64, 64, 64, 64, n_seq=1)) as context:
        pieces = [context.piece(token) for token in tokens.tolist()]
        assert [context.piece(token) for token in tokens.tolist()] == pieces
        assert {context.piece(token) for token in tokenizer.stop} == {b""}
    assert b"".join(pieces).removeprefix(b" ").decode() == text == tokenizer.decode(tokens)


@pytest.mark.parametrize("draft", [True, False])
def test_engine_and_transformers_end_the_same_texts(gguf: Path, tiny: Path, draft: bool) -> None:
    """Stop texts and bounds of every kind in one batch; each text is the unbounded one, up to its end."""
    docs = [doc for doc in get_task("exam").load(LoadOptions()) if doc.mode == "generate"][::12]
    reference = Reference(tiny, "float32", "cpu")
    plain = [q.request for q in encode_docs(docs, reference.encoder)]
    requests: list[Request] = [
        replace(request, until=UNTIL[i % 4], max_new_tokens=(40, 3)[i % 3 == 0])
        for i, request in enumerate(plain)
        if isinstance(request, GenerateRequest)
    ]
    ours, _ = run_gguf(gguf, requests, exact=True, draft=draft)
    theirs = dict(reference.run(requests, 20_000))
    whole = dict(reference.run(plain, 20_000))
    cut = 0
    for i, (request, result) in enumerate(zip(requests, ours, strict=True)):
        assert isinstance(request, GenerateRequest)
        other, full = theirs[i], whole[i]
        assert isinstance(result, Generated)
        assert isinstance(other, Generated)
        assert isinstance(full, Generated)
        assert (result.tokens.tolist(), result.stopped) == (other.tokens.tolist(), other.stopped)
        assert result.logprob == pytest.approx(other.logprob, abs=NOISE)
        assert result.margin == pytest.approx(other.margin, abs=NOISE)
        n = len(result.tokens)
        assert n <= request.max_new_tokens
        assert result.tokens.tolist() == full.tokens.tolist()[:n]
        texts = [reference.encoder.decode(full.tokens[:k]) for k in range(n + 1)]
        ends = [k for k, text in enumerate(texts) if any(stop in text for stop in request.until)]
        assert ends in ([], [n])
        cut += bool(ends)
    assert cut > 5
