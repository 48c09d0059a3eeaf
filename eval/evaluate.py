"""One task: load and tokenize it, run it on an engine, judge and write the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from eval.encoding import Encoder, Question, encode_docs
from eval.predict import predict, unanswered
from eval.progress import OnStatus, Status
from eval.report.section import device_section, greedy_section, task_report, token_counts
from eval.runs.part import TaskCost
from eval.runs.prediction import Prediction
from eval.runs.run import RunWriter
from eval.tasks.base import LoadOptions, Task, in_chat
from eval.tasks.multiple_choice import MultipleChoice
from orin_runner.errors import UserError
from orin_runner.requests import GenerateRequest, Result, Unfit, context_tokens, longest_path
from orin_runner.runner import Progress, Runner


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task's questions as requests.

    Attributes:
        clocks: seconds it took to get there (``data``, ``tokenize``).
        split, rows: of ``Loaded``; None where the questions come from elsewhere.
    """

    task: Task
    questions: list[Question]
    clocks: dict[str, float]
    split: str | None = None
    rows: int | None = None

    @property
    def source(self) -> dict[str, Any]:
        """What a section of ``report.json`` says of where the questions come from."""
        return {"split": self.split, "rows": self.rows}


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
    found = task.load(options)
    docs = [in_chat(doc) for doc in found.docs] if options.chat else found.docs
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
    clocks = {"data": loaded - started, "tokenize": time.perf_counter() - loaded}
    return Prepared(task, questions, clocks, found.split, found.rows)


def evaluate(
    prepared: Prepared,
    encoder: Encoder,
    runner: Runner,
    writer: RunWriter,
    clocks: dict[str, float],
    on_status: OnStatus,
    process_clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run a prepared task and write its predictions.

    Items that the writer knows from before are not asked again. Items that need more context than the runner has are
    written as failed. Ctrl-C ends the task where it is; its section then covers what is answered and says how much is
    not.

    Args:
        clocks: seconds already spent for this run (``start``, ``load``).
        on_status: called as answers arrive.
        process_clock: seconds since the process began, those spent on other tasks left out.

    Returns:
        The task's section of ``report.json``. Tokens, clocks, noise and greedy texts are those of all parts of the run
        that have left a record.

    Raises:
        UserError: an item that the writer knows is another question.
    """
    answers = _Answers(prepared, encoder, runner, writer, on_status)
    asked = list(answers.open_questions())
    known = {**clocks, **prepared.clocks}
    interrupted = False
    began = time.perf_counter()

    def cost() -> TaskCost:
        now = {"inference": time.perf_counter() - began, "score": answers.seconds}
        if process_clock is not None:
            now["process"] = process_clock()
        spent = {**known, "prefill": 0.0, "decode": 0.0, **runner.stats.clocks, **now}
        return TaskCost(answers.answered, spent, runner.stats)

    def on_progress(progress: Progress) -> None:
        answers.on_progress(progress)
        writer.spent(prepared.task.name, cost())

    try:
        requests = [prepared.questions[i].request for i in asked]
        for k, result in runner.run(requests, on_progress):
            answers.take(asked[k], result)
    except KeyboardInterrupt:
        interrupted = True
    own = cost()
    writer.spent(prepared.task.name, own, last=True)
    missing = len(prepared.questions) - len(answers.predictions)
    if missing and not interrupted:
        raise RuntimeError(f"{missing} of {len(prepared.questions)} requests came back unanswered")
    earlier = writer.earlier.get(prepared.task.name)
    total = own if earlier is None else earlier.together(own)
    ordered = [prediction for _, prediction in sorted(answers.predictions.items())]
    section = task_report(
        ordered,
        token_counts(total.stats),
        total.clocks,
        near_ties=sum(p.margin is not None and p.margin < total.stats.near_tie for p in ordered),
        noise=total.stats.noise,
        answered=total.items,
    )
    section |= prepared.source
    section["near_tie"] = total.stats.near_tie
    section["device"] = device_section(total.stats)
    section["resumed"] = answers.resumed
    # An item whose line was torn is answered twice.
    section["without_record"] = max(0, len(ordered) - total.items - answers.left_out)
    greedy = greedy_section(ordered)
    if greedy is not None:
        section["greedy"] = greedy
    return {**section, "unanswered": missing} if interrupted else section


class _Answers:
    """A task's predictions as they become known; each is written at once.

    Attributes:
        predictions: by the question's number.
        progress: how far the runner is.
        seconds: spent on predictions, while the runner computes.
        answered: items that the runner has answered.
        resumed: items that were answered before.
        left_out: items for which there is no memory; they count as wrong, and are asked again in a part to come.
    """

    def __init__(
        self, prepared: Prepared, encoder: Encoder, runner: Runner, writer: RunWriter, on_status: OnStatus
    ) -> None:
        self._task, self._questions = prepared.task, prepared.questions
        self._encoder, self._writer, self._on_status = encoder, writer, on_status
        self._generates = any(isinstance(question.request, GenerateRequest) for question in prepared.questions)
        self._right = 0
        self._max_context = runner.max_context
        self.predictions: dict[int, Prediction] = {}
        self.progress = Progress(0, 0, 0)
        self.seconds = 0.0
        self.answered = self.resumed = self.left_out = 0

    def open_questions(self) -> Iterator[int]:
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
                self.resumed += 1
            elif needed > self._max_context:
                reason = f"needs {needed} tokens of context, memory allows {self._max_context}"
                self._write(i, unanswered(self._task, question, reason))
                self.left_out += 1
            else:
                yield i

    def take(self, i: int, result: Result | Unfit) -> None:
        """The runner has answered question ``i``."""
        before = time.perf_counter()
        question = self._questions[i]
        if isinstance(result, Unfit):
            self._write(i, unanswered(self._task, question, result.reason))
            self.left_out += 1
        else:
            self._write(i, predict(self._task, question, result, self._encoder))
            self.answered += 1
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
        counts = (done, self._right, len(self._questions), tokens.computed, tokens.unique, tokens.sent)
        self._on_status(Status(*counts, resumed=self.resumed + self.left_out, texts=self._generates))
