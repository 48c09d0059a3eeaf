"""One task: load and tokenize it, run it on an engine, judge and write the answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from eval.encoding import Encoder, Question, encode_docs
from eval.predict import predict, unanswered
from eval.progress import OnStatus, Status
from eval.report.section import device_section, greedy_section, task_report, token_counts
from eval.runs.prediction import Prediction
from eval.runs.run import RunWriter
from eval.tasks.base import LoadOptions, Task, in_chat
from eval.tasks.multiple_choice import MultipleChoice
from orin_runner.errors import UserError
from orin_runner.requests import Generated, GenerateRequest, Result, Unfit, context_tokens, longest_path
from orin_runner.runner import Progress, Runner


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task's questions as requests, and the seconds it took to get there (``data``, ``tokenize``)."""

    task: Task
    questions: list[Question]
    clocks: dict[str, float]


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


def evaluate(
    prepared: Prepared,
    encoder: Encoder,
    runner: Runner,
    writer: RunWriter,
    clocks: dict[str, float],
    on_status: OnStatus,
) -> dict[str, Any]:
    """Run a prepared task and write its predictions.

    Items that the writer knows from before are not asked again. Items that need more context than the runner has are
    written as failed. Ctrl-C ends the task where it is; its section then covers what is answered and says how much is
    not.

    Args:
        clocks: seconds already spent for this run (``start``, ``load``).
        on_status: called as answers arrive.

    Returns:
        The task's section of ``report.json``.

    Raises:
        UserError: an item that the writer knows is another question.
    """
    answers = _Answers(prepared, encoder, writer, on_status)
    asked = list(answers.open_questions(runner.max_context))
    answers.resumed = len(answers.predictions)
    interrupted = False
    try:
        requests = [prepared.questions[i].request for i in asked]
        for k, result in runner.run(requests, answers.on_progress):
            answers.take(asked[k], result)
    except KeyboardInterrupt:
        interrupted = True
    missing = len(prepared.questions) - len(answers.predictions)
    if missing and not interrupted:
        raise RuntimeError(f"{missing} of {len(prepared.questions)} requests came back unanswered")
    stats, so_far = runner.stats, answers.progress
    if interrupted:  # perhaps after the last answer, in the self-check: the runner's statistics are not complete
        stats = replace(stats, sent=so_far.sent, unique=so_far.unique, computed=so_far.computed)
    ordered = [prediction for _, prediction in sorted(answers.predictions.items())]
    spent = {**clocks, **prepared.clocks, **stats.clocks, "score": answers.seconds}
    for stage in ("prefill", "decode"):  # where nothing was asked
        spent.setdefault(stage, 0.0)
    section = task_report(
        ordered,
        token_counts(stats),
        spent,
        near_ties=sum(p.margin is not None and p.margin < stats.near_tie for p in ordered),
        noise=stats.noise,
        resumed=answers.resumed,
    )
    section["near_tie"] = stats.near_tie
    section["device"] = device_section(stats)
    if answers.texts:
        section["greedy"] = greedy_section(answers.texts)
    return {**section, "unanswered": missing} if interrupted else section


class _Answers:
    """A task's predictions as they become known; each is written at once.

    Attributes:
        predictions: by the question's number.
        texts: the greedy texts among the results.
        progress: how far the runner is.
        seconds: spent on predictions, while the runner computes.
        resumed: items that were not asked.
    """

    def __init__(self, prepared: Prepared, encoder: Encoder, writer: RunWriter, on_status: OnStatus) -> None:
        self._task, self._questions = prepared.task, prepared.questions
        self._encoder, self._writer, self._on_status = encoder, writer, on_status
        self._generates = any(isinstance(question.request, GenerateRequest) for question in prepared.questions)
        self._right = 0
        self.predictions: dict[int, Prediction] = {}
        self.texts: list[Generated] = []
        self.progress = Progress(0, 0, 0)
        self.seconds = 0.0
        self.resumed = 0

    def open_questions(self, max_context: int) -> Iterator[int]:
        """The questions to ask: not those that an earlier run has answered, and not those that memory does not allow.

        Raises:
            UserError: what the earlier run answered is another question.
        """
        for i, question in enumerate(self._questions):
            task, doc = self._task.name, question.doc
            known = self._writer.known.get((task, doc.id))
            needed = context_tokens(question.request)
            if known is not None:
                if (known.target, known.tokens_sha256) != (doc.target, question.digest):
                    raise UserError(f"{task} {doc.id} is another question than in the run to resume")
                self._keep(i, known)
            elif needed > max_context:
                reason = f"needs {needed} tokens of context, memory allows {max_context}"
                self._write(i, unanswered(self._task, question, reason))
            else:
                yield i

    def take(self, i: int, result: Result | Unfit) -> None:
        """The runner has answered question ``i``."""
        before = time.perf_counter()
        question = self._questions[i]
        if isinstance(result, Unfit):
            self._write(i, unanswered(self._task, question, result.reason))
        else:
            self._write(i, predict(self._task, question, result, self._encoder))
        if isinstance(result, Generated):
            self.texts.append(result)
        self.seconds += time.perf_counter() - before
        self._say()

    def on_progress(self, progress: Progress) -> None:
        """The runner is so far."""
        self.progress = progress
        self._say()

    def _write(self, i: int, prediction: Prediction) -> None:
        self._writer.write(prediction)
        self._keep(i, prediction)

    def _keep(self, i: int, prediction: Prediction) -> None:
        self.predictions[i] = prediction
        self._right += prediction.correct

    def _say(self) -> None:
        done, tokens = len(self.predictions), self.progress
        counts = (done, self._right, len(self._questions), tokens.computed, tokens.unique, tokens.sent, self.resumed)
        self._on_status(Status(*counts, texts=self._generates))
