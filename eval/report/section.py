"""Numbers of a finished task: accuracy, standard error, per-group table, tokens, clocks, rates."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from eval.runs.prediction import Prediction
from orin_runner.runner import RunStats

CHALLENGE_2024 = "challenge 2024"
CHALLENGE_2024_BARE = "challenge 2024 without data"
"""The first draft of the 2024 rules left loading, templates and tokenizing out."""
CHALLENGE_2023 = "challenge 2023"


def mean_and_error(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, sample standard deviation / sqrt(n): lm-evaluation-harness's ``mean_stderr``.

    The error is 0 for fewer than two items. For 0/1 scores it is sqrt(p (1 - p) / (n - 1)).
    """
    mean = sum(scores) / len(scores)
    error = statistics.stdev(scores, mean) / math.sqrt(len(scores)) if len(scores) > 1 else 0.0
    return mean, error


def mean_and_pooled_error(groups: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Mean of all scores and its standard error, pooled within the groups.

    The mean weighs every score the same, so it is the groups' average weighted by their sizes. The error is
    sqrt(sum of squared deviations from the score's own group's mean / (scores - groups) / scores):
    lm-evaluation-harness 0.4.13's ``pooled_sample_stderr``, which it has for groups of tasks with ``weight_by_size``
    (``mmlu``, ``bbh_cot_fewshot``). With one group it is ``mean_and_error``'s.

    A group of one score adds nothing to either sum. Where all are such, nothing is known of how much scores of one
    group differ, and the error is ``mean_and_error``'s of all.

    Args:
        groups: scores of each group, none of them empty, at least one.
    """
    scores = [score for group in groups for score in group]
    within = len(scores) - len(groups)
    if not within:
        return mean_and_error(scores)
    means = [sum(group) / len(group) for group in groups]
    squares = sum((score - mean) ** 2 for group, mean in zip(groups, means, strict=True) for score in group)
    return sum(scores) / len(scores), math.sqrt(squares / within / len(scores))


def by_group(predictions: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """The predictions of each group, groups in the order in which they are met."""
    found: dict[str, list[Prediction]] = {}
    for prediction in predictions:
        found.setdefault(prediction.group, []).append(prediction)
    return found


def accuracy_table(predictions: Sequence[Prediction]) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Accuracy, standard error and items of all predictions together, and per group; zeros where there are none."""
    scores = {group: [p.score for p in members] for group, members in by_group(predictions).items()}
    table = {group: _accuracy([values]) for group, values in scores.items()}
    if not scores:
        return {"accuracy": 0.0, "stderr": 0.0, "items": 0}, {}
    return _accuracy(list(scores.values())), table


def _accuracy(groups: Sequence[Sequence[float]]) -> dict[str, float]:
    mean, stderr = mean_and_pooled_error(groups)
    return {"accuracy": mean, "stderr": stderr, "items": sum(map(len, groups))}


def metrics_table(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    """Mean and standard error of every metric of a task, errors pooled within groups."""
    names = list(dict.fromkeys(name for prediction in predictions for name in prediction.scores))
    groups = by_group(predictions).values()
    found = {name: mean_and_pooled_error([[p.scores.get(name, 0.0) for p in g] for g in groups]) for name in names}
    return {name: {"value": mean, "stderr": stderr} for name, (mean, stderr) in found.items()}


def task_report(
    predictions: Sequence[Prediction],
    tokens: dict[str, int],
    clocks: dict[str, float],
    answered: int | None = None,
) -> dict[str, Any]:
    """One task's section of ``report.json``.

    Args:
        predictions: every item's; those that were skipped are counted, and are in nothing else.
        tokens: ``sent``, ``unique``, ``computed``, ``checked``.
        clocks: seconds per stage; ``score``, the time to turn results into predictions, passes within ``prefill`` and
            ``decode``. ``inference`` is from the first request to the last score, and ``process`` from the start of the
            process to there; where they were not measured the stages are added up.
        answered: items that tokens and clocks are of; None where they are of all.

    Returns:
        The section, of a run that has not measured its noise.
    """
    asked = [prediction for prediction in predictions if prediction.skipped is None]
    total, table = accuracy_table(asked)
    spent = defaultdict(float, clocks)
    # Predictions are made while the device computes; they only count where they take longer than it does.
    answers = max(spent["prefill"] + spent["decode"], spent["score"])
    bare = spent["inference"] or spent["plan"] + spent["check"] + answers
    inference = spent["tokenize"] + bare
    shown = {name: seconds for name, seconds in clocks.items() if name != "process"}
    clocks = {
        **shown,
        CHALLENGE_2024: spent["data"] + inference,
        CHALLENGE_2024_BARE: bare,
        CHALLENGE_2023: spent["process"] or spent["start"] + spent["load"] + spent["data"] + inference,
    }
    return {
        "accuracy": total["accuracy"],
        "stderr": total["stderr"],
        "items": int(total["items"]),
        "failed": sum(prediction.failed is not None for prediction in asked),
        "skipped": len(predictions) - len(asked),
        "truncated": truncated_section(asked),
        "metrics": metrics_table(asked),
        "groups": table,
        "tokens": tokens,
        "clocks": {name: round(seconds, 4) for name, seconds in clocks.items()},
        "items_per_s": (total["items"] if answered is None else answered) / inference if inference else 0.0,
        "computed_tokens_per_s": tokens["computed"] / answers if answers else 0.0,
        "noise": None,
        "near_ties": None,
    }


def scores_section(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """The section of a task whose share of the run's tokens and seconds is not known."""
    whole = task_report(predictions, {"computed": 0}, {})
    names = ("accuracy", "stderr", "items", "failed", "skipped", "truncated", "metrics", "groups", "noise", "near_ties")
    return {**{name: whole[name] for name in names}, "tokens": None, "clocks": {}, "items_per_s": None}


def truncated_section(predictions: Sequence[Prediction]) -> dict[str, float] | None:
    """Accuracy of the items whose prompts were truncated, and the tokens these lost; None where there are none."""
    found = [prediction for prediction in predictions if prediction.truncated]
    if not found:
        return None
    return {**accuracy_table(found)[0], "tokens": sum(prediction.truncated for prediction in found)}


def token_counts(stats: RunStats) -> dict[str, int]:
    """A section's ``tokens``; ``restored`` only where the prompt cache has given any."""
    counts = {name: getattr(stats, name) for name in ("sent", "unique", "computed", "checked", "restored")}
    return counts if stats.restored else {name: n for name, n in counts.items() if name != "restored"}


def device_section(stats: RunStats) -> dict[str, float]:
    """What the decode calls for the answers took, and the time between them.

    ``answer_tokens`` and ``answer_s`` are their tokens and the time from beginning to end, all host work included but
    not what is computed again alone; ``step_tokens`` those of texts and of their drafts. Of several workers, one after
    another, all are sums; of replicas the counts are sums, the seconds those of the one that worked longest.
    """
    device, seconds = stats.device, stats.clocks.get("prefill", 0.0) + stats.clocks.get("decode", 0.0)
    return {
        "seconds": round(seconds, 4),
        "answer_tokens": device.tokens,
        "step_tokens": device.steps,
        "answer_s": round(seconds - stats.settle_s, 4),
        "calls": device.calls,
        "rows": device.rows,
        **{name: round(getattr(device, name), 4) for name in ("submit_s", "alone_s", "wait_s", "idle_s")},
    }


def greedy_section(predictions: Sequence[Prediction]) -> dict[str, float] | None:
    """What the greedy texts needed of decoding; None where none is known to have been one."""
    steps = [p.decode_steps for p in predictions if p.decode_steps is not None]
    if not steps:
        return None
    tokens = sum(p.n_generated or 0 for p in predictions)
    return {
        "texts": len(steps),
        "decode_steps_per_text": sum(steps) / len(steps),
        "drafted_share": sum(p.drafted or 0 for p in predictions) / max(1, tokens),
    }


def share_of_prompt_rate(section: dict[str, Any], tokens_per_s: float) -> float | None:
    """A task's tokens per second, checks apart, as a share of ``tokens_per_s``; None where nothing was computed.

    Args:
        section: of ``report.json``.
        tokens_per_s: of plain prompt processing on the same context (``orin_runner.engine.prompt_rate``).
    """
    device = section.get("device", {})
    seconds = device.get("answer_s", 0.0)
    return device["answer_tokens"] / seconds / tokens_per_s if seconds else None
