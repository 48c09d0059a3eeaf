"""What lm-evaluation-harness's ``hf`` model feeds to its network, and what our requests feed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from eval.tasks.doc import Doc
from orin_runner.requests import GenerateRequest, Request

MOST_SCORED = 48
"""Rows of logits that the network's stand-in gives; no continuation here is longer."""


class Fed:
    """The harness's ``hf`` model with a network that only writes down its inputs.

    Args:
        model: of batch size 1, so that no input is padded.
    """

    def __init__(self, model: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
        assert model.batch_size == 1
        self._model = model
        self._inputs: list[list[int]] = []
        monkeypatch.setattr(model, "_model_call", self._score)
        monkeypatch.setattr(model, "_model_generate", self._generate)

    def pair(self, context: list[int], continuation: list[int]) -> list[int]:
        """The input for a continuation, whose last token is none of it."""
        return self._only(self._model._loglikelihood_tokens([(("", ""), context, continuation)], disable_tqdm=True))

    def doc(self, doc: Doc, prompt: str) -> list[list[int]]:
        """The input for each choice, or for the text.

        Args:
            doc: the question.
            prompt: its prompt, rendered.
        """
        if doc.mode == "generate":
            arguments = {"until": list(doc.until), "max_gen_toks": doc.max_new_tokens}
            return [self._only(self._model.generate_until([_instance("generate_until", prompt, arguments)], True))]
        prompts = doc.prompts or (prompt,) * len(doc.choices)
        asked = [_instance("loglikelihood", *pair) for pair in zip(prompts, doc.choices, strict=True)]
        return [self._only(self._model.loglikelihood([one], disable_tqdm=True)) for one in asked]

    def _only(self, _result: object) -> list[int]:
        (found,) = self._inputs
        self._inputs.clear()
        return found

    def _score(self, ids: torch.Tensor, **_: Any) -> torch.Tensor:
        self._inputs.append(ids[0].tolist())
        return torch.zeros(1, min(MOST_SCORED, ids.shape[1]), self._model.vocab_size)

    def _generate(self, context: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> torch.Tensor:
        assert bool(attention_mask.all())
        self._inputs.append(context[0].tolist())
        return context


def _instance(kind: str, *arguments: Any) -> Instance:
    return Instance(kind, {}, arguments, 0)


def inputs(request: Request) -> list[list[int]]:
    """The same of our request: all but the last token of each continuation behind its context, or the prompt."""
    if isinstance(request, GenerateRequest):
        return [request.prompt.tolist()]
    return [np.concatenate([request.prompt, tokens])[:-1].tolist() for tokens in request.continuations]
