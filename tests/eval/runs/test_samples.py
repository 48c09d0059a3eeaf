"""Samples as they are read again, damaged or not, of this version or an older one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from eval.runs.samples import Sample, read_samples
from orin_runner.machine.nvml import GpuReading
from orin_runner.machine.sensors import Reading
from tests.support.samples import gpu, row, sample


def test_a_line_that_is_being_written_is_not_read_yet(tmp_path: Path) -> None:
    """Nor one that a kill has torn, in a run that nobody resumes."""
    path = tmp_path / "samples.jsonl"
    line = json.dumps(row(0, 0.0))
    path.write_text(f"{line}\n{line[:20]}")
    assert read_samples(path) == (sample(0, 0.0),)


def test_damaged_samples_cost_nothing_but_themselves(tmp_path: Path) -> None:
    """Neither the run's report nor its going on may hang on a line that a full disk has cut short."""
    path = tmp_path / "samples.jsonl"
    for line in ("{}", "[]", "x", json.dumps(row(0, 1.0))[:40] + json.dumps(row(0, 1.0))):
        path.write_text(json.dumps(row(0, 0.0)) + f"\n{line}\n" + json.dumps(row(0, 2.0)) + "\n")
        assert [sample.seconds for sample in read_samples(path)] == [0.0, 2.0]


def test_each_gpu_comes_back_as_it_was_written() -> None:
    """With all that is known of it, and all that is not."""
    known = GpuReading("0", "card", 10.5, 9.0, 300.1, 97.0, 1755.0, -3.0, ("thermal", "power cap"))
    reading = Reading(1.0, None, 10.5, None, (known, GpuReading("1", "other")))
    written = replace(sample(1, 2.0, elsewhere=True), reading=reading)
    assert Sample.parse(written.line()) == written


def test_samples_of_an_older_run_are_read() -> None:
    """Lines as version 0.1.0 wrote them: totals alone."""
    line = (
        b'{"part": 1, "seconds": 3.002, "task": "mmlu", "computed": 9000, "computed_at": 2.5, "done": 7, '
        b'"host_mib": 812.4, "machine_mib": 9000.0, "gpu_mib": 28713.0, "watts": 312.4}'
    )
    found = Sample.parse(line)
    assert (found.part, found.done, found.elsewhere) == (1, 7, False)
    assert found.reading == Reading(812.4, 9000.0, 28713.0, 312.4, ())


@pytest.mark.parametrize(
    "gpus",
    [7, [7], [{}], [{"id": 0, "name": "card"}], [gpu("0", mib="1")], [gpu("0", watts=1e19)], [gpu("0", throttled=1)]],
)
def test_a_gpu_that_is_none_makes_no_sample(tmp_path: Path, gpus: object) -> None:
    """The line is left out, as any that is damaged."""
    path = tmp_path / "samples.jsonl"
    path.write_text("".join(json.dumps(row(0, float(t), gpus=gpus if t == 1 else [])) + "\n" for t in range(3)))
    assert [sample.seconds for sample in read_samples(path)] == [0.0, 2.0]
