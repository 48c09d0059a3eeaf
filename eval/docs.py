"""The nouns of evaluation: one question, and what was made of its answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Message = dict[str, str]
Mode = Literal["choose", "generate"]


@dataclass(frozen=True, slots=True)
class Doc:
    """One question, ready to be asked.

    Attributes:
        id: unique within its task.
        group: subject or sub-task, for the per-group table.
        prompt: plain text, or a conversation to be rendered with the model's chat template.
        mode: ``"choose"`` compares the log-probabilities of ``choices``; ``"generate"`` takes the greedy text.
        choices: choose: the continuations, verbatim, leading space included. generate: texts the answer is likely to
            be, for verification; they never change it.
        labels: choose: what each choice is called in the results (a letter, say).
        target: the right label, or the right text.
        single_token: choose: every choice must be one token (answer letters).
        max_new_tokens: generate: bound on the text's length.
    """

    id: str
    group: str
    prompt: str | tuple[Message, ...]
    mode: Mode
    choices: tuple[str, ...]
    labels: tuple[str, ...]
    target: str
    single_token: bool = False
    max_new_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one Doc; one line of ``predictions.jsonl``.

    Attributes:
        task, id, group: of the Doc.
        prediction: the chosen label, or the text after the task's normalization.
        target: what it is compared with.
        correct: whether they agree.
        logprobs: choose: per choice, the sum of its tokens' natural-log probabilities.
        text: generate: the greedy text as decoded.
        margin: choose: best minus second-best sum. generate: smallest lead of any token's logit over the runner-up.
        n_tokens: tokens of the prompt.
        tokens_sha256: digest of the prompt's token ids, to compare tokenization without storing it.
        failed: why there is no answer, None where there is one. A failed item counts as wrong.
    """

    task: str
    id: str
    group: str
    prediction: str
    target: str
    correct: bool
    logprobs: tuple[float, ...] | None
    text: str | None
    margin: float | None
    n_tokens: int
    tokens_sha256: str
    failed: str | None = None
