"""The Hugging Face reference: each row as transformers answers it alone, and what it says of its run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.evaluate import Prepared, prepare
from eval.hf_encoder import HFEncoder
from eval.reference import Reference, evaluate_reference
from eval.runs.writer import RunWriter
from eval.sent_tokens import distinct_tokens, sent_paths
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import RunError, UserError
from orin_runner.requests import (
    NOT_FINITE,
    Failed,
    Generated,
    GenerateRequest,
    Request,
    Result,
    ScoreRequest,
    Tokens,
)
from tests.support.choice_rows import choice_doc
from tests.support.runs import run_gguf

ALONE = 1
"""``batch_tokens`` that leave each request a batch of its own."""
TOGETHER = 100_000
"""``batch_tokens`` that no batch of these tests reaches."""


@pytest.fixture(scope="module")
def reference(tiny: Path) -> Reference:
    return Reference(tiny, "float32", "cpu")


@pytest.fixture(scope="module")
def exam(reference: Reference) -> Prepared:
    """Texts and letters."""
    return prepare(get_task("exam"), LoadOptions(limit=24), reference.encoder)


def asked(item: Prepared) -> list[Request]:
    return [question.request for question in item.questions]


def answers(reference: Reference, requests: list[Request], batch_tokens: int) -> list[Any]:
    """Results in the requests' order."""
    found = dict(reference.run(requests, batch_tokens))
    return [found[i] for i in range(len(requests))]


def rows_after(reference: Reference, tokens: Tokens, n: int) -> torch.Tensor:
    """The log-probabilities after each of the last ``n`` of ``tokens``, from one forward pass over these alone."""
    with torch.no_grad():
        logits = reference.model(input_ids=torch.tensor(tokens[None].astype(np.int64))).logits[0, -n:]
    return torch.log_softmax(logits.double(), dim=-1)


def test_the_reference_scores_the_last_tokens_only(reference: Reference) -> None:
    """Contexts in the continuations give what they give in prompts of their own."""
    doc = choice_doc("", (" opens late today.",) * 2, prompts=("The market in the north", "The old shop"))
    whole = [choice_doc(prompt, (doc.choices[0],) * 2) for prompt in doc.prompts]
    requests = [question.request for question in encode_docs([doc, *whole], reference.encoder)]
    both, *apart = answers(reference, requests, 4096)
    for i, one in enumerate(apart):
        assert both.logprobs[i] == pytest.approx(one.logprobs[0], abs=1e-4)


def test_a_long_prompt_does_not_cut_the_texts_beside_it(reference: Reference, watched: Watched, exam: Prepared) -> None:
    """With a prompt that leaves 4 tokens of the context in the batch, each text is what it is alone."""
    texts = [request for request in asked(exam) if isinstance(request, GenerateRequest)]
    stop, room = reference.encoder.stop, 4
    requests: list[Request] = [
        GenerateRequest(np.resize(texts[0].prompt, reference.n_positions - room), stop, 500),
        *(GenerateRequest(r.prompt, stop, 500) for r in sorted(texts, key=lambda r: len(r.prompt))[:3]),
    ]
    together, alone = answers(reference, requests, TOGETHER), answers(reference, requests, ALONE)
    for one, other in zip(together, alone, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()
        assert (one.stopped, one.decode_steps) == (other.stopped, other.decode_steps)
        assert one.margin == pytest.approx(other.margin, abs=1e-3)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
    long, *short = together
    assert (len(long.tokens), long.stopped) == (room, False), "the context's end ended it"
    assert [text.stopped for text in short] == [True] * 3
    assert min(len(text.tokens) for text in short) > room
    assert 0 < watched.longest <= reference.n_positions, "no row is padded beyond what the model is made for"


def test_a_prompt_that_fills_the_context_has_no_text(reference: Reference, exam: Prepared) -> None:
    """The engine takes it, too."""
    short = next(request for request in asked(exam) if isinstance(request, GenerateRequest))
    full = GenerateRequest(np.resize(short.prompt, reference.n_positions), short.stop, 500)
    nothing, text = answers(reference, [full, short], TOGETHER)
    assert (len(nothing.tokens), nothing.stopped, nothing.decode_steps) == (0, False, 0)
    assert text.stopped


def test_a_bound_of_the_request_is_its_own(reference: Reference, exam: Prepared) -> None:
    """Texts of one batch end at 2, at 5 and by themselves."""
    prompt = next(request.prompt for request in asked(exam) if isinstance(request, GenerateRequest))
    requests: list[Request] = [GenerateRequest(prompt, reference.encoder.stop, bound) for bound in (2, 5, 0, 500)]
    *cut, nothing, whole = answers(reference, requests, TOGETHER)
    assert [text.tokens.tolist() for text in cut] == [whole.tokens[:2].tolist(), whole.tokens[:5].tolist()]
    assert [text.stopped for text in (*cut, whole)] == [False, False, True]
    assert (len(nothing.tokens), nothing.decode_steps) == (0, 0)


def test_a_stop_token_is_a_step_of_margin_and_log_probability(reference: Reference, exam: Prepared) -> None:
    """Recomputed in one pass over prompt and text, each ended by the token that was the least sure of all."""
    whole = [request for request in asked(exam) if isinstance(request, GenerateRequest)][:6]
    requests: list[Request] = []
    for request, text in zip(whole, answers(reference, list(whole), TOGETHER), strict=True):
        rows = rows_after(reference, np.concatenate([request.prompt, text.tokens]), len(text.tokens) + 1)
        top = rows.topk(2).values
        least = int((top[:, 0] - top[:, 1]).argmin())
        ids = rows.argmax(-1).tolist()
        requests.append(GenerateRequest(request.prompt, request.stop | {ids[least]}, 500))
    decided_by_the_stop = 0
    for asked_for, text in zip(requests, answers(reference, requests, TOGETHER), strict=True):
        assert text.stopped
        rows = rows_after(reference, np.concatenate([asked_for.prompt, text.tokens]), len(text.tokens) + 1)
        top = rows.topk(2).values
        leads = (top[:, 0] - top[:, 1]).numpy()
        assert text.margin == pytest.approx(leads.min(), abs=1e-3)
        assert text.logprob == pytest.approx(float(top[:, 0].sum()), abs=1e-3)
        stop_matters = leads[:-1].min(initial=np.inf) > leads[-1] + 0.01 and float(top[-1, 0]) < -0.01
        decided_by_the_stop += bool(stop_matters)
    assert decided_by_the_stop >= 2, "else a margin without the stop step would not be seen"


class Watched:
    """What a reference's model is given while this is open."""

    def __init__(self, reference: Reference) -> None:
        self.padded: list[int] = []
        self.longest = 0
        self.tokens = 0
        self.seconds = 0.0
        self._began = 0.0
        model = reference.model
        self._hooks = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        ]

    def _before(self, _: object, _args: object, kwargs: dict[str, Any]) -> None:
        ids, mask = kwargs["input_ids"], kwargs.get("attention_mask")
        self.padded.append(ids.numel())
        # Without a mask ``generate`` has found nothing to mask.
        self.tokens += ids.numel() if mask is None else int(mask[:, -ids.shape[1] :].sum())
        self.longest = max(self.longest, 0 if mask is None else mask.shape[1])
        self._began = time.perf_counter()

    def _after(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._began

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()


@pytest.fixture
def watched(reference: Reference) -> Iterator[Watched]:
    watch = Watched(reference)
    yield watch
    watch.close()


def choices(reference: Reference) -> list[Request]:
    """Whole choices of different number and length, some alike, some with contexts of their own."""
    docs = [
        choice_doc("The market in the north", (" opens late today.", " opens late.", " is closed", " is open")),
        choice_doc("The market in the", (" north opens", " north opens", " south")),
        choice_doc("", (" opens late today.",) * 2, prompts=("The market in the north " * 9, "The old shop")),
        choice_doc("The old", (" shop", " boat")),
    ]
    return [question.request for question in encode_docs(docs, reference.encoder)]


@pytest.mark.parametrize("batch_tokens", [ALONE, 60, 200])
def test_a_batch_holds_no_more_padded_tokens_than_allowed(
    reference: Reference, watched: Watched, batch_tokens: int
) -> None:
    """Continuations are rows of the batch, as long as they are; one request alone may exceed the bound."""
    requests = choices(reference)
    answers(reference, requests, ALONE)
    largest = {padded for padded in watched.padded if padded > batch_tokens}
    watched.padded.clear()
    answers(reference, requests, batch_tokens)
    assert {padded for padded in watched.padded if padded > batch_tokens} == largest
    assert len(watched.padded) == len(requests) if batch_tokens == ALONE else len(watched.padded) < len(requests)


def test_computed_is_what_the_model_was_given(reference: Reference, watched: Watched, exam: Prepared) -> None:
    """Prompts, continuations and the texts' own tokens; not padding, nor what runs along behind a text that ended."""
    requests = [*asked(exam)[:12], *choices(reference)]
    first = requests[0]
    assert isinstance(first, GenerateRequest)
    whole = answers(reference, [first], ALONE)[0].tokens
    word = reference.encoder.decode(whole[:5]).split()[-1]
    requests += [
        GenerateRequest(first.prompt, first.stop, 500, (), (word,)),
        GenerateRequest(first.prompt, first.stop, 4),
    ]
    watched.tokens = 0
    found = answers(reference, requests, ALONE)
    by_text, by_bound = found[-2:]
    assert (by_text.stopped, by_bound.stopped) == (True, False)
    assert len(by_text.tokens) < len(whole)
    assert [text.decode_steps for text in (by_text, by_bound)] == [len(by_text.tokens) - 1, 3]
    assert reference.computed == watched.tokens
    alone = reference.computed
    sent = [
        path
        for pair in zip(requests, answers(reference, requests, TOGETHER), strict=True)
        for path in sent_paths(*pair)
    ]
    assert reference.computed == alone == sum(map(len, sent))


def all_prefixes(requests: list[Request], results: list[Result]) -> tuple[int, int]:
    """(sent, unique) by writing out every path, and every beginning of one."""
    paths: list[tuple[int, ...]] = []
    for request, result in zip(requests, results, strict=True):
        prompt = tuple(request.prompt.tolist())
        if isinstance(request, ScoreRequest):
            paths += {(*prompt, *tokens[:-1].tolist()) for tokens in request.continuations}
        else:
            assert isinstance(result, Generated)
            tokens = result.tokens.tolist()
            paths.append((*prompt, *(tokens if result.stopped else tokens[:-1])))
    return sum(map(len, paths)), len({path[:n] for path in paths for n in range(1, len(path) + 1)})


def test_a_section_counts_as_a_runs_does(
    reference: Reference, watched: Watched, exam: Prepared, tiny: Path, tmp_path: Path
) -> None:
    """Tokens as the engine counts them for the same questions; what was not measured is not said."""
    with RunWriter(tmp_path / "run", {}) as writer:
        began = time.perf_counter()
        spent = {"start": 1.0, "load": 2.0}
        section = evaluate_reference(exam, reference, writer, spent, 8192, lambda _: None, lambda: 77.0)
        wall = time.perf_counter() - began
    in_the_model = watched.seconds
    tokens, clocks = section["tokens"], section["clocks"]
    requests = asked(exam)
    sent, unique = all_prefixes(requests, answers(reference, requests, 8192))
    assert (tokens["sent"], tokens["unique"], tokens["computed"]) == (sent, unique, sent)
    convert(Checkpoint.open(tiny), tmp_path / "tiny.gguf", Options())
    _, stats = run_gguf(tmp_path / "tiny.gguf", requests, draft=False)
    assert (stats.sent, stats.unique) == (sent, unique)
    assert unique < sent
    assert (section["noise"], section["near_ties"]) == (None, None)
    assert (section["split"], section["rows"]) == (None, 480)
    assert in_the_model <= clocks["prefill"] + clocks["decode"] <= wall
    assert clocks["prefill"] > 0 < clocks["decode"]
    assert 0 < clocks["score"] < clocks["prefill"] + clocks["decode"]
    assert section["computed_tokens_per_s"] == pytest.approx(sent / (clocks["prefill"] + clocks["decode"]), rel=0.01)
    assert clocks["prefill"] + clocks["decode"] <= clocks["inference"] + 1e-3
    assert clocks["inference"] == clocks["challenge 2024 without data"] <= wall
    assert clocks["challenge 2023"] == 77.0, "as the process's clock has it"


def test_a_section_of_scores_sends_each_continuation(reference: Reference) -> None:
    """Prompts once with each continuation, once for those of a single token: never less than what was computed."""
    requests = choices(reference)
    results = answers(reference, requests, TOGETHER)
    sent, unique = all_prefixes(requests, results)
    paths = [path for request, result in zip(requests, results, strict=True) for path in sent_paths(request, result)]
    assert (sum(map(len, paths)), distinct_tokens(paths)) == (sent, unique)
    assert reference.computed == sent > unique


def test_rows_that_are_not_finite_are_failures(tiny: Path) -> None:
    """Of one token's embedding: what has that token in it failed, scored or generated; all others are as before."""
    model = Reference(tiny, "float32", "cpu")
    item = prepare(get_task("exam"), LoadOptions(limit=24), model.encoder)
    requests = asked(item)
    before = answers(model, requests, TOGETHER)
    read = [
        {
            *request.prompt.tolist(),
            *(result.tokens.tolist() if isinstance(result, Generated) else np.concatenate(request.continuations)),
        }
        for request, result in zip(requests, before, strict=True)
    ]
    texts = [isinstance(request, GenerateRequest) for request in requests]
    tokens = set.union(*read)
    token = next(
        token
        for token in sorted(tokens - {0})
        if {(token in own, text) for own, text in zip(read, texts, strict=True)}
        == {(True, True), (True, False), (False, True), (False, False)}
        and all(token in request.prompt for request, own in zip(requests, read, strict=True) if token in own)
    )
    for value in (np.nan, np.inf):
        with torch.no_grad():
            model.model.get_input_embeddings().weight[token, 3] = value
        for own, old, new in zip(read, before, answers(model, requests, TOGETHER), strict=True):
            if token in own:
                assert new == Failed(NOT_FINITE)
            elif isinstance(new, Generated):
                assert new.tokens.tolist() == old.tokens.tolist()
            else:
                assert np.allclose(np.concatenate(new.logprobs), np.concatenate(old.logprobs))


def test_what_torch_cannot_compute_ends_the_run(
    reference: Reference, exam: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most often it lacks memory, and says so in a RuntimeError."""

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr(reference.model, "forward", full)
    with pytest.raises(RunError, match=r"a batch: CUDA out of memory\.; a lower --batch-tokens needs less memory"):
        answers(reference, asked(exam), TOGETHER)


def test_a_template_without_an_end_is_refused(tiny: Path) -> None:
    """transformers would render it for as long as it takes; the runner's limits hold for the reference, too."""
    encoder = HFEncoder(tiny, frozenset())
    chat = [{"role": "user", "content": "Who?"}]
    assert encoder.chats([chat, chat]) == ["<|user|>\nWho?<|end|>\n<|assistant|>\n"] * 2
    encoder._tokenizer.chat_template = (
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    )
    with pytest.raises(UserError, match="takes more than 1 s for one conversation"):
        encoder.chats([chat])
