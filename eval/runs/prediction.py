"""What became of one question: a line of ``predictions.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from orin_runner.errors import UserError
from orin_runner.files import json_text
from orin_runner.schema import Schema, bounded

DAMAGED = "run the evaluation again"


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
            token's logit over the runner-up. None where nothing is compared.
        margin_scale: how many times as much rounding moves the margin as it moves one token: 1 for a text's lead; for
            choices the root of the sum, over the two best, of their tokens divided by the square of what their sums are
            divided by. None where there is no margin, and in runs that did not say it.
        n_tokens: tokens of the prompt.
        tokens_sha256: digest of the prompt's token ids, to compare tokenization without storing it.
        failed: why there is no answer, None where there is one. A failed item counts as wrong.
        scores: the item's value under each of the task's metrics, from 0 to 1, the first metric first.
        n_context: tokens of the longest sequence that the answer took: the prompt with the longest choice but its last
            token, or with the text. None in runs that did not say it.
        n_generated: generate: tokens of the text, stop token excluded.
        decode_steps, drafted: generate: as in ``orin_runner.requests.Generated``.
        truncated: tokens that the prompt lost at its beginning to fit into the model's context, the most of any
            choice's; 0 where it lost none.
        skipped: why it was not asked, None where it was. A skipped item is in no accuracy, and has no ``scores``.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"allow_inf_nan": False}

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
    margin_scale: float | None = None
    truncated: int = 0
    skipped: str | None = None

    @property
    def score(self) -> float:
        """The item's value under the task's first metric."""
        return next(iter(self.scores.values()), float(self.correct))

    def line(self) -> bytes:
        """Its line of ``predictions.jsonl``.

        Raises:
            ValueError: a number is not finite.
        """
        return json_text(asdict(self)).encode() + b"\n"


FORM = Schema(Prediction)
ROUNDING = 1e-9
"""A score that was divided may lie as far outside 0 to 1."""


def read_predictions(path: Path, lines: Iterable[bytes]) -> dict[tuple[str, str], Prediction]:
    """Predictions by (task, id).

    Args:
        path: where the lines stand, for messages.
        lines: of ``predictions.jsonl``.

    Raises:
        UserError: a line is none, or a second one of the same item; the line is named.
    """
    found: dict[tuple[str, str], Prediction] = {}
    for number, line in enumerate(lines, start=1):
        try:
            prediction = _parsed(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a prediction ({error})", DAMAGED) from error
        key = (prediction.task, prediction.id)
        # An item that failed is asked again when the run is resumed.
        if key in found and found[key].failed is None:
            raise UserError(f"{path}, line {number}: {prediction.task} {prediction.id} stands there twice", DAMAGED)
        found[key] = prediction
    return found


def _parsed(line: bytes) -> Prediction:
    found = FORM.parse(line)
    counts = (found.n_tokens, found.n_context, found.n_generated, found.decode_steps, found.drafted, found.truncated)
    if not bounded((*counts, found.margin, found.margin_scale, *(found.logprobs or ()))):
        raise ValueError("a number is too large")
    if not all(-ROUNDING <= score <= 1 + ROUNDING for score in found.scores.values()):
        raise ValueError("'scores' are not from 0 to 1")
    return found
