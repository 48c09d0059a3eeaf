"""What commands print at 80, 100 and 120 columns: no number is cut, no line is wider, text is all there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from eval.report.page import write_page
from eval.runs.run import Run
from orin_runner.cli.inspect import Findings, description, print_description
from orin_runner.cli.plan import print_plan
from orin_runner.cli.report import print_runs
from orin_runner.cli.result import print_report
from orin_runner.cli.selftest import print_selftest
from orin_runner.console import Notes, say
from orin_runner.engine.selftest import SelftestResult
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.devices import KNOWN
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import ContextSettings
from orin_runner.model.proof import Proof, Verdict, examine
from orin_runner.workers.vocabulary import own_tokenizer
from tests.support.paths import REFERENCE
from tests.support.widths import check, said


def test_a_file_that_is_inspected(tiny_gguf: Path) -> None:
    file = GGUFFile.open(tiny_gguf)
    refused = ("it is this and that", "it does not fit into this machine's memory: 123,456 MiB more are needed " * 3)
    found = description(file, Findings(examine(file).verdict, own_tokenizer(file), refused))
    check(lambda: print_description(found), whole=[tiny_gguf])


def test_a_plan_for_a_device_that_is_not_here(tiny_gguf: Path) -> None:
    planner = MemoryPlanner(GGUFFile.open(tiny_gguf), KNOWN["orin-32gb"], 2)
    plan, _ = planner.plan_that_fits(Needs(700, row_share=0.3, generated=True), [700])
    check(lambda: print_plan(plan))


@pytest.mark.parametrize("verbose", [False, True])
def test_a_report_of_a_run(*, verbose: bool) -> None:
    opened = Run.open(REFERENCE / "float32")
    check(lambda: print_report(opened.report, Path("runs/exam"), opened.header, verbose=verbose))


def test_the_lines_of_a_comparison(tmp_path: Path) -> None:
    """What ``report`` prints."""
    page = write_page([Run.open(REFERENCE / name) for name in ("float32", "bfloat16")], tmp_path / "page.html")
    check(lambda: print_runs(page))


def section(n_groups: int) -> dict[str, Any]:
    """A task of many items, groups and metrics."""
    names = [f"high_school_government_and_politics_of_the_{i}th_kind" for i in range(n_groups)]
    return {
        "accuracy": 1.0,
        "stderr": 0.1234,
        "items": 14042,
        "rows": 1_204_200,
        "split": "validation",
        "failed": 3,
        "groups": {name: {"accuracy": 1.0, "stderr": 0.1, "items": 1534} for name in names},
        "metrics": {each: {"value": 1.0, "stderr": 0.1} for each in ("acc", "acc_norm", "acc_bytes", "acc_tokens")},
        "tokens": {"sent": 123_456_789, "unique": 23_456_789, "computed": 23_999_999},
        "clocks": {"challenge 2024": 12_345.6, "challenge 2023": 12_346.6},
        "items_per_s": 1234.5,
        "noise": {"scores": {"compared": 128, "rms": 0.0214, "largest": 0.0767, "near_tie": 0.107}, "texts": None},
        "near_ties": 3,
    }


@pytest.mark.parametrize("verbose", [False, True])
def test_a_report_of_large_numbers(*, verbose: bool) -> None:
    report = {"tasks": {"commonsense_qa_with_a_longer_name": section(57), "mmlu": section(3)}}
    header = {"model": Verdict(Proof.VERIFIED).keys}
    check(lambda: print_report(report, Path("runs/all"), header, verbose=verbose))


def test_the_result_of_a_selftest() -> None:
    result = SelftestResult(10_000, 123_456_789, 123_456_999, 131_072, 2047, 0.1234, 0.0912, 1.5)
    check(lambda: print_selftest(result))


def test_groups_are_folded_unless_asked_for() -> None:
    """And the scores stand at the end."""
    report, header = {"tasks": {"mmlu": section(57)}}, {"model": Verdict(Proof.VERIFIED).keys}
    lines = said(lambda: print_report(report, Path("runs/a"), header, verbose=False), 100)
    assert [line for line in lines if "high_school" in line] == []
    assert any(line.startswith("mmlu") for line in lines[-6:])
    assert lines[-1] == "run written to runs/a"
    lines = said(lambda: print_report(report, Path("runs/a"), header, verbose=True), 100)
    assert len([line for line in lines if line.startswith("  high_school")]) == 57


def test_a_plan_for_a_device_of_many_words() -> None:
    device = DeviceMemory("a board", 10**12, unified=True, cuda=True, present=True, note="a few words " * 12)
    terms = {"weights": 5 * 10**11, "KV cache": 10**10, "a term whose name is long and has many words in it": 3 * 10**9}
    plan = MemoryPlan(device, ContextSettings(4096, 2048, 512, 256), 1, terms, ("weights",), (), 700, fits=True)
    check(lambda: print_plan(plan))


def test_notes_are_cut_between_words(tmp_path: Path) -> None:
    """But not errors: what is to be typed in them is copied."""
    path = tmp_path / ("x" * 120)

    def program() -> None:
        Notes().warn(f"the file {path} is none of {'those ' * 20}")
        Notes().error("e " * 60, "hint")

    lines = said(program, 80)
    assert lines[0] == "warning: the file"
    assert lines[1] == f"  {path}"
    assert len(lines) == 5
    assert lines[-1] == f"error: {'e ' * 60}; hint"


def test_cells_are_counted_and_not_characters() -> None:
    """A character may have two."""
    lines = said(lambda: say("  名前 " * 20), 30)
    assert max(map(cell_len, lines)) <= 30
    assert " ".join(lines).split() == ["名前"] * 20


def test_a_pipe_has_no_width(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each thing that is said and for each row, for programs, whatever is exported."""
    monkeypatch.setenv("COLUMNS", "30")
    report = {"tasks": {"mmlu": section(3)}}
    print_report(report, Path("runs/a"), {"model": Verdict(Proof.VERIFIED).keys}, verbose=True)
    Notes().warn("word " * 30)
    out, err = capsys.readouterr()
    assert [len(line.split()) for line in err.splitlines()] == [31]
    assert sum(line.startswith("  high_school") for line in out.splitlines()) == 3
    assert max(map(len, out.splitlines())) > 100
