"""Numbers of a finished task: accuracy, standard error, per-group table, tokens, clocks, rates."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from eval.runs.prediction import Prediction
from orin_runner.requests import Generated
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


def accuracy_table(predictions: Iterable[Prediction]) -> dict[str, dict[str, float]]:
    """Accuracy, standard error and items per group, and of all items together under ``""``.

    The total weighs every item the same, so it is the groups' average weighted by their sizes.
    """
    scores: dict[str, list[float]] = {}
    for prediction in predictions:
        for group in ("", prediction.group):
            scores.setdefault(group, []).append(prediction.score)
    table = {}
    for group, values in scores.items():
        mean, stderr = mean_and_error(values)
        table[group] = {"accuracy": mean, "stderr": stderr, "items": len(values)}
    return table


def metrics_table(predictions: Sequence[Prediction]) -> dict[str, dict[str, float]]:
    """Mean and standard error of every metric of a task."""
    names = list(dict.fromkeys(name for prediction in predictions for name in prediction.scores))
    found = {name: mean_and_error([p.scores.get(name, 0.0) for p in predictions]) for name in names}
    return {name: {"value": mean, "stderr": stderr} for name, (mean, stderr) in found.items()}


def task_report(
    predictions: Sequence[Prediction],
    tokens: dict[str, int],
    clocks: dict[str, float],
    near_ties: int,
    noise: float,
    resumed: int = 0,
) -> dict[str, Any]:
    """One task's section of ``report.json``.

    Args:
        predictions: every item's.
        tokens: ``sent``, ``unique``, ``computed``, ``checked``.
        clocks: seconds per stage; ``score``, the time to turn results into predictions, passes within ``prefill`` and
            ``decode``.
        near_ties: items whose margin is below ``RunStats.near_tie``.
        noise: largest log-probability difference between an item in the tree and alone.
        resumed: items that were there before; tokens, clocks and rates are those of the others.
    """
    table = accuracy_table(predictions)
    total = table.pop("", {"accuracy": 0.0, "stderr": 0.0, "items": 0})
    spent = defaultdict(float, clocks)
    # Predictions are made while the device computes; they only count where they take longer than it does.
    answers = max(spent["prefill"] + spent["decode"], spent["score"])
    bare = spent["plan"] + spent["check"] + answers
    inference = spent["tokenize"] + bare
    clocks = {
        **clocks,
        CHALLENGE_2024: spent["data"] + inference,
        CHALLENGE_2024_BARE: bare,
        CHALLENGE_2023: spent["start"] + spent["load"] + spent["data"] + inference,
    }
    return {
        "accuracy": total["accuracy"],
        "stderr": total["stderr"],
        "items": int(total["items"]),
        "failed": sum(prediction.failed is not None for prediction in predictions),
        "metrics": metrics_table(predictions),
        "groups": table,
        "tokens": tokens,
        "clocks": {name: round(seconds, 4) for name, seconds in clocks.items()},
        "items_per_s": (total["items"] - resumed) / inference if inference else 0.0,
        "computed_tokens_per_s": tokens["computed"] / answers if answers else 0.0,
        "noise": noise,
        "near_ties": near_ties,
        "resumed": resumed,
    }


def token_counts(stats: RunStats) -> dict[str, int]:
    """A section's ``tokens``; ``restored`` only where the prompt cache has given any."""
    counts = {name: getattr(stats, name) for name in ("sent", "unique", "computed", "checked", "restored")}
    return counts if stats.restored else {name: n for name, n in counts.items() if name != "restored"}


def device_section(stats: RunStats) -> dict[str, float]:
    """What the decode calls for the answers took, and the time between them.

    ``answer_tokens`` and ``answer_s`` are their tokens and the time from beginning to end, all host work included but
    not what is computed again alone; of several workers, the last one's.
    """
    device, seconds = stats.device, stats.clocks.get("prefill", 0.0) + stats.clocks.get("decode", 0.0)
    return {
        "seconds": round(seconds, 4),
        "answer_tokens": device.tokens,
        "answer_s": round(seconds - stats.settle_s, 4),
        "calls": device.calls,
        "rows": device.rows,
        **{name: round(getattr(device, name), 4) for name in ("submit_s", "alone_s", "wait_s", "idle_s")},
    }


def greedy_section(texts: Sequence[Generated]) -> dict[str, float]:
    """How much of the greedy texts needed no decoding; ``texts`` are at least one."""
    tokens = sum(len(text.tokens) for text in texts)
    return {
        "texts": len(texts),
        "without_decoding": sum(text.decode_steps == 0 for text in texts),
        "decode_steps_per_text": sum(text.decode_steps for text in texts) / len(texts),
        "drafted_share": sum(text.drafted for text in texts) / max(1, tokens),
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
