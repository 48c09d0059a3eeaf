"""``orin-run diff``: a run against references."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from eval.diff import MAX_DROP, SHOWN_FLIPS, diff_all
from eval.pairs import CAUSES
from eval.runs.run import Run
from orin_runner.cli.options import Json
from orin_runner.console import Notes, print_table, say, say_json
from orin_runner.errors import UserError
from orin_runner.table import BOUND

PARTS = (
    ("within the window", "within_window", "beyond_window"),
    ("beyond the window", "beyond_window", "beyond_window"),
    ("whole prompts", "whole", "truncated"),
    ("truncated prompts", "truncated", "truncated"),
)
"""Parts of a task with a line of their own: words, their key in the section, and that of the part they stand for."""


def diff_command(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    references: Annotated[
        list[Path], typer.Argument(metavar="REFERENCE...", help="Runs to compare with; the first one is judged by.")
    ],
    max_drop: Annotated[float, typer.Option(help="Largest allowed drop of average accuracy, in points.")] = MAX_DROP,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Compare runs that asked with other shots, templates and so on, too.")
    ] = False,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Compare a run with a reference on the items that both hold. Exit status 1 if it loses more than --max-drop."""
    opened = Run.open(run)
    results = diff_all(opened, [Run.open(other) for other in references], max_drop, anyway=anyway)
    for result in results:
        _warn(notes, run, result)
    if as_json:
        say_json(results[0] if len(results) == 1 else results)
    else:
        print_diff(results)
    for result in results:
        if result["same_checkpoint"] is False:
            raise UserError(
                f"{run} and {result['reference']} come from different checkpoints", "compare the same weights"
            )
    if not results[0]["within_max_drop"]:
        drop = _drop(results[0]["mean_drop"], max_drop, within=False).removeprefix("+")
        notes.warn(f"average accuracy drops by {drop} points, more than {max_drop:g}")
        raise typer.Exit(1)


def _warn(notes: Notes, run: Path, result: dict[str, Any]) -> None:
    """Warn of what was asked otherwise in the two runs, and of what is not compared."""
    other = result["reference"]
    for line in result["differences"]:
        notes.warn(f"{run} and {other} asked with {line}")
    for holder, lacking, counts in ((run, other, "only_in_run"), (other, run, "only_in_reference")):
        for name, n in result[counts].items():
            notes.warn(f"{n} {name} items of {holder} are not in {lacking}: they are not compared")
    for name, n in result["skipped"].items():
        notes.warn(f"{n} {name} items are skipped in {run} or {other}: they are not compared")
    rules = [result[f"{role}_too_long"] for role in ("run", "reference")]
    if None not in rules and rules[0] != rules[1]:
        notes.warn(f"prompts longer than the context: --too-long {rules[0]} in {run}, {rules[1]} in {other}")
    if result["same_tokenizer"] is False:
        notes.warn(
            f"the tokenizers differ: {result['run_tokenizer']} in {run}, {result['reference_tokenizer']} in {other}"
        )
    for name, section in result["tasks"].items():
        unequal = section["items"] - section["same_token_ids"]
        if unequal:
            notes.warn(f"{unequal} of {section['items']} {name} prompts have other token ids in {other}")


def print_diff(results: Sequence[dict[str, Any]]) -> None:
    """A run beside its references: what is compared, the flips, their causes, the metric and its drop, the verdict."""
    say(f"run        {_made(results[0], 'run')}")
    for result in results:
        say(f"reference  {_made(result, 'reference')}")
    rows, flips = [], []
    lossy = any(result["run_lossy"] != result["reference_lossy"] for result in results)
    causes = [cause for cause in CAUSES if lossy or cause != "quantization"]
    limit = results[0]["max_drop"]
    for result in results:
        against = f", {_against(result)}" if len(results) > 1 else ""
        for name, section in result["tasks"].items():
            texts = f"{section['identical_texts']}/{section['texts']}" if section["texts"] else ""
            judged, same = section["within_max_drop"], (texts, f"{section['same_token_ids']}/{section['items']}")
            rows.append((name + against, *_accuracies(section, limit, within=judged), _yes(judged), *same))
            flips.append((name + against, *_flip_counts(section, causes)))
            for label, key, among in PARTS:
                part = section.get(key)
                if part and part["items"] and section[among]["items"]:
                    rows.append((f"  {label}", *_accuracies(part), "", "", ""))
        if len(result["tasks"]) > 1:
            rows.append((f"all items{against}", *_accuracies(result["all"]), "", "", ""))
            flips.append((f"all items{against}", *_flip_counts(result["all"], causes)))
            judged = result["within_max_drop"]
            average = f"average of {len(result['tasks'])} tasks{against}"
            mean = _drop(result["mean_drop"], limit, within=judged), _interval(result["mean_drop_interval"])
            rows.append((average, "", "", "", "", *mean, "", _yes(judged), "", ""))
    for result in results:
        for name, section in result["tasks"].items():
            for line in _task_lines(f"{name}, {result['reference']}", section):
                say(line)
    heads = (cause.replace("_", " ") for cause in causes)
    print_table("", ("task", "flips", "lost", "gained", "test", "p", *heads), flips, (0, 4))
    numbers = ("items", "run", "reference", "drop", "95 % interval", "agreement", f"≤{BOUND}{limit:g}")
    say("")
    print_table("", ("task", "metric", *numbers, "same texts", "same ids"), rows, (0, 1))
    for result in results:
        if "shares" in result:
            for name, share in {**result["shares"]["tasks"], "average": result["shares"]["mean"]}.items():
                say(
                    f"{name}, {result['reference']}: the window's share of the drop is {share['window']:+.2f} points, "
                    f"the numerics' {share['numerics']:+.2f} (window off: {result['shares']['window_off']})"
                )
    first = results[0]
    same_checkpoint = {
        True: f"the same checkpoint ({_proof(first)})",
        False: "DIFFERENT checkpoints",
        None: "checkpoints that are not known to be the same",
    }[first["same_checkpoint"]]
    altered = "" if first["altered_values"] is None else f"; {first['altered_values']:,} values altered"
    drop = _drop(first["mean_drop"], limit, within=first["within_max_drop"])
    say(f"drop of average accuracy: {drop} points; {same_checkpoint}{altered}")
    for result in results:
        if cost := _quantization(result):
            say(cost)


def _quantization(result: dict[str, Any]) -> str | None:
    """What the run's quantization costs against the reference; None where not exactly one of both is quantized."""
    lossy = result["run_lossy"], result["reference_lossy"]
    if lossy[0] == lossy[1]:
        return None
    drop, limits = result["mean_drop"], result["mean_drop_interval"]
    if lossy[1]:
        drop, limits = -drop, (-limits[1], -limits[0])
    roles = ("run", "reference") if lossy[0] else ("reference", "run")
    quantized, exact = (result[f"{role}_dtype"] or "?" for role in roles)
    return (
        f"quantization, {quantized} against {exact}: costs {drop:+.2f} points of average accuracy "
        f"({_interval(limits)}), {result['all']['agreement']:.2%} of the answers agree"
    )


def _proof(result: dict[str, Any]) -> str:
    """The proofs of both runs."""
    run, reference = result["run_proof"], result["reference_proof"]
    return f"proof: {run}" if run == reference else f"proof of the run: {run}, of the reference: {reference}"


def _against(result: dict[str, Any], role: str = "reference") -> str:
    window = ", window off" if result[f"{role}_window_off"] else ""
    return f"{result[f'{role}_engine'] or '?'} {result[f'{role}_dtype'] or ''}".strip() + window


def _made(result: dict[str, Any], role: str) -> str:
    return f"{result[role]}: {result[f'{role}_model'] or 'a model without name'}, {_against(result, role)}"


def _accuracies(part: dict[str, Any], limit: float | None = None, *, within: bool = True) -> tuple[str, ...]:
    drop = part["drop_points"]
    return (
        part["metric"] or "",
        str(part["items"]),
        f"{part['accuracy']:.2%}",
        f"{part['reference_accuracy']:.2%}",
        f"{drop:+.2f}" if limit is None else _drop(drop, limit, within=within),
        _interval(part["drop_interval"]),
        f"{part['agreement']:.2%}",
    )


def _flip_counts(part: dict[str, Any], causes: Iterable[str]) -> tuple[str, ...]:
    counts = (part["flips_in_all"], part["lost"], part["gained"])
    return (*map(str, counts), part["test"], f"{part['p']:.3g}", *(str(part["causes"][cause]) for cause in causes))


def _task_lines(label: str, section: dict[str, Any]) -> list[str]:
    lines = []
    if section["max_logprob_difference"] is not None:
        lines.append(f"{label}: largest log-probability difference of a choice {section['max_logprob_difference']:.2g}")
    if section["flips"]:
        near = (
            "where both margins together are less than the noise"
            if section["noise"]
            else "not known: no noise was measured"
        )
        lines.append(f"{label}: a near tie is {near}")
    for flip in section["flips"][:SHOWN_FLIPS]:
        margin = ", ".join(
            f"{name} {flip[key]:.2g}"
            for name, key in (("margin", "margin"), ("there", "reference_margin"), ("noise of both", "near_tie"))
            if flip[key] is not None
        )
        answers = f"{flip['run']!r}, reference {flip['reference']!r}, right {flip['target']!r}"
        lines.append(f"  {flip['id']}: {', '.join(filter(None, (answers, margin)))}: {flip['cause'].replace('_', ' ')}")
    return lines


def _drop(points: float, limit: float, *, within: bool) -> str:
    """Two decimals, or as many as it takes not to look like the other side of ``limit``."""
    texts = (f"{points:+.{digits}f}" for digits in range(2, 17))
    return next((text for text in texts if (float(text) <= limit) == within), f"{points:+}")


def _interval(limits: Sequence[float]) -> str:
    return f"{limits[0]:+.2f} to {limits[1]:+.2f}"


def _yes(within: bool) -> str:
    return "yes" if within else "NO"
