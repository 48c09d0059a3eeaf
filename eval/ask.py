"""From questions to requests and from results to predictions. Both the runner and the reference go through here.

What depends on the tokenizer is behind ``Encoder``, which the runner and transformers each implement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eval.docs import Doc, Message, Prediction
from eval.tasks.base import Task
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
    """A Doc and the request it became."""

    doc: Doc
    request: Request


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
            texts.append(doc.prompt)
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
    candidates = _Candidates(encoder)
    questions = []
    for i, doc in enumerate(docs):
        if doc.mode == "generate":
            request: Request = GenerateRequest(prompts[i], encoder.stop, doc.max_new_tokens, candidates.of(doc.choices))
        elif doc.single_token:
            request = ScoreRequest(prompts[i], single.of(doc, texts[i], prompts[i]))
        else:
            request = ScoreRequest(prompts[i], _continuations(doc, texts[i], prompts[i], encoder))
        questions.append(Question(doc, request))
    return questions


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
    prompt = question.request.prompt
    if isinstance(result, Generated):
        text = encoder.decode(result.tokens)
        answer = task.normalize(text)
        return Prediction(
            task=task.name,
            id=doc.id,
            group=doc.group,
            prediction=answer,
            target=doc.target,
            correct=answer == doc.target,
            logprobs=None,
            text=text,
            margin=result.margin,
            n_tokens=len(prompt),
            tokens_sha256=tokens_digest(prompt),
        )
    sums = [float(logprobs.sum()) for logprobs in result.logprobs]
    best = int(np.argmax(sums))
    ranked = sorted(sums, reverse=True)
    return Prediction(
        task=task.name,
        id=doc.id,
        group=doc.group,
        prediction=doc.labels[best],
        target=doc.target,
        correct=doc.labels[best] == doc.target,
        logprobs=tuple(sums),
        text=None,
        margin=ranked[0] - ranked[1] if len(ranked) > 1 else None,
        n_tokens=len(prompt),
        tokens_sha256=tokens_digest(prompt),
    )


def unanswered(task: Task, question: Question, reason: str) -> Prediction:
    """The prediction of a question that was not asked."""
    doc, prompt = question.doc, question.request.prompt
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
        n_tokens=len(prompt),
        tokens_sha256=tokens_digest(prompt),
        failed=reason,
    )


def tokens_digest(tokens: Tokens) -> str:
    """sha256 over the ids as little-endian int32."""
    return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()
