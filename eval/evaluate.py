"""One task: load and tokenize it, run it on an engine, judge and write the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.encoding import Encoder, Question, encode_docs
from eval.near_ties import NearTies, noise_section
from eval.predict import predict, skipped, unanswered
from eval.progress import OnStatus, Status
from eval.report.section import device_section, greedy_section, task_report, token_counts
from eval.runs.part import TaskCost
from eval.runs.prediction import Prediction
from eval.runs.writer import RunWriter
from eval.sent_tokens import asked_paths, distinct_tokens
from eval.tasks.base import LoadOptions, Task, Year, check_protocol, in_chat
from eval.tasks.multiple_choice import MultipleChoice
from orin_runner.errors import UserError
from orin_runner.requests import Failed, Generated, GenerateRequest, Request, Result, context_tokens
from orin_runner.runner import Progress, Runner


@dataclass(frozen=True, slots=True)
class Prepared:
    """A task's questions as requests.

    Attributes:
        clocks: seconds it took to get there (``data``, ``tokenize``).
        split, rows: of ``Loaded``; None where the questions come from elsewhere.
        skipped: questions that are not among ``questions`` because they are not asked, and why.
        protocol, first: of ``LoadOptions``.
        lacking: of ``Loaded``.
    """

    task: Task
    questions: list[Question]
    clocks: dict[str, float]
    split: str | None = None
    rows: int | None = None
    skipped: Sequence[tuple[Question, str]] = ()
    protocol: Year | None = None
    first: float | None = None
    lacking: tuple[str, ...] = ()

    @property
    def n_items(self) -> int:
        """Questions, those that are skipped among them."""
        return len(self.questions) + len(self.skipped)

    def skipped_predictions(self) -> list[Prediction]:
        """The predictions of the questions that are not asked."""
        return [skipped(self.task, question, reason) for question, reason in self.skipped]

    @property
    def source(self) -> dict[str, Any]:
        """What a section of ``report.json`` says of where the questions come from, and of a protocol."""
        found: dict[str, Any] = {"split": self.split, "rows": self.rows}
        if self.first is not None:
            found["first"] = self.first
        return found if self.protocol is None else found | {"protocol": self.protocol, "lacking": list(self.lacking)}


def prepare(task: Task, options: LoadOptions, encoder: Encoder) -> Prepared:
    """Load and tokenize ``task``, whatever its prompts' length (``truncation.fitted``).

    Raises:
        UserError: data or tokenizer are not usable.
    """
    started = time.perf_counter()
    if options.scoring is not None and not isinstance(task, MultipleChoice):
        raise UserError(f"{task.name} is scored in one way only", "leave --scoring out")
    check_protocol(task, options)
    found = task.load(options)
    docs = [in_chat(doc) for doc in found.docs] if options.chat else found.docs
    if not docs:
        raise UserError(f"{task.name} has no questions here", "check the files that --data names")
    loaded = time.perf_counter()
    questions = encode_docs(docs, encoder)
    clocks = {"data": loaded - started, "tokenize": time.perf_counter() - loaded}
    return Prepared(
        task,
        questions,
        clocks,
        found.split,
        found.rows,
        protocol=options.protocol,
        first=options.first,
        lacking=found.lacking,
    )


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

    Items that the writer knows from before are not asked again, skipped ones not at all. Items that need more context
    than the runner has are written as failed. Ctrl-C ends the task where it is; its section then covers what is
    answered and says how much is not.

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
    without_answer = prepared.skipped_predictions()
    for prediction in without_answer:
        if (prediction.task, prediction.id) not in writer.known:
            writer.write(prediction)
    answers = _Answers(prepared, encoder, runner, writer, on_status)
    asked = list(answers.open_questions())
    known = {**clocks, **prepared.clocks}
    interrupted = False
    to_last_score = 0.0
    began = time.perf_counter()

    def cost() -> TaskCost:
        now = {"inference": time.perf_counter() - began, "score": answers.seconds}
        if process_clock is not None:
            # Behind the last score the runner measures its noise.
            now["process"] = to_last_score or process_clock()
        spent = {**known, "prefill": 0.0, "decode": 0.0, **runner.stats.clocks, **now}
        stats, asked_tokens = runner.stats, answers.asked_tokens
        if answers.untold and stats.sent == answers.progress.sent:
            # Interrupted amid the results of a batch, whose texts the runner tells of behind them.
            stats = replace(stats, sent=stats.sent + answers.untold, unique=stats.unique + answers.untold)
        return TaskCost(answers.answered, spent, stats, asked_tokens.sent, asked_tokens.unique)

    def on_progress(progress: Progress) -> None:
        answers.on_progress(progress)
        writer.spent(prepared.task.name, cost())

    try:
        requests = [prepared.questions[i].request for i in asked]
        for k, result in runner.run(requests, on_progress):
            answers.take(asked[k], result)
            if process_clock is not None and answers.complete:
                to_last_score = process_clock()
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
    without_record = max(0, len(ordered) - total.items - answers.left_out)  # a torn line's item is answered twice
    tokens = token_counts(total.stats)
    whole = total.items == len(prepared.questions) and earlier is None
    if not without_record and not whole:  # of a whole run the engine's own counts are those of all that was asked
        tokens |= _work_of(answers.answered_requests(), total)
    section = task_report([*ordered, *without_answer], tokens, total.clocks, answered=total.items)
    section |= prepared.source
    section["noise"] = noise_section(total.stats)
    section["near_ties"] = NearTies.of(section).count(ordered)
    section["device"] = device_section(total.stats)
    section["resumed"] = answers.resumed
    section["without_record"] = without_record
    greedy = greedy_section(ordered)
    if greedy is not None:
        section["greedy"] = greedy
    return {**section, "unanswered": missing} if interrupted else section


def _work_of(answered: Sequence[Request], cost: TaskCost) -> dict[str, int]:
    """``sent`` and ``unique`` of what is answered: what an interrupted part asked in vain is asked again."""
    paths = [path for request in answered for path in asked_paths(request)]
    return {
        "sent": sum(map(len, paths)) + cost.stats.sent - cost.asked_sent,
        "unique": distinct_tokens(paths) + cost.stats.unique - cost.asked_unique,
    }


def check_known(prepared: Iterable[Prepared], known: Mapping[tuple[str, str], Prediction]) -> None:
    """Refuse to go on with answers to other questions; for commands to ask before they load a model.

    Raises:
        UserError: an answer is to a question with another target or other tokens; it is named.
    """
    for item in prepared:
        for question in (*item.questions, *(question for question, _ in item.skipped)):
            answer = known.get((item.task.name, question.doc.id))
            if answer is not None:
                _check_same_question(item.task.name, question, answer)


def _check_same_question(task: str, question: Question, answer: Prediction) -> None:
    if (answer.target, answer.tokens_sha256) != (question.doc.target, question.digest):
        raise UserError(
            f"{task} {question.doc.id} is another question than in the run to resume",
            "use the same files in --data, or begin another run without --resume",
        )


def _text_tokens(request: Request, result: Result) -> int:
    """Tokens that are computed of a text: the last one only before a stop token."""
    if not (isinstance(request, GenerateRequest) and isinstance(result, Generated)):
        return 0
    n = len(result.tokens)
    return n if result.stopped and not request.until else max(0, n - 1)


class _Answers:
    """A task's predictions as they become known; each is written at once.

    Attributes:
        predictions: by the question's number.
        progress: how far the runner is.
        asked_tokens: how far it was when it knew what was asked, before any text was.
        untold: tokens of texts that came since ``progress``; one less of those that a stop text may have ended.
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
        texts = [q.request for q in prepared.questions if isinstance(q.request, GenerateRequest)]
        self._bound = sum(text.max_new_tokens for text in texts) / len(texts) if texts else 0.0
        self._right = 0
        self._max_context = runner.max_context
        self.predictions: dict[int, Prediction] = {}
        self.progress = self.asked_tokens = Progress(0, 0, 0)
        self.seconds = 0.0
        self.answered = self.resumed = self.left_out = self.untold = 0

    @property
    def complete(self) -> bool:
        """Whether every question has its prediction."""
        return len(self.predictions) == len(self._questions)

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
                _check_same_question(task, question, known)
                self._keep(i, known)
                self.resumed += 1
            elif needed > self._max_context:
                reason = f"needs {needed} tokens of context, memory allows {self._max_context}"
                self._write(i, unanswered(self._task, question, reason))
                self.left_out += 1
            else:
                yield i

    def take(self, i: int, result: Result | Failed) -> None:
        """The runner has answered question ``i``."""
        before = time.perf_counter()
        question = self._questions[i]
        if isinstance(result, Failed):
            self._write(i, unanswered(self._task, question, result.reason))
            self.left_out += 1
        else:
            self._write(i, predict(self._task, question, result, self._encoder))
            self.answered += 1
            self.untold += _text_tokens(question.request, result)
        self.seconds += time.perf_counter() - before
        self._say()

    def on_progress(self, progress: Progress) -> None:
        """The runner is so far."""
        if not self.asked_tokens.sent:
            self.asked_tokens = progress
        self.progress, self.untold = progress, 0
        self._say()

    def answered_requests(self) -> list[Request]:
        """What has been answered, in whatever part."""
        return [self._questions[i].request for i, prediction in self.predictions.items() if prediction.failed is None]

    def _write(self, i: int, prediction: Prediction) -> None:
        self._writer.write(prediction)
        self._keep(i, prediction)

    def _keep(self, i: int, prediction: Prediction) -> None:
        self.predictions[i] = prediction
        self._right += prediction.correct

    def _say(self) -> None:
        done, tokens = len(self.predictions), self.progress
        counts = (done, self._right, len(self._questions), tokens.computed, tokens.unique, tokens.sent)
        resumed = self.resumed + self.left_out
        self._on_status(Status(*counts, resumed, self.asked_tokens.unique, tokens.restored, tokens.steps, self._bound))
