"""What became of one question: a line of ``predictions.jsonl``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Prediction:
    """What became of one Doc.

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
        n_context: tokens of the longest sequence that the answer took: the prompt with the longest choice but its last
            token, or with the text. None in runs that did not say it.
        n_generated: generate: tokens of the text, stop token excluded.
        decode_steps, drafted: generate: as in ``orin_runner.requests.Generated``.
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
    n_context: int | None = None
    n_generated: int | None = None
    decode_steps: int | None = None
    drafted: int | None = None

    @property
    def score(self) -> float:
        """The item's value under the task's first metric."""
        return next(iter(self.scores.values()), float(self.correct))
