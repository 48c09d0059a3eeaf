"""``samples.jsonl``: how far a run was and what it took, twice a second. What that comes to is in ``measured``.

Lines are appended and flushed while the run goes; a run that is resumed goes on with another *part*, whose seconds
begin at 0 again. What was not known is None and stays None.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from orin_runner.files import json_text, read_bytes, whole_lines
from orin_runner.machine.sensors import Reading
from orin_runner.schema import Schema, bounded

SAMPLES = "samples.jsonl"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line.

    Attributes:
        part: 0, and one more each time the run was resumed.
        seconds: since this part began.
        task: what is being asked, None before the first task.
        computed: tokens computed for the task's answers so far in this part.
        computed_at: the ``seconds`` at which ``computed`` became what it is.
        done: of its items, those answered so far in this part.
        reading: the machine's counters; in the line each is a key like the others.
        elsewhere: other machines take part in the run, of which the reading says nothing.
    """

    part: int
    seconds: float
    task: str | None
    computed: int
    computed_at: float
    done: int
    reading: Reading = field(default_factory=Reading)
    elsewhere: bool = False

    @classmethod
    def parse(cls, line: bytes) -> Sample:
        """The sample of a line.

        Raises:
            ValueError: it is none.
        """
        # A run may be older than a counter.
        found = replace(FORM.parse(line), reading=READING.parse(line))
        if not bounded((found.part, found.seconds, found.computed, found.computed_at, found.done)):
            raise ValueError("a number is too large")
        if not bounded(found.reading.numbers()):
            raise ValueError("a reading is too large")
        return found

    def line(self) -> bytes:
        """Its line of ``samples.jsonl``."""
        row = asdict(self)
        row.update(row.pop("reading"))
        return json_text(row).encode() + b"\n"


def read_samples(path: Path) -> tuple[Sample, ...]:
    """All samples of ``path``; none where there is no such file (runs before there were samples).

    A line that is none, as a full disk may leave one, is left out, and one that goes back in time: no result needs it.

    Raises:
        UserError: it is no file at all.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return ()
    found: list[Sample] = []
    for line in whole_lines(content).splitlines():  # the last one may still be being written, or torn
        try:
            sample = Sample.parse(line)
        except ValueError:
            continue
        if not found or (found[-1].part, found[-1].seconds) <= (sample.part, sample.seconds):
            found.append(sample)
    return tuple(found)


FORM, READING = Schema(Sample), Schema(Reading)


def gpu_keys(samples: Sequence[Sample]) -> list[tuple[str, str]]:
    """Id and name of each GPU that was read, in the order in which they were met."""
    return list(dict.fromkeys((gpu.id, gpu.name) for sample in samples for gpu in sample.reading.gpus))


def next_part(path: Path) -> int:
    """The number of the part that is about to be appended; a last line that a kill has torn is dropped."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return 0
    if len(whole_lines(content)) < len(content):
        os.truncate(path, len(whole_lines(content)))
    return max((sample.part for sample in read_samples(path)), default=-1) + 1


def parts(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each part."""
    found: dict[int, list[Sample]] = {}
    for sample in samples:
        found.setdefault(sample.part, []).append(sample)
    return list(found.values())
