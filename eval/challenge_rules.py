"""The challenges' rules on a run's settings. What is risky is said, never forbidden.

Source: the rules of github.com/cechallenge/cechallenge.github.io. Both years: no change of weights or of the model's
structure, and the clock runs over the whole data set, so that nothing may be computed before it. 2024:
``max_new_tokens=500``.
"""

from __future__ import annotations

from dataclasses import replace

from eval.evaluate import Prepared
from eval.tasks.challenge import MAX_NEW_TOKENS
from orin_runner.requests import GenerateRequest

IN_ITS_FORM = ("challenge", "exam")
"""Tasks that are run as the 2024 challenge is."""


def capped(item: Prepared, max_new_tokens: int | None) -> Prepared:
    """``item`` with no text longer than ``max_new_tokens``; None leaves each task its own bound."""
    if max_new_tokens is None:
        return item
    questions = [
        replace(question, request=replace(request, max_new_tokens=min(max_new_tokens, request.max_new_tokens)))
        if isinstance(request := question.request, GenerateRequest)
        else question
        for question in item.questions
    ]
    return replace(item, questions=questions)


def rule_warnings(
    item: Prepared, altered_values: int | None, *, quantized: bool, window_dropped: bool, prompt_cache: bool
) -> list[str]:
    """What a challenge's judges could object to, a line each; none for tasks in no challenge's form."""
    year = item.protocol or ("2024" if item.task.name in IN_ITS_FORM else None)
    if year is None:
        return []
    bound = min((q.request.max_new_tokens for q in item.questions if isinstance(q.request, GenerateRequest)), default=0)
    found = {
        f"max_new_tokens {bound} is less than the {MAX_NEW_TOKENS} of the organisers' script": 0
        < bound
        < MAX_NEW_TOKENS,
        "the prompt cache computes prefixes before the clock starts": prompt_cache,
        "this GGUF is quantized: a run of it is no submission": quantized,
        "nothing says whether this GGUF's weights are the checkpoint's": altered_values is None and not quantized,
        f"{altered_values or 0:,} weights are not the checkpoint's": bool(altered_values),
        "this file's layout drops the model's sliding window": window_dropped,
    }
    return [f"{item.task.name}, against the {year} rules: {line}" for line, true in found.items() if true]
