"""Prompts of no token: answered as lm-evaluation-harness and transformers answer them, and failed where they do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import Encoder, encode_docs
from eval.harness.model import HarnessModel
from eval.hf_encoder import HFEncoder
from eval.tasks.doc import Doc
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Failed, GenerateRequest, Request, Scored, ScoreRequest
from orin_runner.text_generation import pipeline
from tests.support.started import started

ROUNDING = {"abs": 0.05, "rel": 5e-3}
"""As in test_harness.py: BF16 against float32."""
SYSTEM_ONLY: Any = ({"role": "system", "content": "Be brief."},)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> GGUFFile:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return GGUFFile.open(out)


@pytest.fixture(scope="module")
def encoder(gguf: GGUFFile) -> Tokenizer:
    return Tokenizer.from_gguf(gguf)


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> HFLM:
    return HFLM(pretrained=str(tiny), device="cpu", dtype="float32", batch_size=8)


@pytest.fixture
def ours(gguf: GGUFFile) -> Iterator[HarnessModel]:
    model = HarnessModel(gguf, lambda requests: started(gguf, requests))
    yield model
    model.close()


def doc(prompt: str, choices: tuple[str, ...], **more: Any) -> Doc:
    return Doc("1", "all", prompt, "choose", choices, tuple("AB"[: len(choices)]), "A", **more)


TEXTS = (" a dog", " a cat that sleeps")


@pytest.mark.parametrize(
    ("asked", "pairs"),
    [
        (doc("", TEXTS), [("", text) for text in TEXTS]),
        (doc("", ("A", "B"), single_token=True), [("", "A"), ("", "B")]),
        (doc("x", (" was here", " was here"), prompts=("", "Sarah")), [("", " was here"), ("Sarah", " was here")]),
        (doc("x", (" was here", " was here"), prompts=("", "")), [("", " was here"), ("", " was here")]),
    ],
)
def test_choices_after_nothing_are_scored_as_the_harness_scores_them(
    gguf: GGUFFile, encoder: Tokenizer, theirs: HFLM, asked: Doc, pairs: list[tuple[str, str]]
) -> None:
    """OpenBookQA with an empty stem, letters, a sentence that begins with the blank."""
    (question,) = encode_docs([asked], encoder)
    with started(gguf, [question.request]) as runner:
        ((_, result),) = runner.run([question.request])
        assert runner.deaths == 0
    assert isinstance(result, Scored)
    instances = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    expected = [logprob for logprob, _ in theirs.loglikelihood(instances, disable_tqdm=True)]
    assert [float(logprobs.sum()) for logprobs in result.logprobs] == pytest.approx(expected, **ROUNDING)


@pytest.mark.parametrize("whose", ["runner", "reference"])
def test_prompts_of_no_token_begin_with_the_prefix(encoder: Tokenizer, tiny: Path, whose: str) -> None:
    """Texts and conversations that a template makes nothing of, for both engines alike."""
    chosen: Encoder = encoder if whose == "runner" else HFEncoder(tiny, frozenset())
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    assert chosen.prefix == tokenizer.bos_token_id
    written = Doc("1", "all", "", "generate", (), (), "x", max_new_tokens=4)
    (question,) = encode_docs([written], chosen)
    assert question.request.prompt.tolist() == [tokenizer.bos_token_id]


def test_a_conversation_that_a_template_makes_nothing_of(encoder: Tokenizer) -> None:
    """A chat of a system message alone; where a model has neither BOS nor EOS, a runner is left to fail it."""
    silent = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    for prefix in (1, None):
        tokenizer = Tokenizer(encoder.vocabulary, silent, {}, frozenset(), prefix=prefix)
        made = Doc("1", "all", SYSTEM_ONLY, "generate", (), (), "x", max_new_tokens=4)
        (question,) = encode_docs([made], tokenizer)
        assert question.request.prompt.tolist() == ([] if prefix is None else [prefix])


def test_requests_without_a_token_fail_alone(gguf: GGUFFile) -> None:
    """The engine's own boundary, on llama.cpp: whoever sends them, and what else is sent."""
    empty, one = np.empty(0, np.int32), np.array([5], np.int32)
    requests: list[Request] = [
        ScoreRequest(empty, (one,)),
        ScoreRequest(one, (one, empty)),
        GenerateRequest(empty, frozenset(), 3),
        ScoreRequest(np.array([1, 1 << 30], np.int32), (one,)),
        ScoreRequest(one, (one,)),
    ]
    with started(gguf, requests) as runner:
        found = dict(runner.run(requests))
        assert runner.deaths == 0
    assert [isinstance(found[i], Failed) for i in range(5)] == [True] * 4 + [False]


def test_the_harness_gets_the_harness_s_own_answers(ours: HarnessModel, theirs: HFLM) -> None:
    """No context, one of white space that moves to the continuation, and one that the continuation brings along."""
    prefix = theirs.tokenizer.bos_token
    pairs = [("", "An empty context"), ("", f"{prefix}The market"), ("", " ")]
    requests = [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]
    expected = [logprob for logprob, _ in theirs.loglikelihood(requests, disable_tqdm=True)]
    assert [logprob for logprob, _ in ours.loglikelihood(requests)] == pytest.approx(expected, **ROUNDING)
    ((moved, _),) = ours.loglikelihood([Instance("loglikelihood", {}, ("  ", "An"), 0)])
    ((written, _),) = ours.loglikelihood([Instance("loglikelihood", {}, ("", "  An"), 0)])
    assert moved == pytest.approx(written)
    rolling = [Instance("loglikelihood_rolling", {}, (text,), i) for i, text in enumerate(["", "A short text."])]
    expected = theirs.loglikelihood_rolling(rolling, disable_tqdm=True)
    assert ours.loglikelihood_rolling(rolling) == pytest.approx(expected, **ROUNDING)
    arguments = {"until": [], "max_gen_toks": 6}
    texts = [ours.generate_until([Instance("generate_until", {}, (text, arguments), 0)]) for text in ("", prefix)]
    assert texts[0] == texts[1]


def test_the_pipeline_s_text_after_nothing_is_transformers_own(gguf: GGUFFile, tiny: Path) -> None:
    """An empty text begins with BOS there, too."""
    theirs = transformers.pipeline("text-generation", model=str(tiny), dtype="float32", device="cpu")
    arguments: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "return_full_text": False}
    expected = theirs(["", "The market opens"], **arguments)
    with pipeline("text-generation", model=gguf.path) as pipe:
        assert pipe(["", "The market opens"], **arguments) == expected
