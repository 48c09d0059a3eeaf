"""Numbers on the screen, each by hand: units, digits, shares, and what they are divided by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from orin_runner.cli.account import energy_line, gpu_lines, measured_line, task_lines
from orin_runner.cli.launch import device_line, plan_lines, short_model_line
from orin_runner.cli.plan import print_plan
from orin_runner.cli.result import print_report
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import ContextSettings
from orin_runner.model.llama_library import Device
from orin_runner.model.proof import Proof, Verdict
from orin_runner.workers.messages import Loaded

MIB = 2**20
AGAIN, RMS = "computed again alone moved by", "nats (root mean square), at most"
SECTION: dict[str, Any] = {
    "accuracy": 0.66667,
    "stderr": 0.04321,
    "items": 1200,
    "failed": 7,
    "split": "test",
    "rows": 2400,
    "groups": {
        "hard": {"accuracy": 0.5, "stderr": 0.0625, "items": 600},
        "easy": {"accuracy": 0.83334, "stderr": 0.0, "items": 600},
    },
    "tokens": {"sent": 9_876_543, "unique": 1_234_567, "computed": 1_300_000, "checked": 5, "restored": 2_000},
    "clocks": {
        "challenge 2024": 600.0,
        "challenge 2024 without data": 480.0,
        "challenge 2023": 720.0,
    },
    "items_per_s": 2.0449,
    "noise": {
        "scores": {"compared": 128, "rms": 0.0214, "largest": 0.0767, "near_tie": 0.107},
        "texts": {"compared": 8, "rms": 0.031, "largest": 0.052, "near_tie": 0.156},
    },
    "near_ties": 3,
    "metrics": {
        "f1": {"value": 0.66667, "stderr": 0.04321},
        "em": {"value": 0.12345, "stderr": 0.01},
        "recall": {"value": 0.9, "stderr": 0.01},
    },
    "greedy": {"texts": 900, "decode_steps_per_text": 1.256, "drafted_share": 0.98765},
    "resumed": 300,
    "without_record": 200,
    "unanswered": 1200,
    "share_of_prompt_rate": 0.876,
}


def test_lines_of_a_task() -> None:
    """Seconds an item are those of the items that the clocks are of: 600 s by 1,000."""
    assert task_lines(SECTION, {"tokens_per_s": 12_345.6}) == [
        "all 2,400 rows of the test split",
        "7 items were not answered and count as wrong; see predictions.jsonl",
        "interrupted with 1200 items unanswered; accuracy is of the others",
        "challenge 2024 clock, data and inference: 600.000 s, 0.6000 s an item",
        "challenge 2024 clock, without data pre-processing: 480.000 s, 0.4800 s an item",
        "challenge 2023 clock, from process start: 720.000 s, 0.7200 s an item",
        "900 greedy texts: 1.26 decode steps a text, 98.8% of tokens were verified drafts",
        "300 items were answered before; clocks and tokens are without those of 200 items, of which no record was left",
        "2,000 tokens came from the prompt cache of an earlier run",
        f"3 near-ties: 128 scored tokens {AGAIN} 0.021 {RMS} 0.077; 8 rows of texts {AGAIN} 0.031 {RMS} 0.052",
        "88% of this machine's prompt rate (12,346 tokens/s)",
    ]


def printed(capsys: pytest.CaptureFixture[str], *, verbose: bool, **changes: Any) -> list[list[str]]:
    """The words of each line of a report of one task."""
    report = {"tasks": {"t": {**SECTION, **changes}}}
    print_report(report, Path("runs/t"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=verbose)
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_the_tables_of_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Percent with two digits, groups above their task, tokens in the order of the header."""
    rows = printed(capsys, verbose=True)
    assert ["hard", "600", "50.00%", "±", "6.25%"] in rows
    assert ["easy", "600", "83.33%", "±", "0.00%"] in rows
    assert ["t", "600.0", "2.0", "9,876,543", "1,234,567", "1,300,000"] in rows
    scores = ["t", "1,200", "of", "2,400", "f1", "66.67%", "±", "4.32%", "em", "12.35%,", "recall", "90.00%"]
    assert rows.index(scores) > rows.index(["easy", "600", "83.33%", "±", "0.00%"])


def test_a_quiet_report_is_scores_and_costs(capsys: pytest.CaptureFixture[str]) -> None:
    """The clocks are of 1,000 of the 1,200 items; what makes the score another one is said all the same."""
    rows = printed(capsys, verbose=False)
    assert [" ".join(row) for row in rows] == [
        "t: 7 items were not answered and count as wrong; see predictions.jsonl",
        "t: interrupted with 1200 items unanswered; accuracy is of the others",
        "task items metric value ± s.e. other metrics",
        "t 1,200 of 2,400 f1 66.67% ± 4.32% em 12.35%, recall 90.00%",
        "1,000 items in 489.0 s (2.0/s); 1,300,000 tokens computed, 9,876,543 without sharing",
        "proof: verified",
        "run written to runs/t",
    ]


def test_memory_and_power() -> None:
    """The machine's memory counts where CPU and GPU share it."""
    measured = {
        "unified": False,
        "peak_host_mib": 1234.6,
        "peak_machine_mib": 9000.4,
        "peak_gpu_mib": 28_713.0,
        "peak_watts": 310.25,
        "mean_watts": 251.04,
        "joules": 9541.7,
        "power_seconds": 38.2,
    }
    power = "power 251.0 W on average, 310.2 W at most, 9,542 J in 38 s"
    assert measured_line(measured) == (f"highest memory in use: its processes 1,235 MiB, the GPU 28,713 MiB; {power}")
    unified = {**measured, "unified": True, "peak_gpu_mib": None}
    assert measured_line(unified) == (
        f"highest memory in use: its processes 1,235 MiB, the whole machine 9,000 MiB; {power}"
    )


def test_each_gpu_has_its_line() -> None:
    """What is not known is left out; the peak of all is that of one of them."""
    known = {"peak_mib": 71_234.6, "peak_own_mib": 70_000.0, "mean_watts": 650.04, "mean_load": 97.6}
    known |= {"mean_sm_mhz": 1755.4, "max_celsius": 71.0, "throttled_s": {"power cap": 12.6, "thermal": 0.4}}
    gpus = [{"id": "0", "name": "H100", **known}, {"id": "1", "name": "H100", **dict.fromkeys(known)}]
    slowed = "slowed down for 13 s (power cap), slowed down for 0 s (thermal)"
    assert gpu_lines({"gpus": gpus}) == [
        f"GPU 0 (H100): 71,235 MiB at most, 650.0 W, 98 % load, 1,755 MHz on average, 71 °C at most, {slowed}",
        "GPU 1 (H100): nothing is known",
    ]
    measured = {"unified": False, "peak_gpu_mib": 71_234.6, "joules": None, "gpus": gpus}
    assert measured_line(measured) == "highest memory in use: the fullest GPU 71,235 MiB"
    assert measured_line({**measured, "gpus": gpus[:1]}) == "highest memory in use: the GPU 71,235 MiB"


@pytest.mark.parametrize(
    ("value", "said"),
    [(1234.5, "1,234"), (180.04, "180"), (12.345, "12.3"), (1.0, "1.00"), (0.04567, "0.0457"), (1e-9, "0.000000")],
)
def test_energy_has_three_digits(value: float, said: str) -> None:
    """What is not known is left out."""
    energy = {"joules": 5.0, "joules_per_item": value, "joules_per_1000_tokens": None, "items_per_wh": 20.0}
    assert energy_line(energy) == f"{said} J an item, 20.0 items per Wh"
    assert energy_line(dict.fromkeys(energy)) == ""


def plan(*, unified: bool) -> MemoryPlan:
    device = DeviceMemory("a board", 1000 * MIB, unified, cuda=True, present=True, note="by hand")
    terms = {"weights": 500 * MIB, "KV cache": 200 * MIB, "outputs": 30 * MIB, "program": 300 * MIB}
    return MemoryPlan(
        device, ContextSettings(4096, 2048, 512, 256), 1, terms, ("weights", "KV cache"), ("program",), 700, fits=True
    )


@pytest.mark.parametrize(("unified", "total", "remaining"), [(True, "1,030", "-30"), (False, "700", "300")])
def test_the_table_of_a_plan(capsys: pytest.CaptureFixture[str], unified: bool, total: str, remaining: str) -> None:
    """In MiB; what lies on the host is taken from the device where they share one memory."""
    one = plan(unified=unified)
    print_plan(one)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    where = ["unified"] * 3 if unified else ["device", "device", "host"]
    assert ["weights", "500", where[0]] in rows
    assert ["KV", "cache", "200", where[1]] in rows
    assert ["program", "(assumed)", "300", where[2]] in rows
    assert ["total", total] in rows
    assert ["available", "(by", "hand)", "1,000"] in rows
    assert ["remaining", remaining] in rows
    assert (one.to_json()["total"], one.to_json()["remaining"]) == (
        int(total.replace(",", "")) * MIB,
        int(remaining) * MIB,
    )
    assert plan_lines(one) == [
        "settings: n_ctx 4096, n_batch 2048, n_ubatch 512, 256 sequences, 256 outputs",
        f"memory plan for a board: {total} of 1,000 MiB; longest request 700 tokens",
    ]


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        (41, "device: CUDA0 (NVIDIA H100 80GB HBM3); plan: "),
        (40, "device: 40 of 41 layers on CUDA0 (NVIDIA H100 80GB HBM3), THE OTHER 1 ON THE CPU; plan: "),
    ],
)
def test_the_line_of_a_device(layers: int, said: str) -> None:
    """With all that a plan takes; what the CPU has of a model is not to be overlooked."""
    gpu = Device("CUDA0", "NVIDIA H100 80GB HBM3", is_gpu=True, free=0, total=0)
    line = device_line(Loaded(0.0, layers, 41, 9, (gpu,), {}), replace(plan(unified=False), n_contexts=4))
    assert line == f"{said}700 of 1,000 MiB, 4 contexts of n_ctx 4096"
    assert len(line.replace(", THE OTHER 1 ON THE CPU", "").replace("40 of 41 layers on ", "")) <= 100
    cpu = Device("CPU", "a CPU", is_gpu=False, free=0, total=0)
    assert device_line(Loaded(0.0, 0, 41, 9, (cpu,), {}), plan(unified=True)).startswith("device: CPU; plan: 1,030 of")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"altered_values": None}, ""),
        ({"altered_values": 1234}, ", 1,234 values altered"),
        ({"quantized": ("Q8_0",), "altered_values": 5}, ", quantized"),
    ],
)
def test_the_line_of_a_model(changes: dict[str, Any], said: str) -> None:
    """The type of most bytes first; what is not the checkpoint's is said, and that alone."""
    known = {"tensor_types": {"F32": (13, 2**28), "BF16": (30, 26 * 2**30)}, "quantized": (), "altered_values": 0}
    line = short_model_line(cast("GGUFFile", SimpleNamespace(**{**known, **changes})), Verdict(Proof.HEADER, "why"))
    assert line == f"26.25 GiB BF16+F32{said}, proof: from the header only"
