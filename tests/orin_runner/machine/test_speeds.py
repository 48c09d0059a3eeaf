"""What is remembered of how fast a model was on a device, and what becomes of a file that is damaged."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from orin_runner.machine import kept, speeds
from orin_runner.machine.speeds import Speed, device_name, keep_speeds, read_speeds, speed_of

ONE = Speed("abc", "CPU", "0.3.36", "mmlu", 500.0, None, "runs/a", "2026-11-27T12:00:00+00:00")


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file, which is not there."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "orin-run" / "speeds.json"


def test_the_last_measurement_of_the_same_counts() -> None:
    """Others stay."""
    assert read_speeds() == []
    others = [replace(ONE, **{key: "other"}) for key in ("model", "device", "library", "task")]
    keep_speeds([ONE, *others])
    keep_speeds([faster := replace(ONE, tokens_per_s=600.0, run="runs/b")])
    assert read_speeds() == [*others, faster]


def test_no_more_are_kept_than_anybody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest go."""
    monkeypatch.setattr(kept, "MOST", 3)
    for task in "abcde":
        keep_speeds([replace(ONE, task=task)])
    assert [speed.task for speed in read_speeds()] == ["c", "d", "e"]


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", "{}", "[{}]", '[{"model": 3}]', "\xff", "[" * 10_000, json.dumps([[asdict(ONE)]])]
)
def test_a_damaged_file_is_none(state: Path, content: str) -> None:
    """And is written anew by the next run."""
    state.parent.mkdir(parents=True)
    state.write_text(content, encoding="latin-1")
    assert read_speeds() == []
    keep_speeds([ONE])
    assert read_speeds() == [ONE]


def test_numbers_that_cannot_be_calculated_with_are_left_out(state: Path) -> None:
    """One of another program's; none of ours."""
    state.parent.mkdir(parents=True)
    odd = [{"tokens_per_s": 0.0}, {"tokens_per_s": -1.0}, {"tokens_per_s": 1e30}, {"steps": -1.0}, {"steps": 1e30}]
    state.write_text(json.dumps([asdict(ONE) | change for change in [*odd, {}]]))
    assert read_speeds() == [ONE]
    state.unlink()
    keep_speeds([replace(ONE, tokens_per_s=0.0)])
    assert not state.exists()


def test_a_task_that_was_not_measured_goes_by_one_of_its_kind() -> None:
    """Of two the newer; texts never by scores."""
    known = [ONE, replace(ONE, task="boolq"), replace(ONE, task="bbh", steps=3.0), replace(ONE, task="piqa")]
    assert speed_of(known, "mmlu", texts=False) == ONE
    assert speed_of(known, "hellaswag", texts=False) == known[3]
    assert speed_of(known, "drop", texts=True) == known[2]
    assert speed_of(known, "mmlu", texts=True) == known[2]
    assert speed_of([ONE], "drop", texts=True) is None


def test_devices_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the GPU, the processor and its threads, and the number of replicas."""
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nmodel name\t: Some CPU\nprocessor\t: 1\nmodel name\t: Some CPU\n")
    monkeypatch.setattr(speeds, "CPU_INFO", info)
    monkeypatch.setattr(speeds, "cpu_threads", lambda: 12)
    assert device_name("CPU", cuda=False, replicas=1) == "Some CPU, 12 threads"
    assert device_name("CPU", cuda=False, replicas=3) == "3 x Some CPU, 12 threads"
    assert device_name("CUDA0 (NVIDIA H100)", cuda=True, replicas=2) == "2 x CUDA0 (NVIDIA H100)"
    info.write_text("processor\t: 0\nCPU part\t: 0xd42\n")  # as on an Orin
    assert device_name("CPU", cuda=False, replicas=1) == "CPU, 12 threads"
