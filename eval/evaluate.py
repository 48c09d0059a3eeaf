"""One task: load and tokenize it, run it on an engine, judge and write the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from eval.encoding import Encoder, Question, encode_docs, predict, unanswered
from eval.report.section import task_report
from eval.runs.run import RunWriter
from eval.tasks.base import LoadOptions, Task, in_chat
from eval.tasks.doc import Prediction
from eval.tasks.multiple_choice import MultipleChoice
from orin_runner.engine.engine import Progress, RunStats
from orin_runner.errors import UserError
from orin_runner.requests import Generated, GenerateRequest, Request, Result, Unfit, context_tokens, longest_path


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task's questions as requests, and the seconds it took to get there (``data``, ``tokenize``)."""

    task: Task
    questions: list[Question]
    clocks: dict[str, float]


@dataclass(frozen=True, slots=True)
class Status:
    """How far a task is.

    Attributes:
        done: items answered, those of ``resumed`` included.
        right: how many of them are correct.
        items: of the task.
        computed: tokens computed so far.
        unique, sent: tokens of all that is asked, and of the texts so far; 0 until they are counted.
        resumed: items that needed no answer, because an earlier run gave it or memory does not allow one.
        texts: some are texts, whose length is not known before.
    """

    done: int
    right: int
    items: int
    computed: int
    unique: int
    sent: int
    resumed: int
    texts: bool = False

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1: of the tokens, or of the answers where they are ahead or texts."""
        answers = (self.done - self.resumed) / max(1, self.items - self.resumed)
        return answers if self.texts or self.computed >= self.unique else max(answers, self.computed / self.unique)

    @property
    def saved(self) -> float:
        """Share of the tokens sent that is not computed, if each unique token still missing is computed once."""
        return max(0.0, 1.0 - max(self.computed, self.unique) / self.sent) if self.sent else 0.0


OnStatus = Callable[[Status], None]


def prepare(task: Task, options: LoadOptions, encoder: Encoder, n_positions: int) -> Prepared:
    """Load and tokenize ``task``.

    Args:
        n_positions: longest sequence the model is made for.

    Raises:
        UserError: data or tokenizer are not usable, or a prompt is longer than the model's context.
    """
    started = time.perf_counter()
    if options.scoring is not None and not isinstance(task, MultipleChoice):
        raise UserError(f"{task.name} is scored in one way only", "leave --scoring out")
    docs = task.load(options)
    if options.chat:
        docs = [in_chat(doc) for doc in docs]
    if not docs:
        raise UserError(f"{task.name} has no questions here", "check the files that --data names")
    loaded = time.perf_counter()
    questions = encode_docs(docs, encoder)
    for question in questions:
        needed = longest_path(question.request)
        if needed > n_positions:
            raise UserError(
                f"{task.name} {question.doc.id} needs {needed} tokens of context, the model has {n_positions}",
                "use fewer --shots, or leave the item out",
            )
    return Prepared(task, questions, {"data": loaded - started, "tokenize": time.perf_counter() - loaded})


class Runner(Protocol):
    """What answers requests: ``orin_runner.engine.engine.Engine`` or ``orin_runner.workers.supervisor.Supervisor``."""

    stats: RunStats

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Result | Unfit] | Progress]: ...


def evaluate(
    prepared: Prepared,
    encoder: Encoder,
    runner: Runner,
    writer: RunWriter,
    clocks: dict[str, float],
    on_status: OnStatus,
    limit: int | None = None,
) -> dict[str, Any]:
    """Run a prepared task and write its predictions. Items that the writer knows from before are not asked again.

    Ctrl-C ends the task where it is; its section then covers what is answered and says how much is not.

    Args:
        clocks: seconds already spent for this run (``start``, ``load``).
        on_status: called as answers arrive.
        limit: context tokens that memory allows; questions that need more are written as failed.

    Returns:
        The task's section of ``report.json``.
    """
    task, questions = prepared.task, prepared.questions
    predictions: dict[int, Prediction] = {}
    asked = []
    for i, question in enumerate(questions):
        known = writer.known.get((task.name, question.doc.id))
        if known is not None:
            if (known.target, known.tokens_sha256) != (question.doc.target, question.digest):
                raise UserError(f"{task.name} {question.doc.id} is another question than in the run to resume")
            predictions[i] = known
            continue
        needed = context_tokens(question.request)
        if limit is not None and needed > limit:
            predictions[i] = unanswered(task, question, f"needs {needed} tokens of context, memory allows {limit}")
            writer.write(predictions[i])
        else:
            asked.append(i)
    resumed, score = len(predictions), 0.0
    right = sum(prediction.correct for prediction in predictions.values())
    computed = unique = sent = 0
    texts: list[Generated] = []
    generated = any(isinstance(question.request, GenerateRequest) for question in questions)
    interrupted = False
    try:
        for event in runner.run([questions[i].request for i in asked]):
            if isinstance(event, Progress):
                computed, unique, sent = event.computed, event.unique, event.sent
            else:
                before = time.perf_counter()
                i, result = asked[event[0]], event[1]
                if isinstance(result, Unfit):
                    prediction = unanswered(task, questions[i], result.reason)
                else:
                    prediction = predict(task, questions[i], result, encoder)
                if isinstance(result, Generated):
                    texts.append(result)
                writer.write(prediction)
                predictions[i] = prediction
                right += prediction.correct
                score += time.perf_counter() - before
            on_status(Status(len(predictions), right, len(questions), computed, unique, sent, resumed, generated))
    except KeyboardInterrupt:
        interrupted = True
    missing = len(questions) - len(predictions)
    if missing and not interrupted:
        raise RuntimeError(f"{missing} of {len(questions)} requests came back unanswered")
    stats = runner.stats
    if interrupted:  # perhaps after the last answer, in the self-check: the runner's statistics are not complete
        stats = replace(stats, sent=sent, unique=unique, computed=computed)
    ordered = [predictions[i] for i in sorted(predictions)]
    near = sum(p.margin is not None and p.margin < stats.near_tie for p in ordered)
    tokens = {"sent": stats.sent, "unique": stats.unique, "computed": stats.computed, "checked": stats.checked}
    if stats.restored:
        tokens["restored"] = stats.restored
    # Predictions are made while the device computes, so their time is part of these clocks already.
    all_clocks = {**clocks, **prepared.clocks, **stats.clocks, "score": score}
    for name in ("prefill", "decode"):
        part = min(score, all_clocks.get(name, 0.0))
        all_clocks[name] = all_clocks.get(name, 0.0) - part
        score -= part
    section = task_report(ordered, tokens, all_clocks, near, stats.noise, resumed)
    section["near_tie"] = stats.near_tie
    section["device"] = device_section(stats)
    if texts:
        section["greedy"] = {
            "texts": len(texts),
            "without_decoding": sum(text.decode_steps == 0 for text in texts),
            "decode_steps_per_text": sum(text.decode_steps for text in texts) / len(texts),
            "drafted_share": sum(text.drafted for text in texts) / max(1, sum(len(text.tokens) for text in texts)),
        }
    return {**section, "unanswered": missing} if interrupted else section


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
        "submit_s": round(device.submit_s, 4),
        "alone_s": round(device.alone_s, 4),
        "wait_s": round(device.wait_s, 4),
        "idle_s": round(device.idle_s, 4),
    }
