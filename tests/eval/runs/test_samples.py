"""Samples as they are read again, damaged or not, and what all of them come to."""

from __future__ import annotations

import json
from pathlib import Path

from eval.runs.samples import read_samples, summary
from tests.support.samples import row, sample


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


def test_energy_is_power_times_time_where_power_is_known() -> None:
    """10 W rising to 30 W in 2 s, then 1 s unknown on both sides of a gap, then in another part 40 W for 3 s."""
    samples = [
        sample(0, 0.0, watts=10.0, host_mib=5.0),
        sample(0, 2.0, watts=30.0, host_mib=9.0, gpu_mib=7.0),
        sample(0, 3.0, machine_mib=11.0),
        sample(0, 4.0, watts=50.0),
        sample(1, 0.0, watts=40.0),
        sample(1, 3.0, watts=40.0),
    ]
    found = summary(samples, power_source="here")
    assert found == {
        "samples": 6,
        "seconds": 7.0,
        "unified": False,
        "peak_host_mib": 9.0,
        "peak_machine_mib": 11.0,
        "peak_gpu_mib": 7.0,
        "peak_watts": 50.0,
        "mean_watts": 32.0,  # 160 J in 5 s
        "joules": 160.0,
        "power_seconds": 5.0,
        "power_source": "here",
    }


def test_what_was_never_read_is_null() -> None:
    found = summary([sample(0, 0.0), sample(0, 1.0)])
    assert found is not None
    names = ("peak_host_mib", "peak_machine_mib", "peak_gpu_mib", "peak_watts", "mean_watts", "joules", "power_source")
    assert {found[name] for name in names} == {None}
    assert summary([]) is None
