"""What ``orin-run bench`` measures, one thing after another, and which shape of decode calls is the fastest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import hypot, prod

from orin_runner.console import Notes
from orin_runner.engine.bench import NEW_TOKENS, PREFIX, QUESTION, QUESTIONS, TEXT_PROMPT, TEXT_PROMPTS, Pace, Rate
from orin_runner.machine.shape import score_shapes, text_shapes
from orin_runner.machine.tuned import TunedWork
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.bench import Bench, Ceilings, Measure, Measured, NoCeilings, is_product

SIDE_BY_SIDE = (1, 8, 32, 128)
"""Texts that decode steps are measured with."""
FAMILY = {"scores": PREFIX + QUESTION * QUESTIONS, "texts": PREFIX + (TEXT_PROMPT + NEW_TOKENS) * TEXT_PROMPTS}
"""Tokens of a family of prompts, and of one with its texts."""
MOST_FAMILIES, ENOUGH = 64, 4
"""``ENOUGH`` are two batches of the largest size, and can be divided over several contexts."""
MOST_S = 15.0
"""Seconds of a repetition. Where so many families take longer, only what a run has anyway is measured."""
LEAST_GAIN = 0.02
"""Another shape is the faster one from this share on, where the two rates also lie further apart than they spread."""
SPREAD = 0.05
"""Share of a rate that it is taken to spread by, where it was measured only once."""
NAMES: dict[str, str] = {"scores": "prompts", "texts": "texts", "steps": "decode"}
"""As the table has them."""
PLANNED = "as planned"
"""Without measurements."""


@dataclass(slots=True)
class Findings:
    """What has been measured so far.

    Attributes:
        file: the model.
        n_threads: CPU threads.
        ceilings: of the device; None as long as they are not known.
        rows: in the order in which they were measured. Of prompts and of texts the first has the shape that a plan
            without measurements chooses.
    """

    file: GGUFFile
    n_threads: int
    ceilings: Ceilings | NoCeilings | None = None
    rows: list[Measured] = field(default_factory=list)

    def fastest(self, work: str) -> Measured | None:
        """Of a kind of work the first row unless another one is clearly faster; None where all have failed."""
        rows = [row for row in self.rows if row.asked.work == work and row.rate is not None]
        if not rows:
            return None
        best, first = max(rows, key=mean), rows[0]
        assert best.rate is not None
        assert first.rate is not None
        return best if first.asked.shape is not None or _is_faster(best.rate, first.rate) else first

    @property
    def flop(self) -> float | None:
        """Of the products of all layers for a token; None of models with experts, of which a token takes a part."""
        matrices = [tensor for tensor in self.file.header.tensors if is_product(tensor)]
        if any(len(tensor.shape) > 2 for tensor in matrices):
            return None
        return 2.0 * sum(prod(tensor.shape) for tensor in matrices)

    @property
    def f32_gain(self) -> float | None:
        """How many times as fast a product with weights in F32 is; None where it is not clearly faster."""
        if not isinstance(self.ceilings, Ceilings) or self.ceilings.product_f32 is None:
            return None
        own, f32 = self.ceilings.product, self.ceilings.product_f32
        return f32.mean / own.mean if _is_faster(f32, own) else None

    def share_of_product(self, row: Measured) -> float | None:
        """Share of the matrix product's ceiling that a row's products in the layers are; None where it is not known."""
        if not isinstance(self.ceilings, Ceilings) or row.rate is None or self.flop is None:
            return None
        return row.rate.mean * self.flop / self.ceilings.product.mean

    def share_of_copy(self, row: Measured) -> float | None:
        """Share of the copy's ceiling at which decode steps read the weights, once a step; None of other work."""
        if not isinstance(self.ceilings, Ceilings) or row.rate is None or row.asked.work != "steps":
            return None
        weights = self.file.data_bytes - (0 if self.file.tied else self.file.embedding_bytes)
        return row.rate.mean / row.asked.n * weights / self.ceilings.copy.mean


def measuring(found: Findings, bench: Bench, pace: Pace, notes: Notes) -> Iterator[tuple[float, str]]:
    """Measure everything into ``found``; before each step yields the share that is done and what comes next."""
    yield 0.0, "ceilings"
    found.ceilings = bench.ceilings()
    yield 0.05, f"prompts, {PLANNED}"
    planned = _planned(bench, "scores", _families(found), pace)
    found.rows.append(planned)
    own_memory = bench.ready is not None and bench.ready.own_memory
    n = planned.asked.n
    slow = n < ENOUGH or (planned.rate is not None and n * FAMILY["scores"] > MOST_S * mean(planned))
    if slow and planned.rate is not None:
        notes.note(
            f"{mean(planned):,.1f} tokens/s: other settings than those of a plan would take long, and are left out"
        )
    asked = [] if slow else [Measure("scores", shape, n) for shape in score_shapes(own_memory=own_memory)]
    yield from _rows(found, bench, asked, 0.1, 0.4)
    yield from _confirmed(found, bench, "scores", 0.4, 0.5)
    steps = [Measure("steps", None, texts) for texts in (SIDE_BY_SIDE[:2] if slow else SIDE_BY_SIDE)]
    yield from _rows(found, bench, steps, 0.5, 0.65)
    yield 0.65, f"texts, {PLANNED}"
    planned = _planned(bench, "texts", min(n, ENOUGH), pace)
    found.rows.append(planned)
    best = found.fastest("scores")
    shapes = [] if slow or best is None or best.shape is None else text_shapes(best.shape, own_memory=own_memory)
    yield from _rows(found, bench, [Measure("texts", shape, planned.asked.n) for shape in shapes], 0.7, 0.9)
    yield from _confirmed(found, bench, "texts", 0.9, 1.0)


def _planned(bench: Bench, work: TunedWork, n: int, pace: Pace) -> Measured:
    """The rate of what is planned without measurements, of so many families that a repetition takes its share of time.

    Args:
        bench: measures.
        work: of what.
        n: families to begin with; where these are fewer than ``ENOUGH``, more would take long.
        pace: how long a rate is measured.
    """
    row = bench.measure(Measure(work, None, n))
    more = min(MOST_FAMILIES, round(mean(row) * min(pace.seconds / pace.runs, MOST_S) / FAMILY[work]))
    return bench.measure(Measure(work, None, more)) if n == ENOUGH and more > 2 * n else row


def _families(found: Findings) -> int:
    """How many families of prompts to begin with: fewer than ``ENOUGH`` where the ceiling says that these take long."""
    if not isinstance(found.ceilings, Ceilings) or found.flop is None:
        return ENOUGH
    return max(1, min(ENOUGH, int(MOST_S * found.ceilings.product.mean / found.flop / FAMILY["scores"])))


def _rows(found: Findings, bench: Bench, asked: list[Measure], begin: float, end: float) -> Iterator[tuple[float, str]]:
    """Measure each of ``asked`` that has a shape which was not measured."""
    for k, each in enumerate(asked):
        shapes = {row.shape for row in found.rows if row.asked.work == each.work}
        if each.shape is None or each.shape not in shapes:
            yield begin + (end - begin) * k / len(asked), f"{label(each)}, {each.shape or PLANNED}"
            found.rows.append(bench.measure(each))


def _confirmed(found: Findings, bench: Bench, work: str, begin: float, end: float) -> Iterator[tuple[float, str]]:
    """Measure what seems faster than planned once more, and what is planned: the machine may be another meanwhile.

    Both have the repetitions of both times then, and with them the spread of that.
    """
    again: set[Measure] = set()
    while True:
        best, first = found.fastest(work), next(row for row in found.rows if row.asked.work == work)
        if best is None or first.rate is None or best is first or best.asked in again:
            return
        again.add(best.asked)
        for k, row in enumerate((first, best)):
            yield begin + (end - begin) * k / 2, f"{label(row.asked)}, {row.asked.shape or PLANNED} again"
            more = bench.measure(row.asked).rate
            if row.rate is not None and more is not None:
                found.rows[found.rows.index(row)] = replace(row, rate=row.rate.together(more))


def label(asked: Measure) -> str:
    """What is measured, as it is shown."""
    if asked.work != "steps":
        return NAMES[asked.work]
    return f"{NAMES[asked.work]}, {asked.n} text{'s' if asked.n > 1 else ''}"


def mean(row: Measured) -> float:
    """Tokens a second; 0 where there is no rate."""
    return 0.0 if row.rate is None else row.rate.mean


def _is_faster(one: Rate, other: Rate) -> bool:
    """Whether a rate is so much higher that it is no accident, and worth other settings."""
    sds = [SPREAD * rate.mean if rate.sd is None else rate.sd for rate in (one, other)]
    return one.mean - other.mean > max(hypot(*sds), LEAST_GAIN * other.mean)
