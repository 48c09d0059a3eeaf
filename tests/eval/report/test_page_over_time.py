"""What the page shows of the machine: samples over time, GPUs, energy, memory."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from eval.report.page import render, view
from eval.runs.run import Run
from eval.runs.samples import SAMPLES, Sample
from orin_runner.machine.nvml import GpuReading
from orin_runner.machine.sensors import Reading
from tests.support.pages import TWO_GPUS, drawn, item, metered, page_of, write


def test_a_metered_run_is_drawn_over_time(tmp_path: Path) -> None:
    """Its own numbers: 2 x 19 s at 250 W are 9,500 J. The machine's memory only where it is the GPU's as well."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(run)
    assert drawn(page) == [
        "Tokens computed for the answers",
        "Memory of orin-run's processes",
        "Memory in use on the GPU",
        "Power",
    ]
    for said in (
        "Memory of orin-run's processes: 419 MiB at most",
        "Memory in use on the GPU: 2,800 MiB at most",
        "Power: 250.0 W on average, 250.0 W at most, 9,500 J in 38 s (NVML GPU 0)",
        "At the dashed line the run was resumed.",
        "100 tokens/s",
        "38.0 s",
    ):
        assert said in page.text, said
    assert sum(tag == "polyline" for tag, _ in page.tags) == 8, "four charts of two parts"
    memory = {"device": {"name": "Orin", "cuda": True, "unified": True}, "terms": {}}
    orin = write(tmp_path / "o", [item(i) for i in range(12)], header={"engine": "x", "memory": memory})
    page = page_of(metered(orin, known=False, unified=True))
    assert drawn(page)[1:] == ["Memory of orin-run's processes", "Memory in use on the machine"]
    assert "Memory in use on the machine: 9,019 MiB at most" in page.text
    assert "W on average" not in page.text


def test_several_gpus_are_drawn_apart(tmp_path: Path) -> None:
    """A line and a row for each, with its own colour; the totals are said once."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]), gpus=TWO_GPUS)
    page = page_of(run)
    assert drawn(page)[2:] == [
        "Memory in use on the GPU",
        "Power",
        "Load of the GPU",
        "Clock of the GPU's SMs",
        "Temperature of the GPU",
    ]
    lines = [attributes["class"] for tag, attributes in page.tags if tag == "polyline"]
    assert lines == ["line still r0"] * 4 + 5 * (["line still r0"] * 2 + ["line still r1"] * 2)
    for said in (
        "Memory in use on the GPU: 2,800 MiB at most on one GPU GPU 0 GPU 1",
        "Power: 250.0 W on average, 250.0 W at most, 9,500 J in 38 s (NVML GPU 0) GPU 0 GPU 1",
        "Load of the GPU GPU 0 GPU 1",
        "0: H100 2,500 2,400 100.0 80 % 1,700 MHz 61 °C never",
        "1: H200 2,800 150.0 90 % 1,800 MHz 71 °C thermal 38.0 s",
    ):
        assert said in page.text, said
    one = page_of(metered(write(tmp_path / "one", [item(0)]), gpus=TWO_GPUS[:1]))
    assert "Load of the GPU 80 %" in one.text, "one GPU needs no name in a chart: the axis follows"
    assert "0: H100 2,500 2,400" in one.text


def test_a_total_that_was_known_for_a_moment_is_not_said(tmp_path: Path) -> None:
    """One of two GPUs told its power once: the other's is drawn, and no mean of both is made up."""
    run = metered(write(tmp_path / "r", [item(0)]), known=False)
    samples = [
        Sample(
            0, float(t), "t", 0, 0.0, 0, Reading(watts=9.0 if t == 2 else None, gpus=(GpuReading("0", "a", watts=5.0),))
        )
        for t in range(5)
    ]
    (run.directory / SAMPLES).write_bytes(b"".join(sample.line() for sample in samples))
    page = page_of(replace(Run.open(run.directory), report={}))
    assert drawn(page) == ["Power"]
    assert "on average" not in page.text


def test_runs_with_several_gpus_stand_side_by_side(tmp_path: Path) -> None:
    """Each run has one colour, for all its GPUs."""
    two = metered(write(tmp_path / "two", [item(0)]), gpus=TWO_GPUS)
    old = metered(write(tmp_path / "old", [item(0)]))
    page = page_of(old, two)
    lines = [attributes["class"] for tag, attributes in page.tags if tag == "polyline"]
    assert lines[-4:] == ["line still r1"] * 4, "temperature: of the newer run alone"
    assert re.search(r'<h2><span class="dot r1"[^>]*></span> two: GPUs</h2>', render(view([old, two])))
    assert "two: GPUs" in page.text
    assert "old: GPUs" not in page.text


def test_energy_is_on_the_first_screen(tmp_path: Path) -> None:
    """Of 19 items and 1,710 tokens in each of two parts of 19 s: 250 W are 250 J an item. An older report has none."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(run)
    assert "J an item 250 J per 1,000 tokens 2,778 items per Wh 14.4" in page.text
    assert page.text.index("J an item") < page.text.index("t: accuracy")
    for key in ("energy", "gpus"):
        del run.report["measured"][key]
    page = page_of(run)
    assert "J an item" not in page.text
    assert "9,500 J in 38 s" in page.text


@pytest.mark.parametrize(("unified", "said"), [(False, "2,800 MiB were in use on the GPU"), (True, "9,019 MiB were")])
def test_the_peak_stands_beside_the_plan(tmp_path: Path, unified: bool, said: str) -> None:
    """Of the memory that the plan is for."""
    memory = {"device": {"name": "Orin", "cuda": True, "unified": unified, "available": 1 << 32}, "terms": {}}
    run = write(tmp_path / "r", [item(0)], header={"engine": "x", "memory": {**memory, "total": 3 << 30}})
    assert "3,072 of 4,096 MiB on Orin" in page_of(run).text
    assert f"3,072 of 4,096 MiB on Orin; at most {said}" in page_of(metered(run, unified=unified)).text


def test_a_run_without_samples_is_not_drawn(tmp_path: Path) -> None:
    """Older runs, and those of the reference, alone and beside a metered one."""
    old = write(tmp_path / "old", [item(i) for i in range(12)])
    assert "Over time" not in page_of(old).text
    new = metered(write(tmp_path / "new", [item(i) for i in range(12)]))
    page = page_of(old, new)
    assert len(drawn(page)) == 4
    assert "Power new: 250.0 W on average" in page.text
    assert "old: 2" not in page.text


def test_a_killed_run_is_drawn_from_its_samples(tmp_path: Path) -> None:
    """There is no report to take numbers from."""
    run = metered(write(tmp_path / "r", [item(i) for i in range(12)]))
    page = page_of(replace(run, report={}))
    assert len(drawn(page)) == 4
    assert "9,500 J in 38 s" in page.text


def test_measured_memory_is_on_the_card_and_under_the_plan(tmp_path: Path) -> None:
    """Beside what was planned, and what llama.cpp allocated beside the terms; on a CPU that of orin-run's processes."""
    mib = 1 << 20
    memory = {
        "device": {"name": "CPU", "available": 4096 * mib},
        "terms": {"weights": 200 * mib, "KV cache": 100 * mib},
        "total": 300 * mib,
        "allocated_mib": {"KV": 98.5},
    }
    run = write(tmp_path / "r", [item(0)], header={"engine": "x", "memory": memory})
    assert "measured, at most" not in page_of(run).text
    page = page_of(metered(run, known=False))
    assert "of planned MiB 419 of 300" in page.text
    assert "term planned MiB allocated weights 200.0 KV cache 100.0 98.5 planned in all 300.0" in page.text
    assert "measured, at most, by orin-run's processes 419.0" in page.text
