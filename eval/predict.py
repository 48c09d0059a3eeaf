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


def skipped(task: Task, question: Question, reason: str) -> Prediction:
    """The prediction of a question that is left out of what the task is judged by."""
    return replace(_prediction(task, question, "", {}, correct=False), skipped=reason)


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
        margin=result.margin if np.isfinite(result.margin) else None,
        margin_scale=1.0,
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
    lengths = np.array([len(logprobs) for logprobs in result.logprobs])
    divisors = {metric: _divisors(metric, doc, lengths) for metric in task.metrics}
    compared = {metric: _quotients(sums, divisor) for metric, divisor in divisors.items()}
    scores = {metric: _choice_score(metric, doc, values) for metric, values in compared.items()}
    first = task.metrics[0]
    values = compared[first]
    ranked = np.argsort(-values, kind="stable")
    known = len(ranked) > 1 and np.isfinite(values[ranked[:2]]).all()
    best, second = ranked[:2] if known else (ranked[0], ranked[0])
    noise = np.sqrt((lengths[[best, second]] / divisors[first][[best, second]] ** 2).sum()) if known else 0.0
    return _prediction(
        task,
        question,
        doc.labels[int(best)],
        scores,
        correct=scores[first] > 0.5,
        logprobs=tuple(sums.tolist()),
        margin=float(values[best] - values[second]) if known else None,
        margin_scale=float(noise) if known else None,
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
    margin_scale: float | None = None,
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
        margin_scale=margin_scale,
        n_tokens=question.n_tokens,
        tokens_sha256=question.digest,
        failed=failed,
        scores=scores,
        truncated=question.truncated,
        n_context=longest_path(question.request),
    )


def _divisors(metric: str, doc: Doc, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """What the choices' sums are divided by before they are compared under ``metric``.

    ``acc_norm`` and ``acc_bytes``: characters and UTF-8 bytes of the choice without the space in front
    (lm-evaluation-harness 0.4.13, ``ConfigurableTask.process_results``); ``acc_tokens``: tokens; others: nothing.
    """
    texts = [choice.removeprefix(" ") for choice in doc.choices]
    if metric == "acc_norm":
        return np.array([len(text) for text in texts], dtype=np.float64)
    if metric == "acc_bytes":
        return np.array([len(text.encode()) for text in texts], dtype=np.float64)
    return lengths.astype(np.float64) if metric == "acc_tokens" else np.ones(len(texts))


def _quotients(sums: npt.NDArray[np.float64], divisors: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A choice of no length is never the best, as in the harness."""
    values: npt.NDArray[np.float64] = np.divide(sums, divisors, out=np.full(len(sums), -np.inf), where=divisors > 0)
    return values


def _choice_score(metric: str, doc: Doc, values: npt.NDArray[np.float64]) -> float:
    if metric == "mc2":
        # TruthfulQA's normalised probability mass of the true answers.
        mass = np.exp(values - values.max())
        true = np.array([label in doc.right for label in doc.labels])
        return float(mass[true].sum() / mass.sum())
    return float(doc.labels[int(np.argmax(values))] in (doc.right or (doc.target,)))
