"""Prompts longer than the context: the tokens that lm-evaluation-harness's ``hf`` model would compute, one for one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.models.huggingface import HFLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs, score_request
from eval.evaluate import Prepared
from eval.hf_encoder import HFEncoder
from eval.tasks.base import LoadOptions, in_chat
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from eval.truncation import TooLong, fitted, shortened
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import ScoreRequest, context_tokens
from tests.support.checkpoints import llama, phi3
from tests.support.harness_inputs import Fed, inputs
from tests.support.real_tokenizers import ROWS, unpacked

POSITIONS = 2048
SOME = 12


def opened(directory: Path) -> HFLM:
    return HFLM(pretrained=str(directory), device="cpu", dtype="float32", batch_size=1)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> HFLM:
    """A model of 24 positions."""
    return opened(llama(tmp_path_factory.mktemp("small") / "llama", tiny, positions=24))


def test_each_choice_keeps_what_its_own_length_leaves(small: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts of 1 to 30 tokens, choices of 1 to 24, among them some that fit; one alone as long as the context."""
    fed, rng = Fed(small, monkeypatch), np.random.default_rng(3)
    assert small.max_length == 24
    kinds = set()
    for n in range(1, 31):
        for lengths in ([1, 1, 1], [1, 2, 9], [n, 24, 3], [25 - min(n, 24), 26 - min(n, 24)]):
            context = rng.integers(5, 3000, n, dtype=np.int32)
            choices = [rng.integers(5, 3000, min(length, 24), dtype=np.int32) for length in lengths]
            request = score_request([(context, choice) for choice in choices])
            found = shortened(request, 24)
            assert isinstance(found, ScoreRequest)
            assert found.n_scored == tuple(map(len, choices))
            assert inputs(found) == [fed.pair(context.tolist(), choice.tolist()) for choice in choices]
            assert [c[-k:].tolist() for c, k in zip(found.continuations, found.n_scored, strict=True)] == [
                choice.tolist() for choice in choices
            ]
            assert context_tokens(found) <= 24
            kinds.add((found is request, bool(found.scored)))
    assert kinds == {(True, False), (False, False), (False, True)}


def spread_long(docs: Sequence[Doc], n: int | None) -> list[Doc]:
    """``n`` of the 300 longest, by characters, evenly spread and the longest first; or all."""
    if n is None:
        return list(docs)
    longest = sorted(docs, key=lambda doc: -len(doc.prompts[0] if doc.prompts else str(doc.prompt)))[:300]
    return longest[:: len(longest) // n][:n]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, orin_data: Path) -> dict[str, tuple[Path, GGUFFile, HFLM]]:
    """Random models of 2,048 positions: Llama 2's tokenizer, which puts BOS in front; Phi-3's chat template."""
    folder = tmp_path_factory.mktemp("models")
    found = {}
    for name, make in (("llama2", llama), ("phi-3-medium", phi3)):
        tokenizer = unpacked(orin_data / "tokenizers" / name, folder / f"{name}-tokenizer")
        make(folder / name, tokenizer, vocab_size=ROWS[name], positions=POSITIONS)
        convert(Checkpoint.open(folder / name), folder / f"{name}.gguf", Options())
        found[name] = (folder / name, GGUFFile.open(folder / f"{name}.gguf"), opened(folder / name))
    return found


CASES = {
    "mmlu, letters": ("mmlu", LoadOptions(), "llama2"),
    "commonsense_qa, choices of several lengths": ("commonsense_qa", LoadOptions(shots=120, scoring="text"), "llama2"),
    "winogrande, a context for each choice": ("winogrande", LoadOptions(shots=80), "llama2"),
    "bbh, texts": ("bbh", LoadOptions(), "llama2"),
    "mmlu, conversations": ("mmlu", LoadOptions(chat=True), "phi-3-medium"),
    "bbh, conversations": ("bbh", LoadOptions(chat=True), "phi-3-medium"),
}


@pytest.mark.parametrize("n", [pytest.param(SOME, id="some"), pytest.param(None, id="all", marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", CASES)
def test_real_prompts_are_truncated_as_the_harness_does(
    case: str,
    n: int | None,
    models: dict[str, tuple[Path, GGUFFile, HFLM]],
    orin_data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a model of 2,048 positions, every request that is truncated; in the runner's tokens and the reference's."""
    task, options, name = CASES[case]
    loaded = get_task(task).load(LoadOptions(orin_data, shots=options.shots, scoring=options.scoring)).docs
    asked = spread_long(loaded, n)
    docs = [in_chat(doc) for doc in asked] if options.chat else asked
    directory, file, model = models[name]
    ours, theirs = Tokenizer.from_gguf(file), HFEncoder(directory, frozenset())
    assert file.n_ctx_train == model.max_length == POSITIONS
    fed = Fed(model, monkeypatch)
    found = [
        fitted(Prepared(get_task(task), encode_docs(docs, encoder), {}), POSITIONS, TooLong.TRUNCATE)
        for encoder in (ours, theirs)
    ]
    truncated = 0
    for doc, *questions in zip(docs, *(item.questions for item in found), strict=True):
        if not any(question.truncated for question in questions):
            continue
        truncated += 1
        prompt = doc.prompt if isinstance(doc.prompt, str) else ours.chats([doc.prompt])[0]
        expected = fed.doc(doc, prompt)
        for question in questions:
            assert inputs(question.request) == expected, doc.id
    assert truncated >= (SOME // 2 if n else 100)
