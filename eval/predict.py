"""From results to predictions, for the runner and for the reference alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from eval.encoding import Encoder, Question
from eval.runs.prediction import Prediction
from eval.tasks.base import Task
from eval.tasks.doc import Doc
from orin_runner.requests import Generated, Result, Scored, longest_path


def predict(task: Task, question: Question, result: Result, encoder: Encoder) -> Prediction:
    """What ``result`` says of ``question``."""
    if isinstance(result, Generated):
        return _of_text(task, question, result, encoder)
    return _of_choices(task, question, result)


def unanswered(task: Task, question: Question, reason: str) -> Prediction:
    """The prediction of a question that was not asked."""
    return _prediction(task, question, "", dict.fromkeys(task.metrics, 0.0), correct=False, failed=reason)


def cut_before(text: str, until: Sequence[str]) -> str:
    """``text`` up to the first of ``until``."""
    return text[: min((at for stop in until if (at := text.find(stop)) >= 0), default=len(text))]


def _of_text(task: Task, question: Question, result: Generated, encoder: Encoder) -> Prediction:
    text = cut_before(encoder.decode(result.tokens), question.doc.until)
    scores = task.score(question.doc, text)
    prediction = _prediction(
        task,
        question,
        task.normalize(text),
        scores,
        correct=next(iter(scores.values())) == 1.0,
        text=text,
        margin=result.margin,
    )
    n = len(result.tokens)
    return replace(
        prediction,
        n_context=longest_path(question.request) + n,
        n_generated=n,
        decode_steps=result.decode_steps,
        drafted=result.drafted,
    )


def _of_choices(task: Task, question: Question, result: Scored) -> Prediction:
    doc = question.doc
    sums = np.array([float(logprobs.sum()) for logprobs in result.logprobs])
    lengths = [len(logprobs) for logprobs in result.logprobs]
    compared = {metric: _normalised(metric, doc, sums, lengths) for metric in task.metrics}
    scores = {metric: _choice_score(metric, doc, values) for metric, values in compared.items()}
    values = compared[task.metrics[0]]
    ranked = np.sort(values)[::-1]
    return _prediction(
        task,
        question,
        doc.labels[int(np.argmax(values))],
        scores,
        correct=scores[task.metrics[0]] > 0.5,
        logprobs=tuple(sums.tolist()),
        margin=float(ranked[0] - ranked[1]) if len(ranked) > 1 else None,
    )


def _prediction(
    task: Task,
    question: Question,
    answer: str,
    scores: dict[str, float],
    *,
    correct: bool,
    logprobs: tuple[float, ...] | None = None,
    text: str | None = None,
    margin: float | None = None,
    failed: str | None = None,
) -> Prediction:
    doc = question.doc
    return Prediction(
        task=task.name,
        id=doc.id,
        group=doc.group,
        prediction=answer,
        target=doc.target,
        correct=correct,
        logprobs=logprobs,
        text=text,
        margin=margin,
        n_tokens=question.n_tokens,
        tokens_sha256=question.digest,
        failed=failed,
        scores=scores,
        n_context=longest_path(question.request),
    )


def _normalised(
    metric: str, doc: Doc, sums: npt.NDArray[np.float64], lengths: Sequence[int]
) -> npt.NDArray[np.float64]:
    """What the choices are compared by under ``metric``: their sums, or these divided by their lengths.

    ``acc_norm`` and ``acc_bytes``: characters and UTF-8 bytes of the choice without the space in front
    (lm-evaluation-harness 0.4.13, ``ConfigurableTask.process_results``); ``acc_tokens``: tokens; others: the sums. A
    choice of no length is never the best, as in the harness.
    """
    texts = [choice.removeprefix(" ") for choice in doc.choices]
    if metric == "acc_norm":
        divisors = [len(text) for text in texts]
    elif metric == "acc_bytes":
        divisors = [len(text.encode()) for text in texts]
    elif metric == "acc_tokens":
        divisors = list(lengths)
    else:
        return sums
    return np.array([total / n if n else -np.inf for total, n in zip(sums, divisors, strict=True)])


def _choice_score(metric: str, doc: Doc, values: npt.NDArray[np.float64]) -> float:
    if metric == "mc2":
        # TruthfulQA's normalised probability mass of the true answers.
        mass = np.exp(values - values.max())
        true = np.array([label in doc.right for label in doc.labels])
        return float(mass[true].sum() / mass.sum())
    return float(doc.labels[int(np.argmax(values))] in (doc.right or (doc.target,)))
