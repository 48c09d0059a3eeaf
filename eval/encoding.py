"""From questions to requests and from results to predictions. Both the runner and the reference go through here.

What depends on the tokenizer is behind ``Encoder``, which the runner and transformers each implement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from eval.tasks.base import Task
from eval.tasks.doc import Doc, Message, Prediction
from orin_runner.batching.tree import common_prefix
from orin_runner.errors import UserError
from orin_runner.requests import Generated, GenerateRequest, Request, Result, ScoreRequest, Tokens


class Encoder(Protocol):
    """Text to token ids."""

    stop: frozenset[int]

    @property
    def has_chat_template(self) -> bool: ...
    def chat(self, messages: Sequence[Message]) -> str: ...
    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]: ...
    def decode(self, tokens: Tokens) -> str: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A Doc and the request it became.

    Attributes:
        n_tokens: tokens of the prompt, the longest one where each choice has its own.
    """

    doc: Doc
    request: Request

    @property
    def n_tokens(self) -> int:
        if isinstance(self.request, ScoreRequest) and self.request.scored:
            ends = zip(self.request.continuations, self.request.scored, strict=True)
            return len(self.request.prompt) + max(len(tokens) - n for tokens, n in ends)
        return len(self.request.prompt)

    @property
    def digest(self) -> str:
        """sha256 over all prompt tokens, to compare tokenization without storing it."""
        request = self.request
        if isinstance(request, ScoreRequest) and request.scored:
            ends = zip(request.continuations, request.scored, strict=True)
            return tokens_digest(np.concatenate([request.prompt, *(tokens[:-n] for tokens, n in ends)]))
        return tokens_digest(request.prompt)


def encode_docs(docs: Sequence[Doc], encoder: Encoder) -> list[Question]:
    """Turn questions into requests.

    Args:
        docs: the questions of one task.
        encoder: the tokenizer.

    Raises:
        UserError: a chat is asked of a model without template, or an answer letter is not one token.
    """
    texts = []
    for doc in docs:
        if isinstance(doc.prompt, str):
            # lm-evaluation-harness moves white space at a context's end to the continuation (``_encode_pair``).
            texts.append(doc.prompt.rstrip() if _spelled_out(doc) else doc.prompt)
        elif encoder.has_chat_template:
            texts.append(encoder.chat(doc.prompt))
        else:
            raise UserError(f"{doc.id} is a conversation, and this model has no chat template")
    # A rendered conversation already has the special tokens the template wants.
    plain = [i for i, doc in enumerate(docs) if isinstance(doc.prompt, str)]
    chats = [i for i, doc in enumerate(docs) if not isinstance(doc.prompt, str)]
    prompts: dict[int, Tokens] = {}
    for indices, special in ((plain, True), (chats, False)):
        encoded = encoder.encode([texts[i] for i in indices], special=special)
        prompts.update(zip(indices, encoded, strict=True))
    single = _SingleTokens(encoder)
    pairs = _encode_pairs(docs, texts, prompts, encoder)
    candidates = _Candidates(encoder)
    questions = []
    for i, doc in enumerate(docs):
        if doc.mode == "generate":
            likely = candidates.of(doc.choices)
            request: Request = GenerateRequest(prompts[i], encoder.stop, doc.max_new_tokens, likely, doc.until)
        elif doc.single_token:
            request = ScoreRequest(prompts[i], single.of(doc, texts[i], prompts[i]))
        else:
            request = _request(doc, pairs[i])
        questions.append(Question(doc, request))
    return questions


Pair = tuple[Tokens, Tokens]  # context, continuation


def _spelled_out(doc: Doc) -> bool:
    """Whether whole texts are scored, not letters."""
    return doc.mode == "choose" and not doc.single_token


def _encode_pairs(
    docs: Sequence[Doc], texts: Sequence[str], prompts: dict[int, Tokens], encoder: Encoder
) -> dict[int, list[Pair]]:
    """Per question whose choices are whole texts, each choice's (context, continuation) as tokens.

    Context and continuation are encoded together and split after as many tokens as the context alone has; white space
    at the context's end belongs to the continuation (lm-evaluation-harness 0.4.13, ``TemplateLM._encode_pair``).

    Raises:
        UserError: a choice has no token of its own.
    """
    wanted: list[tuple[int, str, str]] = []  # question, context, continuation
    for i, doc in enumerate(docs):
        if _spelled_out(doc):
            contexts = doc.prompts or (doc.prompt if isinstance(doc.prompt, str) else texts[i],) * len(doc.choices)
            for text, choice in zip(contexts, doc.choices, strict=True):
                # A rendered conversation ends as its template wants it.
                end = len(text.rstrip()) if isinstance(doc.prompt, str) else len(text)
                wanted.append((i, text[:end], text[end:] + choice))
    found: dict[int, list[Pair]] = {}
    for special in (True, False):
        part = [w for w in wanted if isinstance(docs[w[0]].prompt, str) is special]
        whole = encoder.encode([context + continuation for _, context, continuation in part], special=special)
        own = [w[1] for w in part if docs[w[0]].prompts]
        alone = iter(encoder.encode(own, special=special))
        for (i, _, continuation), tokens in zip(part, whole, strict=True):
            context = next(alone) if docs[i].prompts else prompts[i]
            if len(tokens) <= len(context):
                raise UserError(f"{docs[i].id}: the choice {continuation!r} has no token of its own after its prompt")
            found.setdefault(i, []).append((context, tokens[len(context) :]))
    return found


def _request(doc: Doc, pairs: Sequence[Pair]) -> ScoreRequest:
    """One request for all choices; where each has its own context, what these share is the request's prompt."""
    if not doc.prompts:
        return ScoreRequest(pairs[0][0], tuple(continuation for _, continuation in pairs))
    shared = min(common_prefix(pairs[0][0], context) for context, _ in pairs)
    return ScoreRequest(
        prompt=pairs[0][0][:shared],
        continuations=tuple(np.concatenate([context[shared:], tokens]) for context, tokens in pairs),
        scored=tuple(len(tokens) for _, tokens in pairs),
    )


def _continuations(doc: Doc, text: str, prompt: Tokens, encoder: Encoder) -> tuple[Tokens, ...]:
    """The choices' tokens: prompt and choice are encoded together and split after the prompt's own tokens."""
    whole = encoder.encode([text + choice for choice in doc.choices], special=isinstance(doc.prompt, str))
    for choice, tokens in zip(doc.choices, whole, strict=True):
        if len(tokens) <= len(prompt) or not np.array_equal(tokens[: len(prompt)], prompt):
            raise UserError(
                f"{doc.id}: the tokenizer joins the prompt's end with the choice {choice!r}",
                "such a choice cannot be scored after this prompt",
            )
    return tuple(tokens[len(prompt) :] for tokens in whole)


class _SingleTokens:
    """Answer letters. Their ids are worked out once per last line of the prompts and used for every question."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._known: dict[tuple[str, tuple[str, ...]], tuple[Tokens, ...]] = {}

    def of(self, doc: Doc, text: str, prompt: Tokens) -> tuple[Tokens, ...]:
        key = (text.rsplit("\n", 1)[-1], doc.choices)
        if key not in self._known:
            found = _continuations(doc, text, prompt, self._encoder)
            for choice, tokens in zip(doc.choices, found, strict=True):
                if len(tokens) != 1:
                    raise UserError(
                        f"the answer {choice!r} is not one token after {key[0]!r} ({len(tokens)} tokens)",
                        "this task needs a tokenizer with single-token letters",
                    )
            self._known[key] = found
        return self._known[key]


class _Candidates:
    """Likely texts of an answer as tokens, as they stand right after the assistant's token.

    A model may begin its answer with or without a leading space; both spellings are candidates. They only save time.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def of(self, choices: tuple[str, ...]) -> tuple[Tokens, ...]:
        spaced = self._encoder.encode(list(choices), special=False)
        # A newline is a token of its own, so what follows it is encoded without the tokenizer's leading space.
        (newline,) = self._encoder.encode(["\n"], special=False)
        bare = [tokens[len(newline) :] for tokens in self._encoder.encode([f"\n{c}" for c in choices], special=False)]
        unique = {tokens.tobytes(): tokens for tokens in [*spaced, *bare] if len(tokens)}
        return tuple(unique.values())


def predict(task: Task, question: Question, result: Result, encoder: Encoder) -> Prediction:
    """What ``result`` says of ``question``."""
    doc = question.doc
    if isinstance(result, Generated):
        text = cut_before(encoder.decode(result.tokens), doc.until)
        answer = task.normalize(text)
        scores = task.score(doc, text)
        return Prediction(
            task=task.name,
            id=doc.id,
            group=doc.group,
            prediction=answer,
            target=doc.target,
            correct=next(iter(scores.values())) == 1.0,
            logprobs=None,
            text=text,
            margin=result.margin,
            n_tokens=question.n_tokens,
            tokens_sha256=question.digest,
            scores=scores,
        )
    sums = np.array([float(logprobs.sum()) for logprobs in result.logprobs])
    lengths = [len(logprobs) for logprobs in result.logprobs]
    compared = {metric: _normalised(metric, doc, sums, lengths) for metric in task.metrics}
    scores = {metric: _choice_score(metric, doc, values) for metric, values in compared.items()}
    values = compared[task.metrics[0]]
    ranked = np.sort(values)[::-1]
    return Prediction(
        task=task.name,
        id=doc.id,
        group=doc.group,
        prediction=doc.labels[int(np.argmax(values))],
        target=doc.target,
        correct=scores[task.metrics[0]] > 0.5,
        logprobs=tuple(sums.tolist()),
        text=None,
        margin=float(ranked[0] - ranked[1]) if len(ranked) > 1 else None,
        n_tokens=question.n_tokens,
        tokens_sha256=question.digest,
        scores=scores,
    )


def _normalised(
    metric: str, doc: Doc, sums: npt.NDArray[np.float64], lengths: Sequence[int]
) -> npt.NDArray[np.float64]:
    """What the choices are compared by under ``metric``: their sums, or these divided by their lengths.

    ``acc_norm`` and ``acc_bytes``: characters and UTF-8 bytes of the choice without the space in front
    (lm-evaluation-harness 0.4.13, ``ConfigurableTask.process_results``); ``acc_tokens``: tokens; others: the sums. A
    choice of no length is never the best, as in the harness.
    """
    texts = [choice.removeprefix(" ") for choice in doc.choices]
    if metric == "acc_norm":
        divisors = [len(text) for text in texts]
    elif metric == "acc_bytes":
        divisors = [len(text.encode()) for text in texts]
    elif metric == "acc_tokens":
        divisors = list(lengths)
    else:
        return sums
    return np.array([total / n if n else -np.inf for total, n in zip(sums, divisors, strict=True)])


def _choice_score(metric: str, doc: Doc, values: npt.NDArray[np.float64]) -> float:
    if metric == "mc2":
        # TruthfulQA's normalised probability mass of the true answers.
        mass = np.exp(values - values.max())
        true = np.array([label in doc.right for label in doc.labels])
        return float(mass[true].sum() / mass.sum())
    return float(doc.labels[int(np.argmax(values))] in (doc.right or (doc.target,)))


def unanswered(task: Task, question: Question, reason: str) -> Prediction:
    """The prediction of a question that was not asked."""
    doc = question.doc
    return Prediction(
        task=task.name,
        id=doc.id,
        group=doc.group,
        prediction="",
        target=doc.target,
        correct=False,
        logprobs=None,
        text=None,
        margin=None,
        n_tokens=question.n_tokens,
        tokens_sha256=question.digest,
        failed=reason,
        scores=dict.fromkeys(task.metrics, 0.0),
    )


def cut_before(text: str, until: Sequence[str]) -> str:
    """``text`` up to the first of ``until``."""
    return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]


def tokens_digest(tokens: Tokens) -> str:
    """sha256 over the ids as little-endian int32."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
