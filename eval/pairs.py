"""The items of two runs, paired: whether the runs may be compared, and what may explain where they differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from eval.near_ties import NearTies
from eval.runs.prediction import Prediction
from eval.runs.run import SAME_TO_COMPARE, Run
from orin_runner.errors import UserError

CORRECT = "correct"
"""The key of ``predictions.jsonl`` that stands in for a metric where a run is older than ``scores``."""

OWN_FILES = {"sha256": "questions", "template_sha256": "--template", "fewshot_sha256": "--fewshot"}
"""What ``run.json`` says of a file of questions, and what a line calls it."""

SAME_ROWS = "use the same files in --data for both"

CAUSES = ("failed", "token_ids", "window", "near_tie", "quantization", "unexplained")
"""What may explain a flip; the first that fits is its cause.

``failed``: one run has no answer. ``token_ids``: the prompts differ. ``window``: prompt and answer are longer than the
model's sliding window, which one of the runs does not honour. ``near_tie``: the two leads together are less
than the noise of both runs. ``quantization``: exactly one of the runs has a quantized model. ``unexplained``: none of
these.
"""


@dataclass(frozen=True, slots=True)
class Pair:
    """One item of both runs.

    Attributes:
        metric: what it is judged by, a key of both ``scores`` or ``CORRECT``.
    """

    run: Prediction
    reference: Prediction
    metric: str = CORRECT

    @property
    def score(self) -> float:
        return self._score(self.run)

    @property
    def reference_score(self) -> float:
        return self._score(self.reference)

    @property
    def same_tokens(self) -> bool:
        return self.run.tokens_sha256 == self.reference.tokens_sha256

    @property
    def agrees(self) -> bool:
        return self.run.prediction == self.reference.prediction

    @property
    def truncated(self) -> bool:
        """Whether either run had the prompt without its beginning."""
        return bool(self.run.truncated or self.reference.truncated)

    @property
    def skipped(self) -> bool:
        """Whether either run did not ask it."""
        return self.run.skipped is not None or self.reference.skipped is not None

    @property
    def n_context(self) -> int:
        """Tokens of the longest path that either run took, prompt and answer; of an old run, of the prompt."""
        return max(_context(side) for side in (self.run, self.reference))

    def near_tie(self, near_ties: Sequence[NearTies]) -> float | None:
        """What rounding in both runs can move a lead by, from one answer to another one; None where nobody knows.

        A run that has not measured its noise is taken to have as much as the other.
        """
        own, other = near_ties
        bounds = [own.bound(self.run), other.bound(self.reference)]
        known = [bound for bound in bounds if bound is not None]
        return None if not known else sum(known) * len(bounds) / len(known)

    def cause(self, ignored_window: int | None, near_ties: Sequence[NearTies], *, one_quantized: bool) -> str:
        """The first of ``CAUSES`` that fits; see ``compare`` for the arguments."""
        near_tie = self.near_tie(near_ties)
        # From one answer to the other the difference has moved by at least both leads.
        moved = sum(side.margin or 0.0 for side in (self.run, self.reference))
        fits = (
            self.run.failed is not None or self.reference.failed is not None,
            not self.same_tokens,
            ignored_window is not None and self.n_context > ignored_window,
            near_tie is not None and moved < near_tie,
            one_quantized,
            True,
        )
        return CAUSES[fits.index(True)]

    def _score(self, side: Prediction) -> float:
        return float(side.correct) if self.metric == CORRECT else side.scores[self.metric]


def _context(side: Prediction) -> int:
    longest: int | None = getattr(side, "n_context", None)
    return side.n_tokens if longest is None else longest


def align(run: Run, reference: Run, *, anyway: bool = False) -> dict[str, list[Pair]]:
    """The items that both runs hold, those that one has skipped among them, per task, in the run's order.

    Args:
        anyway: also of runs that asked differently (``differences``).

    Raises:
        UserError: the runs share no item, asked in different ways, or are judged differently.
    """
    if not anyway and (lines := differences(run, reference)):
        raise UserError(f"the runs asked with {'; '.join(lines)}", _hint(lines[0]))
    shared = _shared(run, reference)
    for task in dict.fromkeys(task for task, _ in shared):
        splits = [_split(r, task) for r in (run, reference)]
        if None not in splits and splits[0] != splits[1]:
            raise UserError(
                f"the runs asked different splits of {task}: {splits[0]} and {splits[1]}",
                SAME_ROWS,
            )
    if not shared:
        raise UserError(f"{run.directory} and {reference.directory} share no item", "use the same tasks for both")
    found: dict[str, list[tuple[Prediction, Prediction]]] = {}
    for key in shared:
        prediction, other = run.predictions[key], reference.predictions[key]
        if prediction.target != other.target:
            raise UserError(
                f"{key[0]} {key[1]} has target {prediction.target!r} in one run, {other.target!r} in the other",
                SAME_ROWS,
            )
        counts = [len(side.logprobs) for side in (prediction, other) if side.logprobs is not None]
        if len(set(counts)) > 1:
            raise UserError(
                f"{key[0]} {key[1]} has {counts[0]} choices in one run, {counts[1]} in the other", SAME_ROWS
            )
        found.setdefault(key[0], []).append((prediction, other))
    return {task: _judged(task, items) for task, items in found.items()}


def only_in(run: Run, other: Run) -> dict[str, int]:
    """By task, how many items of ``run`` the other run does not hold; of tasks that have such."""
    return dict(Counter(task for task, item in run.predictions if (task, item) not in other.predictions))


def differences(run: Run, reference: Run) -> list[str]:
    """What the runs were asked with that is not the same, a line each that names the option first.

    Which of the items were asked (``--limit``, and the tasks themselves) is none.
    """
    settings = [r.header.get("settings", {}) for r in (run, reference)]
    lines = []
    for name, default in SAME_TO_COMPARE.items():
        values = [each.get(name, default) for each in settings]
        if values[0] != values[1]:
            said = ["default" if value == default else "on" if value is True else str(value) for value in values]
            lines.append(f"different --{name.replace('_', '-')}: {said[0]} and {said[1]}")
    shared = _shared(run, reference)
    for task in dict.fromkeys(task for task, _ in shared):
        files = [each.get("questions", {}).get(task, {}) for each in settings]
        for name, what in OWN_FILES.items():
            digests = [str(each.get(name) or "none")[:12] for each in files]
            if digests[0] != digests[1]:
                lines.append(f"different {what} of {task}: {digests[0]} and {digests[1]}")
    # A template that nothing was put into is no matter.
    templates = [r.header.get("model", {}).get("chat_template_sha256") for r in (run, reference)]
    if (
        None not in templates
        and templates[0] != templates[1]
        and any(run.predictions[key].tokens_sha256 != reference.predictions[key].tokens_sha256 for key in shared)
    ):
        lines.append(f"different chat templates: {templates[0][:12]} and {templates[1][:12]}")
    return lines


def _hint(line: str) -> str:
    """What to do about the first of ``differences``."""
    what = line.removeprefix("different ").partition(":")[0]
    return f"use the same {what} for both, or --anyway"


def _shared(run: Run, reference: Run) -> list[tuple[str, str]]:
    """Task and id of the items that both hold."""
    return [key for key in run.predictions if key in reference.predictions]


def _judged(task: str, items: Sequence[tuple[Prediction, Prediction]]) -> list[Pair]:
    """The pairs of a task, judged by its first metric; by ``CORRECT`` where an item that was asked has no scores."""
    asked = [pair for pair in items if not Pair(*pair).skipped]
    names = [dict.fromkeys(next(iter(pair[side].scores), None) for pair in asked) for side in (0, 1)]
    both = list({**names[0], **names[1]})
    if None in both:
        return [Pair(*pair) for pair in items]
    if len(both) > 1:
        said = ("/".join(str(name) for name in side) for side in names)
        raise UserError(
            f"{task} is judged by different metrics: {' and '.join(said)}", "make both runs with the same version"
        )
    return [Pair(*pair, str(both[0]) if both else CORRECT) for pair in items]


def _split(run: Run, task: str) -> str | None:
    """Which split of its data set a run asked, None where it does not say."""
    named = run.header.get("settings", {}).get("splits", {}).get(task)
    split = run.report.get("tasks", {}).get(task, {}).get("split") if named is None else named
    return None if split is None else str(split)
