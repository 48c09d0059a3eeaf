"""What answers requests: the one contract of the engine, the supervisor and whatever divides a run over several.

A runner is given all requests of a run at once, so that it may answer them in whatever order is fastest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from math import sqrt
from typing import Protocol

from orin_runner.requests import Failed, Request, Result


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is.

    Attributes:
        computed: tokens computed so far.
        unique, sent: as in ``RunStats``, of all requests; they grow by the tokens of the texts that are finished.
        steps: as in ``DecodeStats``.
        restored: as in ``RunStats``.
    """

    computed: int
    unique: int
    sent: int
    steps: int = 0
    restored: int = 0


OnProgress = Callable[[Progress], None]
"""Called before the first decode call, when the tokens of what is asked are counted, and after each, behind the results
that it completed."""


def no_progress(_: Progress) -> None:
    """Where nobody wants to know how far a run is."""


@dataclass(slots=True)
class DecodeStats:
    """Counts and seconds of the decode calls of a run, over all its contexts.

    Attributes:
        tokens: tokens computed.
        steps: of these, tokens of decode steps: with which a text went on, and drafts behind them.
        calls: decode calls.
        rows: logit rows read.
        submit_s: inside ``llama_decode``: its batch checks, graph and launch; on a CPU the whole computation. Several
            contexts are inside at once: their sum may be more than the time that passed.
        alone_s: the part of it in which no other batch was on the device.
        wait_s: waiting for logits.
        idle_s: no batch was on the device or being submitted.
    """

    tokens: int = 0
    steps: int = 0
    calls: int = 0
    rows: int = 0
    submit_s: float = 0.0
    alone_s: float = 0.0
    wait_s: float = 0.0
    idle_s: float = 0.0

    def together(self, other: DecodeStats) -> DecodeStats:
        """The sum of both."""
        return DecodeStats(*(getattr(self, row.name) + getattr(other, row.name) for row in fields(self)))

    def beside(self, other: DecodeStats) -> DecodeStats:
        """What two that computed at once cost: the counts of both, the seconds of this one."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in ("tokens", "steps", "calls", "rows")}
        return replace(self, **counts)


@dataclass(frozen=True, slots=True)
class Noise:
    """How far numbers of a run lie from the same numbers computed alone: rounding, on a sample. All in nats.

    Attributes:
        n: numbers compared.
        rms: root mean square of their differences.
        largest: the largest difference.
        near_tie: what rounding may move by, estimated from these (``orin_runner.engine.noise``): one log-probability,
            of scores; the lead of one token over the next, of texts.
    """

    n: int = 0
    rms: float = 0.0
    largest: float = 0.0
    near_tie: float = 0.0

    def together(self, other: Noise) -> Noise:
        """Both samples as one; of the estimates the larger."""
        n = self.n + other.n
        squares = self.n * self.rms**2 + other.n * other.rms**2
        return Noise(
            n, sqrt(squares / n) if n else 0.0, max(self.largest, other.largest), max(self.near_tie, other.near_tie)
        )


@dataclass(slots=True)
class RunStats:
    """What a run cost.

    Attributes:
        sent: tokens as a tool without sharing would compute them: the prompt once with each of its continuations, once
            for all those of a single token; and the greedy texts.
        unique: distinct tokens in the prefix tree of all that is asked and answered: prompts with their continuations,
            and the greedy texts. Drafts that no text follows are not part of it.
        computed: tokens computed for the answers (prefill and decode rounds), drafts included.
        checked: tokens computed a second time, to measure the noise and to settle near-ties.
        score_noise: of the log-probabilities that were asked for.
        text_noise: of rows of logits that texts were read from: of each the log-probability that moved most.
        settled: positions of greedy texts decided in the canonical shape.
        settle_s: seconds of the decode clock that these took, and the rows that the noise was measured on.
        restored: tokens whose state came from the prompt cache instead of being computed.
        cacheable: times that the prompt cache was asked for the state of a long shared prefix, or given one.
        clocks: seconds per stage: plan, prefill, decode, check; of a stage that is not over, up to its last batch.
        device: decode calls for the answers.
    """

    sent: int = 0
    unique: int = 0
    computed: int = 0
    checked: int = 0
    score_noise: Noise = Noise()
    text_noise: Noise = Noise()
    settled: int = 0
    settle_s: float = 0.0
    restored: int = 0
    cacheable: int = 0
    clocks: dict[str, float] = field(default_factory=dict)
    device: DecodeStats = field(default_factory=DecodeStats)

    def together(self, other: RunStats) -> RunStats:
        """What two parts of a run cost, such as those of two workers: the noise of both, the sum of everything else."""
        names = ("sent", "unique", "computed", "checked", "settled", "settle_s", "restored", "cacheable")
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        stages = dict.fromkeys([*self.clocks, *other.clocks])
        return RunStats(
            **sums,
            score_noise=self.score_noise.together(other.score_noise),
            text_noise=self.text_noise.together(other.text_noise),
            clocks={stage: self.clocks.get(stage, 0.0) + other.clocks.get(stage, 0.0) for stage in stages},
            device=self.device.together(other.device),
        )

    def beside(self, other: RunStats) -> RunStats:
        """What two that computed at once cost: the counts and the noise of both, the seconds of the one with more."""
        longer, shorter = (self, other) if self.seconds >= other.seconds else (other, self)
        return replace(
            self.together(other),
            settle_s=longer.settle_s,
            clocks=longer.clocks,
            device=longer.device.beside(shorter.device),
        )

    @property
    def progress(self) -> Progress:
        """How far the run is."""
        return Progress(self.computed, self.unique, self.sent, self.device.steps, self.restored)

    @property
    def seconds(self) -> float:
        """Of all stages."""
        return sum(self.clocks.values())


class Runner(Protocol):
    """What answers requests.

    Attributes:
        stats: what the last run cost; complete when ``run`` has been read to its end, before that what is known.
        max_context: tokens of context; requests that need more (``requests.context_tokens``) have to be left out.
    """

    stats: RunStats

    @property
    def max_context(self) -> int: ...

    def run(
        self, requests: Sequence[Request], on_progress: OnProgress = no_progress
    ) -> Iterator[tuple[int, Result | Failed]]:
        """Answer every request.

        Args:
            requests: what is asked.
            on_progress: called after each decode call.

        Yields:
            (index of the request, its result), each exactly once, in whatever order is fastest.

        Raises:
            UserError: a request does not fit the context; nothing has been computed then.
        """
        ...
