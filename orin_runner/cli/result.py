"""What a command that ran something leaves and prints: the run's page, its report, its numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from eval.report.page import write_page
from eval.report.section import CHALLENGE_2024, share_of_prompt_rate
from eval.runs.run import PAGE, PREDICTIONS, Run, lossy_line, quantized_types
from orin_runner.cli.account import (
    accuracy,
    energy_line,
    gpu_lines,
    measured_line,
    notable_lines,
    task_lines,
    timed,
)
from orin_runner.console import Notes, print_table, say, say_json
from orin_runner.engine.prompt_rate import PromptRate
from orin_runner.errors import RunError
from orin_runner.model.proof import Verdict
from orin_runner.table import BOUND

CHALLENGE = "challenge"
"""The task whose clocks are asked for."""


def run_folder(names: Sequence[str]) -> Path:
    """Where a run goes that no --out names a folder for."""
    return Path("runs") / f"{'+'.join(names)}-{datetime.now().astimezone().strftime('%Y%m%d-%H%M%S')}"


def add_prompt_rate(report: dict[str, Any], measure: Callable[[], PromptRate | None], notes: Notes) -> None:
    """Measure the prompt rate and put it into ``report``, with the share of it that each task reached.

    Args:
        report: of a run whose clocks have all stopped; changed.
        measure: ``Supervisor.prompt_rate``.
        notes: where it is told if nothing was measured.
    """
    notes.note("measuring plain prompt processing")
    try:
        rate = measure()
    except KeyboardInterrupt:
        rate = None
    if rate is None:
        notes.warn("plain prompt processing was not measured: interrupted, or the engine has died")
        return
    report["prompt_rate"] = rate.to_json()
    for section in report["tasks"].values():
        section["share_of_prompt_rate"] = share_of_prompt_rate(section, rate.tokens_per_s)


def raise_for_failed(sections: Mapping[str, Any], out: Path, among: int | None = None, again: str = "") -> None:
    """End a command whose tasks have failed items.

    Args:
        sections: the tasks' of ``report.json``.
        out: the run folder.
        among: how many items were asked, where that is to be said.
        again: what else is to be said.

    Raises:
        RunError: there are such.
    """
    failed = sum(section["failed"] for section in sections.values())
    if failed:
        of = "" if among is None else f" of {among}"
        raise RunError(f"{failed}{of} items failed and count as wrong: {out / PREDICTIONS} says why{again}")


def write_report(directory: Path) -> Run:
    """Write ``report.html`` beside the run's other files, and return what was read of them."""
    run = Run.open(directory)
    write_page([run], directory / PAGE)
    return run


def print_result(report: dict[str, Any], out: Path, as_json: bool, notes: Notes, *, page: bool = True) -> None:
    """Print the report of a run that has ended, and write its ``page``, unless that is there.

    Args:
        report: ``report.json``.
        out: the run's folder.
        as_json: one object instead of tables.
        notes: says how much is wanted; its log gets all.
        page: whether to write the page.
    """
    header = (write_report(out) if page else Run.open(out)).header
    if as_json:
        shown = {key: report[key] for key in ("tasks", "measured", "prompt_rate") if key in report}
        say_json({"run": str(out), **Verdict.of_run(header).keys, "lossy": bool(quantized_types(header)), **shown})
    else:
        print_report(report, out, header, verbose=notes.verbose)
    for line in _details(report):
        notes.log(line)
    for row in _result_rows(report["tasks"], verbose=True):
        notes.log(" ".join(row).replace(BOUND, " ").strip())
    notes.log(f"run written to {out}")


def print_report(report: dict[str, Any], out: Path, run: dict[str, Any], *, verbose: bool) -> None:
    """The scores of a run, what they rest on, what they cost, how far its model is proven; last where it lies.

    Args:
        report: ``report.json``.
        out: the run's folder.
        run: ``run.json``.
        verbose: also clocks, tokens and near-ties of each task, its groups, memory and energy.
    """
    sections = report["tasks"]
    if verbose:
        _print_costs(sections)
        for line in _details(report):
            say(line)
    else:
        for name, section in sections.items():
            own, rate = name == CHALLENGE or section.get("protocol"), report.get("prompt_rate")
            for line in task_lines(section, rate) if own else notable_lines(name, section, rate):
                say(f"{name}: {line}")
    header = ("task", "items", "metric", "value ± s.e.", "other metrics")
    rows = _result_rows(sections, verbose=verbose)
    used = len(header) if any(row[-1] for row in rows) else -1
    print_table("", header[:used], [row[:used] for row in rows], (0, 2, 4))
    say(_cost_line(sections.values()))
    say(Verdict.of_run(run).line)
    if lossy := lossy_line(run):
        say(lossy)
    say(f"run written to {out}")


def _result_rows(sections: Mapping[str, Any], *, verbose: bool) -> list[tuple[str, ...]]:
    """By task its items, of how many rows, and its metrics, the first of which is what it is judged by."""
    rows: list[tuple[str, ...]] = []
    for name, section in sections.items():
        if verbose and len(section["groups"]) > 1:
            for group, values in section["groups"].items():
                rows.append((f"  {group}", f"{values['items']:,.0f}", "", accuracy(values), ""))
        metric, *others = section.get("metrics") or [""]
        items, of = section["items"], section.get("rows")
        said = f"{items:,}" if of in {None, items} else f"{items:,} of {of:,}"
        values = ", ".join(f"{other}{BOUND}{section['metrics'][other]['value']:.2%}" for other in others)
        rows.append((name, said, metric, accuracy(section), values))
    return rows


def _print_costs(sections: Mapping[str, Any]) -> None:
    """By task, seconds on the 2024 challenge's clock and tokens."""
    rows = []
    for name, section in sections.items():
        tokens = (f"{section['tokens'][count]:,}" for count in ("sent", "unique", "computed"))
        seconds = f"{section['clocks'][CHALLENGE_2024]:.1f}"
        rows.append((name, seconds, f"{section['items_per_s']:.1f}", *tokens))
    print_table("", ("task", "seconds", "items/s", "tokens sent", "unique", "computed"), rows)


def _cost_line(sections: Iterable[dict[str, Any]]) -> str:
    """The items, seconds and tokens of all tasks."""
    found = [
        (timed(section), _computing_s(section), section["tokens"]["computed"], section["tokens"]["sent"])
        for section in sections
    ]
    items, seconds, computed, sent = map(sum, zip(*found, strict=True)) if found else (0, 0.0, 0, 0)
    rate = f" ({items / seconds:,.1f}/s)" if seconds else ""
    return f"{items:,} items in {seconds:,.1f} s{rate}; {computed:,} tokens computed, {sent:,} without sharing"


def _computing_s(section: dict[str, Any]) -> float:
    """Seconds that ``items_per_s`` is of: tokenizing and inference, without reading the data."""
    rate = section["items_per_s"]
    return timed(section) / rate if rate else 0.0


def _details(report: dict[str, Any]) -> list[str]:
    """All that the tables do not say."""
    lines = [
        f"{name}: {line}"
        for name, section in report["tasks"].items()
        for line in task_lines(section, report.get("prompt_rate"))
    ]
    if measured := report.get("measured"):
        lines += [measured_line(measured), *gpu_lines(measured)]
        lines += [f"{name}: {line}" for name, each in measured.get("energy", {}).items() if (line := energy_line(each))]
    return lines
