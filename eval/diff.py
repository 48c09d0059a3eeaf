"""Two runs item by item: accuracy, its drop and how sure that is, and the flips with their causes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval.intervals import mcnemar_p, mean_interval, paired_interval
from eval.runs.prediction import Prediction
from eval.runs.run import SAME_TO_COMPARE, Run
from orin_runner.errors import UserError

SHOWN_FLIPS = 10
MAX_DROP = 0.5
"""Points of average accuracy a run may lose: the challenge's rule."""

CAUSES = ("failed", "token_ids", "window", "near_tie", "unexplained")
"""What may explain a flip; the first that fits is its cause.

``failed``: one run has no answer. ``token_ids``: the prompts differ. ``window``: the prompt is longer than the model's
sliding window, which one of the runs does not honour. ``near_tie``: the lead was, in either run, less than rounding can
turn. ``unexplained``: none of these.
"""


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

    def cause(self, ignored_window: int | None, near_tie: float | None) -> str:
        """The first of ``CAUSES`` that fits; see ``compare`` for the arguments."""
        margins = [side.margin for side in (self.run, self.reference) if side.margin is not None]
        fits = (
            self.run.failed is not None or self.reference.failed is not None,
            not self.same_tokens,
            ignored_window is not None and self.run.n_tokens > ignored_window,
            near_tie is not None and any(margin < near_tie for margin in margins),
            True,
        )
        return CAUSES[fits.index(True)]


def align(run: Run, reference: Run) -> dict[str, list[Pair]]:
    """The items of both runs, per task, in the run's order.

    Raises:
        UserError: the runs do not hold the same tasks and items, or asked in different ways.
    """
    for name, default in SAME_TO_COMPARE.items():
        values = [r.header.get("settings", {}).get(name, default) for r in (run, reference)]
        if values[0] != values[1]:
            said = ["default" if value == default else "on" if value is True else str(value) for value in values]
            raise UserError(
                f"the runs asked with different --{name}: {said[0]} and {said[1]}", f"use the same --{name} for both"
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


def diff(run: Run, reference: Run, max_drop: float = MAX_DROP) -> dict[str, Any]:
    """Compare two runs.

    Returns:
        A JSON object: ``same_checkpoint`` (None where a run does not know its checkpoint), ``altered_values`` of the
        run, ``mean_drop`` in points with its 95 % ``mean_drop_interval``, whether it is ``within_max_drop``, per task
        what ``compare`` returns, and under ``all`` the same counts of all items together.

    Raises:
        UserError: the runs do not match.
    """
    pairs = align(run, reference)
    models = [r.header.get("model", {}) for r in (run, reference)]
    window = models[0].get("window") or models[1].get("window")
    one_ignores = {model.get("window_honoured") for model in models} == {True, False}
    tasks = {}
    for task, items in pairs.items():
        known = [r.report.get("tasks", {}).get(task, {}).get("near_tie") for r in (run, reference)]
        near_tie = max((value for value in known if value is not None), default=None)
        tasks[task] = compare(items, window, window if one_ignores else None, near_tie)
        tasks[task]["within_max_drop"] = tasks[task]["drop_points"] <= max_drop
    digests = [model.get("checkpoint_sha256") for model in models]
    drops = [section["drop_points"] for section in tasks.values()]
    intervals = [section["drop_interval"] for section in tasks.values()]
    mean = sum(drops) / len(drops) if drops else 0.0
    everything = _counts([pair for items in pairs.values() for pair in items])
    everything["causes"] = {cause: sum(section["causes"][cause] for section in tasks.values()) for cause in CAUSES}
    return {
        "run": str(run.directory),
        "reference": str(reference.directory),
        "reference_engine": reference.header.get("engine"),
        "reference_dtype": models[1].get("dtype"),
        "reference_window_off": bool(models[1].get("window")) and models[1].get("window_honoured") is False,
        "same_checkpoint": None if None in digests else digests[0] == digests[1],
        "altered_values": models[0].get("altered_values"),
        "max_drop": max_drop,
        "mean_drop": mean,
        "mean_drop_interval": mean_interval(drops, intervals) if drops else None,
        "within_max_drop": mean <= max_drop,
        "all": everything,
        "tasks": tasks,
    }


def diff_all(run: Run, references: Sequence[Run], max_drop: float = MAX_DROP) -> list[dict[str, Any]]:
    """Compare a run with each reference.

    Where two references differ in nothing but that one ignores the model's sliding window, the result of the one that
    honours it also has ``shares``: its drop as the sum of what the numerics took, which is the drop against the
    reference that treats the window as the run does, and what the window took, which is the rest.

    Raises:
        UserError: the runs do not match.
    """
    results = [diff(run, reference, max_drop) for reference in references]
    honours = [r.header.get("model", {}).get("window_honoured") for r in (run, *references)]
    kinds = [
        (result["reference_engine"], result["reference_dtype"], reference.header.get("model", {}).get("window"))
        for result, reference in zip(results, references, strict=True)
    ]
    for i, result in enumerate(results):
        off = next((k for k, kind in enumerate(kinds) if kind == kinds[i] and honours[k + 1] is False), None)
        if honours[i + 1] is not True or not kinds[i][2] or off is None or honours[0] is None:
            continue
        alike = result if honours[0] else results[off]
        result["shares"] = {
            "window_off": results[off]["reference"],
            "mean": _shares(result["mean_drop"], alike["mean_drop"]),
            "tasks": {
                task: _shares(section["drop_points"], alike["tasks"][task]["drop_points"])
                for task, section in result["tasks"].items()
            },
        }
    return results


def _shares(drop: float, numerics: float) -> dict[str, float]:
    return {"window": drop - numerics, "numerics": numerics}


def compare(
    pairs: Sequence[Pair], window: int | None, ignored_window: int | None = None, near_tie: float | None = None
) -> dict[str, Any]:
    """One task's comparison.

    Args:
        pairs: its items.
        window: the model's sliding window; prompts longer than that are counted apart.
        ignored_window: the same where exactly one of the runs does not honour it, else None.
        near_tie: margins below that may be turned by rounding; None where neither run has measured it.
    """
    # The flips that rounding cannot explain stand first.
    flips = sorted((pair for pair in pairs if not pair.agrees), key=lambda pair: -(pair.run.margin or 0.0))
    causes = [pair.cause(ignored_window, near_tie) for pair in flips]
    section = _counts(pairs)
    section["causes"] = {cause: causes.count(cause) for cause in CAUSES}
    section["near_tie"] = near_tie
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
            "cause": cause,
        }
        for pair, cause in zip(flips, causes, strict=True)
    ]
    return section


def _counts(pairs: Iterable[Pair]) -> dict[str, Any]:
    items = list(pairs)
    n = len(items)
    right = sum(pair.run.correct for pair in items)
    reference_right = sum(pair.reference.correct for pair in items)
    both = sum(pair.run.correct and pair.reference.correct for pair in items)
    lost, gained = reference_right - both, right - both
    interval = paired_interval(both, lost, gained, n - both - lost - gained) if n else None
    return {
        "items": n,
        "accuracy": right / n if n else None,
        "reference_accuracy": reference_right / n if n else None,
        "drop_points": 100.0 * (reference_right - right) / n if n else 0.0,
        "drop_interval": None if interval is None else [100.0 * limit for limit in interval],
        "agreement": sum(pair.agrees for pair in items) / n if n else None,
        "flips_in_all": n - sum(pair.agrees for pair in items),
        "lost": lost,
        "gained": gained,
        "mcnemar_p": mcnemar_p(lost, gained),
    }
