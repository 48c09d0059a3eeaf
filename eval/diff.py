"""Two runs item by item: accuracy, agreement, flips, and what could explain them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.docs import Prediction
from eval.run import Run
from orin_runner.errors import UserError

SHOWN_FLIPS = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """One item of both runs."""

    run: Prediction
    reference: Prediction

    @property
    def same_tokens(self) -> bool:
        return self.run.tokens_sha256 == self.reference.tokens_sha256

    @property
    def agrees(self) -> bool:
        return self.run.prediction == self.reference.prediction


def align(run: Run, reference: Run) -> dict[str, list[Pair]]:
    """The items of both runs, per task, in the run's order.

    Raises:
        UserError: the runs do not hold the same tasks and items.
    """
    shots = [r.header.get("settings", {}).get("shots") for r in (run, reference)]
    if shots[0] != shots[1]:
        raise UserError(
            f"the runs asked with different --shots: {shots[0] or 'default'} and {shots[1] or 'default'}",
            "use the same --shots for both",
        )
    missing = [key for key in run.predictions if key not in reference.predictions]
    extra = [key for key in reference.predictions if key not in run.predictions]
    if missing or extra:
        (task, item), where = (missing[0], reference.directory) if missing else (extra[0], run.directory)
        raise UserError(
            f"the runs do not hold the same items: {len(missing) + len(extra)} differ, first {task} {item}, "
            f"which {where} lacks",
            "use the same tasks, --limit and --shots for both",
        )
    pairs: dict[str, list[Pair]] = {}
    for key, prediction in run.predictions.items():
        other = reference.predictions[key]
        if prediction.target != other.target:
            raise UserError(
                f"{key[0]} {key[1]} has target {prediction.target!r} in one run, {other.target!r} in the other"
            )
        pairs.setdefault(key[0], []).append(Pair(prediction, other))
    return pairs


def diff(run: Run, reference: Run) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        A JSON object: ``same_checkpoint`` (None where a run does not know its checkpoint), ``mean_drop`` in points, and
        per task what ``compare`` returns.

    Raises:
        UserError: the runs do not match.
    """
    pairs = align(run, reference)
    window = run.header.get("model", {}).get("window") or reference.header.get("model", {}).get("window")
    tasks = {task: compare(items, window) for task, items in pairs.items()}
    digests = [r.header.get("model", {}).get("checkpoint_sha256") for r in (run, reference)]
    drops = [section["drop_points"] for section in tasks.values()]
    return {
        "run": str(run.directory),
        "reference": str(reference.directory),
        "same_checkpoint": None if None in digests else digests[0] == digests[1],
        "mean_drop": sum(drops) / len(drops) if drops else 0.0,
        "tasks": tasks,
    }


def compare(pairs: Sequence[Pair], window: int | None) -> dict[str, Any]:
    """One task's comparison.

    Args:
        pairs: its items.
        window: the model's sliding window; prompts longer than that are counted apart.
    """
    flips = sorted((pair for pair in pairs if not pair.agrees), key=lambda pair: -(pair.run.margin or 0.0))
    section = _counts(pairs)
    section["max_logprob_difference"] = max(
        (
            abs(a - b)
            for pair in pairs
            if pair.run.logprobs is not None and pair.reference.logprobs is not None
            for a, b in zip(pair.run.logprobs, pair.reference.logprobs, strict=True)
        ),
        default=None,
    )
    texts = [pair for pair in pairs if pair.run.text is not None and pair.reference.text is not None]
    section["texts"] = len(texts)
    section["identical_texts"] = sum(pair.run.text == pair.reference.text for pair in texts)
    section["same_token_ids"] = sum(pair.same_tokens for pair in pairs)
    if window:
        section["beyond_window"] = _counts([pair for pair in pairs if pair.run.n_tokens > window])
        section["within_window"] = _counts([pair for pair in pairs if pair.run.n_tokens <= window])
    section["flips"] = [
        {
            "id": pair.run.id,
            "run": pair.run.prediction,
            "reference": pair.reference.prediction,
            "target": pair.run.target,
            "margin": pair.run.margin,
            "reference_margin": pair.reference.margin,
            "n_tokens": pair.run.n_tokens,
            "same_token_ids": pair.same_tokens,
        }
        for pair in flips
    ]
    return section


def _counts(pairs: Iterable[Pair]) -> dict[str, Any]:
    items = list(pairs)
    n = len(items)
    right = sum(pair.run.correct for pair in items)
    reference_right = sum(pair.reference.correct for pair in items)
    return {
        "items": n,
        "accuracy": right / n if n else None,
        "reference_accuracy": reference_right / n if n else None,
        "drop_points": 100.0 * (reference_right - right) / n if n else 0.0,
        "agreement": sum(pair.agrees for pair in items) / n if n else None,
    }
