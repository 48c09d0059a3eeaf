"""From lm-evaluation-harness's samples to a run's predictions.

Knows the form of its results only (``SampleResult``, ``EvalResults`` of lm_eval 0.4.13), and asks nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from eval.runs.prediction import Prediction
from orin_runner.requests import Tokens

NONE = "none"
"""The harness's filter of answers that are taken as they are."""
EQUAL = 1e-9
Sample = Mapping[str, Any]
Prompts = Callable[[Sequence[Any]], tuple[Tokens, int]]
"""By the arguments of a request: the tokens of its context, and how many were cut from its beginning."""


def metric_name(metric: str, kept: str) -> str:
    """What a run calls a metric of the harness: ``acc``, or with its filter ``exact_match,strict-match``."""
    return metric if kept == NONE else f"{metric},{kept}"


def item_metrics(task: str, samples: Sequence[Sample], results: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """The metrics of a task that are scores of its items: by their names in a run, metric and filter.

    Such a metric is from 0 to 1 in every sample, more is better, and the task's value is the mean of the samples'.
    Others, such as perplexities and F1 over a whole task, are no item's own.
    """
    values: dict[tuple[str, str], list[Any]] = {}
    for sample in samples:
        for metric in sample["metrics"]:
            values.setdefault((metric, sample["filter"]), []).append(sample[metric])
    n_docs = len({sample["doc_id"] for sample in samples})
    better = results["higher_is_better"].get(task, {})
    found = {}
    for (metric, kept), of_items in values.items():
        whole = results["results"][task].get(f"{metric},{kept}")
        if better.get(metric) and len(of_items) == n_docs and all(map(_is_score, of_items)) and _is_score(whole):
            mean = sum(map(float, of_items)) / n_docs
            if math.isclose(mean, float(whole), abs_tol=EQUAL):
                found[metric_name(metric, kept)] = (metric, kept)
    return found


def predictions(task: str, samples: Sequence[Sample], results: Mapping[str, Any], prompts: Prompts) -> list[Prediction]:
    """The predictions of a task, in the order of its documents; none where no metric is an item's own.

    Which of several requests a metric compares, and how far they are apart, the harness does not say: there are no
    margins. The prediction of a task with choices is the number of the one with the highest log-probability; of one
    with a single continuation it is the target where that is the greedy one, else empty.
    """
    metrics = item_metrics(task, samples, results)
    if not metrics:
        return []
    by_doc: dict[int, dict[str, Sample]] = {}
    for sample in samples:
        by_doc.setdefault(sample["doc_id"], {})[sample["filter"]] = sample
    kind = results["configs"][task]["output_type"]
    return [_prediction(task, kind, of_filters, metrics, prompts) for _, of_filters in sorted(by_doc.items())]


def _prediction(
    task: str,
    kind: str,
    of_filters: Mapping[str, Sample],
    metrics: Mapping[str, tuple[str, str]],
    prompts: Prompts,
) -> Prediction:
    """An item's.

    Args:
        kind: the task's ``output_type``.
        of_filters: its sample under each filter.
        metrics: of ``item_metrics``.
    """
    scores = {name: float(of_filters[kept][metric]) for name, (metric, kept) in metrics.items()}
    first_metric, first_filter = next(iter(metrics.values()))
    sample = of_filters[first_filter]
    asked = [prompts(arguments) for arguments in sample["arguments"]]
    contexts = {tokens.tobytes(): tokens for tokens, _ in asked}
    first = scores[metric_name(first_metric, first_filter)]
    target, prediction, logprobs, text = _answer(kind, sample)
    return Prediction(
        task=task,
        id=str(sample["doc_id"]),
        group=task,
        prediction=prediction,
        target=target,
        correct=first == 1.0 if logprobs is None else first > 0.5,
        logprobs=logprobs,
        text=text,
        margin=None,
        n_tokens=max(len(tokens) for tokens, _ in asked),
        tokens_sha256=hashlib.sha256(np.concatenate([*contexts.values()]).astype("<i4").tobytes()).hexdigest(),
        scores=scores,
        truncated=max(cut for _, cut in asked),
    )


def _answer(kind: str, sample: Sample) -> tuple[str, str, tuple[float, ...] | None, str | None]:
    """Target, prediction, log-probabilities and text of an item."""
    answers = [responses[0] for responses in sample["resps"]]
    if kind == "generate_until":
        return str(sample["target"]), _text(sample["filtered_resps"]), None, "\n".join(map(str, answers))
    if kind == "loglikelihood_rolling":
        return str(sample["target"]), "", tuple(map(float, answers)), None
    logprobs = tuple(float(logprob) for logprob, _ in answers)
    if kind == "loglikelihood" and len(answers) == 1:
        return str(sample["target"]), str(sample["target"]) if answers[0][1] else "", logprobs, None
    if "acc_mutual_info" in sample["metrics"]:
        logprobs = logprobs[: len(logprobs) // 2]  # behind them those without a context
    return _target(sample, len(logprobs)), str(int(np.argmax(logprobs))), logprobs, None


def _target(sample: Sample, n_choices: int) -> str:
    """The number of the right choice where the target is one, or is the text of one; else the target's own text."""
    target = sample["target"]
    if isinstance(target, list):
        return ", ".join(map(str, target))
    texts = [arguments[1].strip() for arguments in sample["arguments"][:n_choices]]
    if isinstance(target, str) and texts.count(target.strip()) == 1:
        return str(texts.index(target.strip()))
    return str(target)


def _text(filtered: Sequence[Any]) -> str:
    found = filtered[0] if len(filtered) == 1 else list(filtered)
    return found if isinstance(found, str) else str(found)


def _is_score(value: Any) -> bool:
    return isinstance(value, (bool, int, float, np.number, np.bool_)) and -EQUAL <= float(value) <= 1 + EQUAL
