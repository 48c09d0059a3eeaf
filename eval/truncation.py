"""Prompts longer than the model's context: they lose their beginning, are skipped, or refused.

Protocol: ``HFLM._loglikelihood_tokens`` and ``HFLM.generate_until`` of lm-evaluation-harness 0.4.13. What is cut is cut
from the left, BOS and all. Each choice's own length decides how much of the prompt stays in front of it; a text keeps
room for as many tokens as it may have. How much memory there is does not matter here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from enum import Enum

import numpy as np

from eval.encoding import Question, score_request
from eval.evaluate import Prepared
from orin_runner.errors import UserError
from orin_runner.requests import GenerateRequest, Request, context_tokens


class TooLong(Enum):
    """What becomes of prompts that, with what is asked behind them, are longer than the model's context."""

    TRUNCATE = "truncate"
    SKIP = "skip"
    REFUSE = "refuse"


def shortened(request: Request, n_positions: int) -> Request | None:
    """``request`` without as much of its beginning as it needs more than ``n_positions`` tokens of context.

    The last token of a continuation is only predicted: prompt and continuation may have one token more than the
    context. A prompt keeps one token at least.

    Returns:
        None where a continuation, or the longest text allowed, leaves no room for that one.
    """
    beyond = context_tokens(request) - n_positions
    if beyond <= 0:
        return request
    if isinstance(request, GenerateRequest):
        return replace(request, prompt=request.prompt[beyond:]) if beyond < len(request.prompt) else None
    if max(request.n_scored) > n_positions:
        return None
    paths = [np.concatenate([request.prompt, tokens])[-n_positions - 1 :] for tokens in request.continuations]
    return score_request([(path[:-n], path[-n:]) for path, n in zip(paths, request.n_scored, strict=True)])


def fitted(item: Prepared, n_positions: int, rule: TooLong) -> Prepared:
    """``item`` with no request that needs more than ``n_positions`` tokens of context.

    A question that is to be truncated and cannot be, because one of its choices alone is longer, is skipped.

    Args:
        n_positions: longest sequence the model is made for.

    Raises:
        UserError: a prompt is too long and ``rule`` is ``REFUSE``, or the texts leave no room for any prompt.
    """
    began = time.perf_counter()
    questions: list[Question] = []
    skipped: list[tuple[Question, str]] = []
    for question in item.questions:
        request = question.request
        needed = context_tokens(request)
        if needed <= n_positions:
            questions.append(question)
            continue
        if isinstance(request, GenerateRequest) and request.max_new_tokens >= n_positions:
            raise UserError(
                f"{item.task.name}: texts of up to {request.max_new_tokens:,} tokens leave no room for a prompt in the "
                f"model's {n_positions:,} tokens of context",
                f"--max-new-tokens {n_positions // 2}",
            )
        found = shortened(request, n_positions) if rule is TooLong.TRUNCATE else None
        if found is not None:
            questions.append(replace(question, request=found, truncated=needed - n_positions))
        else:
            skipped.append((question, f"needs {needed:,} tokens of context, the model has {n_positions:,}"))
    if skipped and rule is TooLong.REFUSE:
        longest = max((question for question, _ in skipped), key=lambda question: context_tokens(question.request))
        raise UserError(
            f"{len(skipped):,} {_about(item, n_positions)}; the longest, {longest.doc.id}, needs "
            f"{context_tokens(longest.request):,}",
            "--too-long truncate or skip, or fewer --shots",
        )
    clocks = {**item.clocks, "tokenize": item.clocks.get("tokenize", 0.0) + time.perf_counter() - began}
    return replace(item, questions=questions, clocks=clocks, skipped=skipped)


def too_long_lines(item: Prepared, n_positions: int) -> list[str]:
    """What was done to the prompts that were too long, a line for each way; none where all fit.

    Args:
        item: ``fitted``.
        n_positions: as there.
    """
    cut = [question.truncated for question in item.questions if question.truncated]
    about = _about(item, n_positions)
    lines = []
    if cut:
        lines.append(
            f"{len(cut):,} {about}: they lose their beginning, at most {max(cut):,} tokens, as in "
            f"lm-evaluation-harness (--too-long truncate)"
        )
    if item.skipped:
        why = ", and a choice of each alone, too" if cut else ""
        lines.append(f"{len(item.skipped):,} {about}{why}: they are not asked and in no accuracy")
    return lines


def _about(item: Prepared, n_positions: int) -> str:
    return (
        f"of {item.n_items:,} {item.task.name} prompts, with what is asked behind them, are longer than the model's "
        f"{n_positions:,} tokens of context"
    )


def n_truncated(item: Prepared) -> int:
    """How many prompts were truncated."""
    return sum(question.truncated > 0 for question in item.questions)
