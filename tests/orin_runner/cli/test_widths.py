"""What every command prints at 80, 100 and 120 columns: no number is cut, no line is wider, text is all there."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from eval.report.page import write_page
from eval.runs.run import Run
from orin_runner.cli.inspect import Findings, description, print_description
from orin_runner.cli.main import main
from orin_runner.cli.plan import print_plan
from orin_runner.cli.report import print_runs
from orin_runner.cli.result import print_report
from orin_runner.console import Notes
from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.devices import KNOWN
from orin_runner.machine.memory_plan import MemoryPlan, MemoryPlanner, Needs
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import ContextSettings
from orin_runner.model.proof import Proof, Verdict, examine
from orin_runner.workers.vocabulary import own_tokenizer
from tests.support.paths import REFERENCE
from tests.support.terminal import on_terminal, shown

NUMBER = re.compile(r"[-+(]?\d[\d,./]*[%;,)]*")
"""A word of these characters alone, with what may stand beside it in a sentence."""
WIDTHS = (80, 100, 120)
Say = Callable[[int | None], str]
"""What is printed in so many columns; None: as many as it takes."""


@pytest.fixture
def wide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Callable[[], Any]], Say]:
    """Makes of a program one that is told how wide to print."""

    def of(program: Callable[[], Any]) -> Say:
        def say(columns: int | None) -> str:
            monkeypatch.delenv("COLUMNS", raising=False)
            if columns is not None:
                monkeypatch.setenv("COLUMNS", str(columns))
            with suppress(SystemExit):
                program()
            captured = capsys.readouterr()
            return captured.out + captured.err

        return say

    return of


def check(say: Say, *, paths: Sequence[Path] = ()) -> None:
    """A narrow screen has all numbers of a wide one, and no longer lines than it may; paths stay whole."""
    whole = say(None)
    assert numbers(whole), whole
    for columns in WIDTHS:
        narrow = say(columns)
        assert "…" not in narrow
        assert "error:" not in narrow
        assert not numbers(whole) - numbers(narrow), narrow
        for line in narrow.splitlines():
            assert cell_len(line) <= columns or any(str(path) in line for path in paths), line


def numbers(text: str) -> Counter[str]:
    return Counter(word.strip(";,()") for word in text.split() if NUMBER.fullmatch(word))


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> Callable[[], None]:
    """``orin-run`` with ``arguments``, in this process."""

    def program() -> None:
        monkeypatch.setattr(sys, "argv", ["orin-run", *map(str, arguments)])
        main()

    return program


@pytest.mark.parametrize(
    "arguments",
    [
        ("tasks",),
        ("tasks", "phi3"),
        ("diff", "float32", "bfloat16"),
        ("diff", "float32", "bfloat16", "float32"),
    ],
    ids=" ".join,
)
def test_commands_without_a_model(
    arguments: tuple[str, ...], wide: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(REFERENCE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    check(wide(command(monkeypatch, *arguments)))


def test_a_file_that_is_inspected(wide: Any, tiny_gguf: Path) -> None:
    file = GGUFFile.open(tiny_gguf)
    refused = ("it is this and that", "it does not fit into this machine's memory: 123,456 MiB more are needed " * 3)
    found = description(file, Findings(examine(file).verdict, own_tokenizer(file), refused))
    check(wide(lambda: print_description(found)), paths=[tiny_gguf])


def test_a_plan_for_a_device_that_is_not_here(wide: Any, tiny_gguf: Path) -> None:
    planner = MemoryPlanner(GGUFFile.open(tiny_gguf), KNOWN["orin-32gb"], 2)
    plan, _ = planner.plan_that_fits(Needs(700, row_share=0.3, generated=True), [700])
    check(wide(lambda: print_plan(plan)))


@pytest.mark.parametrize("verbose", [False, True])
def test_a_report_of_a_run(wide: Any, *, verbose: bool) -> None:
    opened = Run.open(REFERENCE / "float32")
    check(wide(lambda: print_report(opened.report, Path("runs/exam"), opened.header, verbose=verbose)))


def test_the_lines_of_a_comparison(wide: Any, tmp_path: Path) -> None:
    """What ``report`` prints."""
    page = write_page([Run.open(REFERENCE / name) for name in ("float32", "bfloat16")], tmp_path / "page.html")
    check(wide(lambda: print_runs(page)))


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
def test_a_report_of_large_numbers(wide: Any, *, verbose: bool) -> None:
    report = {"tasks": {"commonsense_qa_with_a_longer_name": section(57), "mmlu": section(3)}}
    header = {"model": Verdict(Proof.VERIFIED).keys}
    check(wide(lambda: print_report(report, Path("runs/all"), header, verbose=verbose)))


def test_groups_are_folded_unless_asked_for(wide: Any) -> None:
    """And the scores stand at the end."""
    report, header = {"tasks": {"mmlu": section(57)}}, {"model": Verdict(Proof.VERIFIED).keys}
    lines = wide(lambda: print_report(report, Path("runs/a"), header, verbose=False))(100).splitlines()
    assert [line for line in lines if "high_school" in line] == []
    assert any(line.startswith("mmlu") for line in lines[-6:])
    assert lines[-1] == "run written to runs/a"
    lines = wide(lambda: print_report(report, Path("runs/a"), header, verbose=True))(100).splitlines()
    assert len([line for line in lines if line.startswith("  high_school")]) == 57


def test_a_plan_for_a_device_of_many_words(wide: Any) -> None:
    device = DeviceMemory("a board", 10**12, unified=True, cuda=True, present=True, note="a few words " * 12)
    terms = {"weights": 5 * 10**11, "KV cache": 10**10, "a term whose name is long and has many words in it": 3 * 10**9}
    plan = MemoryPlan(device, ContextSettings(4096, 2048, 512, 256), 1, terms, ("weights",), (), 700, fits=True)
    check(wide(lambda: print_plan(plan)))


def test_notes_are_cut_between_words(wide: Any, tmp_path: Path) -> None:
    """But not errors: what is to be typed in them is copied."""
    path = tmp_path / ("x" * 120)
    say = wide(lambda: (Notes().warn(f"the file {path} is none of {'those ' * 20}"), Notes().error("e " * 60, "hint")))
    lines = say(80).splitlines()
    assert lines[0] == "warning: the file"
    assert lines[1] == f"  {path}"
    assert len(lines) == 5
    assert lines[-1] == f"error: {'e ' * 60}; hint"
    assert say(None).count("\n") == 2


def test_a_run_on_a_terminal(tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The progress line, too, whose end is the time left."""
    monkeypatch.chdir(tmp_path)
    status, written = on_terminal("eval", "exam", "--limit", "8", "--model", tiny_gguf, "--out", "run", columns=80)
    lines = [line.rstrip() for line in shown(written)]
    assert status == 0, written
    assert [line for line in lines if "…" in line] == []
    assert [line for line in lines if cell_len(line) > 80 and str(tiny_gguf) not in line] == []
    assert any(re.fullmatch(r"exam .* %  ?(.* )?(\d:\d\d:\d\d|-:--:--)", line) for line in lines), lines
    assert re.fullmatch(r"exam +8 of 480 +exact_match +\d+\.\d\d% ± \d+\.\d\d%", lines[-4]), lines
    assert lines[-2:] == ["proof: verified", "run written to run"]


@pytest.mark.parametrize("plain", [False, True])
def test_no_color(*, plain: bool) -> None:
    """An error is red on a terminal, and not where ``NO_COLOR`` says so."""
    status, written = on_terminal("tasks", "none", columns=80, env={"NO_COLOR": "1"} if plain else {})
    assert status == 2, written
    assert "error: " in written
    assert ("\x1b[31m" in written) is not plain
