"""Shards of a run, each computed by itself, put together into one run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

from eval.near_ties import NearTies, noise_section
from eval.report.section import CHALLENGE_2023, CHALLENGE_2024, CHALLENGE_2024_BARE, greedy_section, task_report
from eval.runs.prediction import DAMAGED, Prediction
from eval.runs.run import PREDICTIONS, REPORT, RUN, Run
from eval.runs.writer import write_json
from orin_runner.errors import UserError
from orin_runner.files import json_text, make_folder, parse_json, write_whole
from orin_runner.model.proof import Proof, Verdict
from orin_runner.runner import Noise, RunStats

SAME = (
    ("engine", "engine"),
    ("model", "sha256"),
    ("model", "tokenizer_sha256"),
    ("model", "chat_template_sha256"),
    ("model", "rope_factors"),
    ("versions", "llama-cpp-python"),
    ("versions", "orin-run"),
)
"""Keys of ``run.json`` that must be equal, beside the settings."""


def merge(runs: Sequence[Run], directory: Path, header: dict[str, Any]) -> dict[str, Any]:
    """Write the run that ``runs`` are the shards of.

    Args:
        runs: all shards, in any order.
        directory: a folder for it, empty or not there.
        header: what ``run.json`` says beside what the shards say alike: ``command`` and ``time``.

    Returns:
        Its ``report.json``. Tokens are sums; ``unique`` is that of the whole. Clocks and rates are those of the slowest
        shard of each task, as if all had begun at once.

    Raises:
        UserError: they are no shards of one run, one is missing, twice there, incomplete or damaged; or the folder
            holds something.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} is not an empty folder", "name another one with --out")
    ordered = _in_order(runs)
    first = ordered[0].header
    tasks = first["shard"]["items"]
    sections = {task: _section(task, ordered) for task in tasks}
    verdict = Verdict.of_run(first)
    for run in ordered[1:]:
        verdict = verdict.together(Verdict.of_run(run.header))
    shards = [
        {
            "directory": str(run.directory),
            **{key: run.header.get(key) for key in ("command", "time", "machine", "device")},
            "items": {task: run.report["tasks"][task]["items"] for task in tasks},
            "clocks": {task: run.report["tasks"][task]["clocks"] for task in tasks},
            "measured": run.report.get("measured"),
        }
        for run in ordered
    ]
    refuted = {"altered_values": None} if verdict.proof is Proof.REFUTED else {}
    whole = {key: value for key, value in first.items() if key not in {"shard", "resumed"}}
    whole |= {
        **header,
        "model": {**first["model"], **verdict.keys, **refuted},
        "settings": {**first["settings"], "shard": None},
        "shards": shards,
    }
    warnings = list(dict.fromkeys(line for run in ordered for line in run.report.get("warnings", [])))
    report = {
        "tasks": sections,
        "restarts": sum(run.report.get("restarts", 0) for run in ordered),
        "warnings": warnings,
        "measured": None,
        "lossy": any(run.report.get("lossy") for run in ordered),
    }
    from eval.runs.shapes import REPORT as FORM  # noqa: PLC0415 - brings pydantic along

    FORM.check_row("the shards together", parse_json(json_text(report)), DAMAGED)
    make_folder(directory)
    lines = [prediction.line() for run in ordered for prediction in run.predictions.values()]
    write_whole(directory / PREDICTIONS, b"".join(lines).decode())
    write_json(directory / REPORT, report)
    write_json(directory / RUN, whole)  # last: a folder without it is no run
    return report


def _in_order(runs: Sequence[Run]) -> list[Run]:
    """The shards of one run by their index.

    Raises:
        UserError: they are not.
    """
    by_index: dict[int, Run] = {}
    for run in runs:
        shard = run.header.get("shard")
        if shard is None:
            raise UserError(f"{run.directory} is no shard", "orin-run eval TASK --shard 1/2 makes one")
        _check_same(runs[0], run)
        other = by_index.setdefault(shard["index"], run)
        if other is not run:
            raise UserError(
                f"{run.directory} and {other.directory} are both shard {shard['index']}/{shard['of']}", "leave one out"
            )
        _check_complete(run)
    n = runs[0].header["shard"]["of"]
    missing = [str(k) for k in range(1, n + 1) if k not in by_index]
    if missing:
        raise UserError(f"of {n} shards {', '.join(missing[:10])} is missing", "name the folders of all of them")
    ordered = [by_index[k] for k in sorted(by_index)]
    seen: dict[tuple[str, str], Run] = {}
    for run in ordered:
        for key in run.predictions:
            if (other := seen.setdefault(key, run)) is not run:
                raise UserError(f"{key[0]} {key[1]} is in {other.directory} and in {run.directory}", "run both again")
    for task, items in ordered[0].header["shard"]["items"].items():
        found = sum(key[0] == task for key in seen)
        if found != items:
            raise UserError(f"the shards have {found} items of {task}, the whole has {items}", "run them again")
    return ordered


def _check_same(one: Run, other: Run) -> None:
    """Refuse two shards of different runs."""
    differing = [
        f"{outer}.{inner}" if outer != inner else outer
        for outer, inner in SAME
        if _of(one.header, outer, inner) != _of(other.header, outer, inner)
    ]
    # Where states of prefixes are kept is each machine's own.
    own = {"shard": None, "prompt_cache": None}
    before, now = ({**run.header.get("settings", {}), **own} for run in (one, other))
    differing += [f"settings ({name})" for name in {**before, **now} if before.get(name) != now.get(name)]
    if one.header.get("shard") is not None:
        before, now = one.header["shard"], other.header["shard"]
        differing += [f"shard ({name})" for name in ("of", "items", "questions") if before[name] != now[name]]
    if differing:
        raise UserError(
            f"{one.directory} and {other.directory} are shards of different runs: {', '.join(differing)} differ",
            f"see {RUN} of both",
        )


def _of(header: dict[str, Any], outer: str, inner: str) -> Any:
    value = header.get(outer)
    return value if outer == inner else (value or {}).get(inner)


def _check_complete(run: Run) -> None:
    """Refuse a shard that has not come to its end."""
    goes_on = f"{run.header.get('command', 'orin-run eval')} --resume --out {run.directory} goes on"
    tasks = run.header["shard"]["items"]
    sections = run.report.get("tasks", {})
    for task in tasks:
        own = [key for key in run.predictions if key[0] == task]
        section = sections.get(task)
        if section is None or section.get("unanswered") or section["items"] + section.get("skipped", 0) != len(own):
            raise UserError(f"{run.directory} is not complete", goes_on)


def _section(task: str, runs: Sequence[Run]) -> dict[str, Any]:
    """A task's section of the whole."""
    sections = [run.report["tasks"][task] for run in runs]
    predictions: list[Prediction] = [p for run in runs for key, p in run.predictions.items() if key[0] == task]
    names = dict.fromkeys(name for section in sections for name in section["tokens"])
    tokens = {name: sum(section["tokens"].get(name, 0) for section in sections) for name in names}
    # What a shard shares with the one before it, both have counted, but for items that failed.
    tokens["unique"] -= sum(
        min(run.header["shard"]["shared"].get(task, 0), section["tokens"]["unique"])
        for run, section in zip(runs, sections, strict=True)
    )
    slowest = max(sections, key=lambda section: section["clocks"][CHALLENGE_2023])
    derived = {CHALLENGE_2024, CHALLENGE_2024_BARE, CHALLENGE_2023}
    clocks = {name: seconds for name, seconds in slowest["clocks"].items() if name not in derived}
    merged = task_report(predictions, tokens, {**clocks, "process": slowest["clocks"][CHALLENGE_2023]})
    merged |= {key: sections[0][key] for key in ("split", "rows", "first", "protocol", "lacking") if key in sections[0]}
    merged["noise"] = noise_section(reduce(RunStats.together, [_noise(section.get("noise")) for section in sections]))
    asked = [prediction for prediction in predictions if prediction.skipped is None]
    known = all(section["near_ties"] is not None for section in sections if section["items"])
    merged["near_ties"] = NearTies.of(merged).count(asked) if known else None
    for key in ("resumed", "without_record"):
        merged[key] = sum(section.get(key, 0) for section in sections)
    greedy = greedy_section(predictions)
    return merged if greedy is None else {**merged, "greedy": greedy}


def _noise(noise: Any) -> RunStats:
    """The noise of a section as a runner has it."""
    found = {kind: (noise or {}).get(kind) for kind in ("scores", "texts")}
    of = {
        kind: Noise(each["compared"], each["rms"], each["largest"], each["near_tie"]) if each else Noise()
        for kind, each in found.items()
    }
    return RunStats(score_noise=of["scores"], text_noise=of["texts"])
