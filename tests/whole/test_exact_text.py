"""Greedy texts are transformers' in float32, whatever the memory budget and whether choices are drafted or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.runs.run import Run
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Generated, GenerateRequest, context_tokens
from tests.support.paths import REFERENCE
from tests.support.runs import run_gguf


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.mark.parametrize("draft", [True, False])
@pytest.mark.parametrize(
    ("room", "n_batch", "n_outputs"),
    [(0, 256, 256), (1024, 512, 256), (2048 + 8192, 2048, 1024)],
    ids=["exact fit", "medium", "default"],
)
def test_every_text_is_transformers_at_any_budget(
    gguf: Path, room: int, n_batch: int, n_outputs: int, draft: bool
) -> None:
    """From a cache that just holds the longest item to the plan's own; most tokens are verified as drafts."""
    docs = [doc for doc in get_task("exam").load(LoadOptions()).docs if doc.mode == "generate"]
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(gguf))
    requests = [question.request for question in encode_docs(docs, tokenizer)]
    assert all(isinstance(request, GenerateRequest) and request.max_new_tokens == 500 for request in requests)
    n_cells = -(-(max(context_tokens(request) for request in requests) + room) // 256) * 256
    results, stats = run_gguf(
        gguf, requests, n_cells=n_cells, n_batch=n_batch, n_ubatch=256, n_outputs=n_outputs, draft=draft
    )
    texts = [result for result in results if isinstance(result, Generated)]
    expected = Run.open(REFERENCE / "float32").predictions
    found = {doc.id: tokenizer.decode(text.tokens) for doc, text in zip(docs, texts, strict=True)}
    assert found == {doc.id: expected["exam", doc.id].text for doc in docs}
    steps = [text.decode_steps for text in texts]
    if draft:
        # One step where a draft had room, two in a cache that just holds the longest item.
        assert sum(steps) <= 0.25 * sum(len(text.tokens) for text in texts)
    else:
        # Each token but the first, and the stop token, takes a step: nothing was verified behind the switch.
        assert sum(steps) > 0.9 * sum(len(text.tokens) for text in texts)
        assert stats.unique < sum(len(request.prompt) for request in requests)
