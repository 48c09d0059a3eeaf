"""The nouns of evaluation: one question, and what was made of its answer."""

from __future__ import annotations

from dataclasses import dataclass, field
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
        prompts: choose: one prompt per choice, where the choice stands in the prompt and the same text is scored after
            each; ``prompt`` is then not used. Empty otherwise.
        right: choose: labels of all choices that are true, where more than one may be.
        until: generate: texts that end the answer; it is cut before the first of them.
        references: generate: texts that are right as well as ``target``.
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
    prompts: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    until: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one Doc; one line of ``predictions.jsonl``.

    Attributes:
        task, id, group: of the Doc.
        prediction: the chosen label, or the text after the task's normalization.
        target: what it is compared with.
        correct: whether the task's first metric gives the item the full score (more than half of it for a probability).
        logprobs: choose: per choice, the sum of its tokens' natural-log probabilities.
        text: generate: the greedy text as decoded.
        margin: choose: best minus second-best of what the first metric compares. generate: smallest lead of any
            token's logit over the runner-up.
        n_tokens: tokens of the prompt.
        tokens_sha256: digest of the prompt's token ids, to compare tokenization without storing it.
        failed: why there is no answer, None where there is one. A failed item counts as wrong.
        scores: the item's value under each of the task's metrics, from 0 to 1, the first metric first.
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
    scores: dict[str, float] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The item's value under the task's first metric."""
        return next(iter(self.scores.values()), float(self.correct))
