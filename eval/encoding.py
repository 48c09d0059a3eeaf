"""From questions to requests, for the runner and for the reference alike.

What depends on the tokenizer is behind ``Encoder``, which the runner and transformers each implement.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol

import numpy as np

from eval.tasks.doc import Doc
from orin_runner.errors import UserError
from orin_runner.model.candidates import candidates
from orin_runner.model.chat_template import Message
from orin_runner.requests import GenerateRequest, Request, ScoreRequest, Tokens, begun, common_prefix

Encode = Callable[[Sequence[str]], list[Tokens]]
Pair = tuple[Tokens, Tokens]
"""Tokens of a context and of the continuation to score."""


class Encoder(Protocol):
    """Text to token ids."""

    stop: frozenset[int]
    prefix: int | None

    @property
    def has_chat_template(self) -> bool: ...
    def chats(self, conversations: Sequence[Sequence[Message]]) -> list[str]: ...
    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]: ...
    def decode(self, tokens: Tokens) -> str: ...


@dataclass(frozen=True, slots=True)
class Question:
    """A Doc and the request it became.

    Attributes:
        truncated: tokens of the prompt's beginning that the request lacks, the most of any choice's (``truncation``).
        n_tokens: tokens of the prompt, the longest one where each choice has its own.
    """

    doc: Doc
    request: Request
    truncated: int = 0

    @property
    def n_tokens(self) -> int:
        return len(self.request.prompt) + max((len(context) for context in self._own_contexts()), default=0)

    @property
    def digest(self) -> str:
        """sha256 over all prompt tokens as little-endian int32, to compare tokenization without storing it."""
        tokens = np.concatenate([self.request.prompt, *self._own_contexts()])
        return hashlib.sha256(tokens.astype("<i4").tobytes()).hexdigest()

    def _own_contexts(self) -> list[Tokens]:
        """What stands between the request's prompt and each choice; empty where the prompt is the choices' context."""
        request = self.request
        if not isinstance(request, ScoreRequest) or not request.scored:
            return []
        return [tokens[:-n] for tokens, n in zip(request.continuations, request.scored, strict=True)]


def encode_docs(docs: Sequence[Doc], encoder: Encoder) -> list[Question]:
    """Turn questions into requests.

    Args:
        docs: the questions of one task.
        encoder: the tokenizer.

    Raises:
        UserError: a chat is asked of a model without template, an answer letter is not one token, or a choice has no
            token of its own.
    """
    requests: dict[int, Request] = {}
    kinds = [(isinstance(doc.prompt, str), doc.special) for doc in docs]
    for kind in dict.fromkeys(kinds):
        part = [i for i, other in enumerate(kinds) if other == kind]
        # A rendered conversation already has the special tokens the template wants.
        found = _requests([docs[i] for i in part], encoder, special=all(kind))
        requests.update(zip(part, found, strict=True))
    return [Question(doc, requests[i]) for i, doc in enumerate(docs)]


def _requests(docs: Sequence[Doc], encoder: Encoder, *, special: bool) -> list[Request]:
    """The requests of questions that are all conversations, or all none.

    Args:
        special: let the tokenizer add its special tokens.
    """
    encode = partial(encoder.encode, special=special)
    texts = _texts(docs, encoder)
    choices = [_spelled_out(doc, text) for doc, text in zip(docs, texts, strict=True)]
    prompts = iter(encode([text for text, own in zip(texts, choices, strict=True) if not own]))
    pairs = iter(encode_pairs([pair for own in choices for pair in own], encode))
    letters = _Letters(encode)
    requests: list[Request] = []
    for doc, text, own in zip(docs, texts, choices, strict=True):
        if own:
            found = [with_context(pair, encoder.prefix) for pair in islice(pairs, len(own))]
            requests.append(_score_request(doc, own, found))
            continue
        tokens = next(prompts)
        prompt = begun(tokens, encoder.prefix)
        if doc.mode == "choose":
            requests.append(ScoreRequest(prompt, letters.of(doc, text, tokens)))
        else:
            likely = candidates(doc.choices, encoder.encode)
            requests.append(GenerateRequest(prompt, encoder.stop, doc.max_new_tokens, likely, doc.until))
    return requests


def prompt_texts(docs: Sequence[Doc], encoder: Encoder) -> list[str]:
    """Each question's prompt as the text that is tokenized: a conversation in the model's template, else as it is.

    Raises:
        UserError: a chat is asked of a model without template.
    """
    chats = iter(_texts([doc for doc in docs if not isinstance(doc.prompt, str)], encoder))
    return [doc.prompt if isinstance(doc.prompt, str) else next(chats) for doc in docs]


def _texts(docs: Sequence[Doc], encoder: Encoder) -> list[str]:
    """The prompts of questions that are all conversations, rendered together, or all none."""
    conversations = [doc.prompt for doc in docs if not isinstance(doc.prompt, str)]
    if not conversations:
        return [doc.prompt for doc in docs if isinstance(doc.prompt, str)]
    if not encoder.has_chat_template:
        reason = f"{docs[0].id} is a conversation, and this model has no chat template"
        raise UserError(reason, "name an instruct model, or ask tasks that are no conversations, without --chat")
    return encoder.chats(conversations)


def _spelled_out(doc: Doc, text: str) -> list[tuple[str, str]]:
    """Context and continuation of each choice that is scored as a whole text; none for letters and greedy texts.

    Args:
        doc: the question.
        text: its prompt, rendered.
    """
    if doc.mode != "choose" or doc.single_token:
        return []
    pairs = list(zip(doc.prompts or (text,) * len(doc.choices), doc.choices, strict=True))
    # A rendered conversation ends as its template wants it.
    return [move_space(*pair) for pair in pairs] if isinstance(doc.prompt, str) else pairs


def _score_request(doc: Doc, texts: Sequence[tuple[str, str]], pairs: Sequence[Pair]) -> ScoreRequest:
    """One request for all choices.

    Raises:
        UserError: a choice has no token of its own.
    """
    for (_, choice), (_, tokens) in zip(texts, pairs, strict=True):
        if not len(tokens):
            reason = f"{doc.id}: the choice {choice!r} has no token of its own after its prompt"
            raise UserError(reason, "mend that question, or score letters with --scoring letters")
    return score_request(pairs)


def score_request(pairs: Sequence[Pair]) -> ScoreRequest:
    """One request for several continuations; what their contexts share is its prompt, the rest is not scored."""
    first = pairs[0][0]
    shared = min(common_prefix(first, context) for context, _ in pairs)
    if all(len(context) == shared for context, _ in pairs):
        return ScoreRequest(first, tuple(tokens for _, tokens in pairs))
    return ScoreRequest(
        prompt=first[:shared],
        continuations=tuple(np.concatenate([context[shared:], tokens]) for context, tokens in pairs),
        scored=tuple(len(tokens) for _, tokens in pairs),
    )


def move_space(context: str, continuation: str) -> tuple[str, str]:
    """White space at the context's end belongs to the continuation (``encode_pairs``)."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def with_context(pair: Pair, prefix: int | None) -> Pair:
    """``pair`` with ``prefix`` for a context of no token, unless the continuation begins with it.

    Protocol: ``TemplateLM.loglikelihood`` of lm-evaluation-harness 0.4.13. Without a prefix nothing changes, and a
    runner fails such a request.
    """
    context, continuation = pair
    if not len(context) and len(continuation) and continuation[0] == prefix:
        return continuation[:1], continuation[1:]
    return begun(context, prefix), continuation


def encode_pairs(pairs: Sequence[tuple[str, str]], encode: Encode) -> list[Pair]:
    """Contexts and continuations as tokens, the way of lm-evaluation-harness.

    The two are encoded together and split after as many tokens as the context alone has. White space at the context's
    end has to be moved before (``move_space``). Protocol: ``TemplateLM._encode_pair`` of lm-evaluation-harness 0.4.13.

    Args:
        pairs: (context, continuation).
        encode: texts to tokens, with the special tokens that belong to them.

    Returns:
        (context, continuation), int32; a continuation is empty where the tokenizer joins all of it with the context.
    """
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    known = dict(zip(contexts, encode(contexts), strict=True))
    wholes = encode([context + continuation for context, continuation in pairs])
    # A view would keep the whole text's tokens.
    return [(known[text], whole[len(known[text]) :].copy()) for (text, _), whole in zip(pairs, wholes, strict=True)]


class _Letters:
    """Answer letters as tokens, worked out once per last line of the prompts and used for every question."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._known: dict[tuple[str, tuple[str, ...]], tuple[Tokens, ...]] = {}

    def of(self, doc: Doc, text: str, prompt: Tokens) -> tuple[Tokens, ...]:
        """The letters' tokens after ``text``, whose own tokens are ``prompt``."""
        line = text.rsplit("\n", 1)[-1]
        key = (line, doc.choices)
        if key not in self._known:
            wholes = self._encode([text + choice for choice in doc.choices])
            pairs = zip(doc.choices, wholes, strict=True)
            self._known[key] = tuple(_letter(doc, line, choice, prompt, whole) for choice, whole in pairs)
        return self._known[key]


def _letter(doc: Doc, line: str, choice: str, prompt: Tokens, whole: Tokens) -> Tokens:
    if len(whole) <= len(prompt) or not np.array_equal(whole[: len(prompt)], prompt):
        raise UserError(
            f"{doc.id}: the tokenizer joins the prompt's end with the choice {choice!r}",
            "such a choice cannot be scored after this prompt",
        )
    if len(whole) != len(prompt) + 1:
        raise UserError(
            f"the answer {choice!r} is not one token after {line!r} ({len(whole) - len(prompt)} tokens)",
            "this task needs a tokenizer with single-token letters",
        )
    return whole[len(prompt) :]
