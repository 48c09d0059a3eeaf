"""Malformed run folders, read by report, diff and eval --resume."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.ggufs import LEFT_OUT, whole_run
from tests.support.fuzz import corpus, kinds, texts
from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.mutations import damaged, other_json, other_lines

JSON_FILES = ("run.json", "report.json", "parts.json")
LINE_FILES = ("predictions.jsonl", "predictions.jsonl", "samples.jsonl")
FILES = (*JSON_FILES, *LINE_FILES)
RESUMED = 0.12
"""Share of the cases that load the model."""
DROPS = "average accuracy drops|points"
MARK = "<b id=fuzz>"


def copied(place: Place, random: Random, name: str | None = None) -> Path:
    return Path(
        shutil.copytree(place.base / (name or random.choice(("run", "run", "half", "other"))), place.inputs / "run")
    )


def looked_at(place: Place, run: Path, random: Random) -> Case:
    """A command that reads a run."""
    kind = random.random()
    if kind < RESUMED:
        return resumed(place, run)
    page = place.out / "page.html"
    if kind < 0.5:
        others = [str(place.base / "other")] if random.random() < 0.4 else []
        as_json = random.choice(([], ["--json"]))
        return Case(
            ["orin-run", "report", str(run), *others, "--out", str(page), *as_json],
            writes=(page,),
            right=lambda o: _page(page, o),
        )
    if kind < 0.6:
        return Case(
            ["orin-run", "report", str(run)],
            writes=(run / "report.html",),
            right=lambda o: _page(run / "report.html", o),
        )
    pair = [str(run), str(place.base / "other")]
    if random.random() < 0.5:
        pair.reverse()
    if random.random() < 0.3:
        pair.append(str(place.base / "run"))
    if random.random() < 0.5:
        return Case(["orin-run", "diff", *pair], fails=DROPS)
    return Case(["orin-run", "diff", *pair, "--json"], fails=DROPS, right=lambda o: _difference(pair, o))


def resumed(place: Place, run: Path) -> Case:
    common = ["--model", str(place.base / "llama.gguf"), "--data", str(place.base / "data"), "--max-new-tokens", "4"]
    return Case(
        ["orin-run", "eval", *corpus.RUN_TASKS, *common, "--resume", "--out", str(run)],
        writes=(run, place.state),
        right=lambda outcome: whole_run(run, outcome),
        fails=LEFT_OUT,
    )


def _page(page: Path, _: Outcome) -> str | None:
    text = page.read_text("utf-8")
    if not text.rstrip().endswith("</html>"):
        return "half a page"
    if MARK in text or "<script>alert" in text:
        return "markup of the run is markup of the page"
    odd = next(
        (c for c in text if (c < " " and c not in "\n\t") or "\x7f" <= c < "\xa0" or c in "\u202e\u2066\u2028"), None
    )
    return f"the page has the control character {odd!r}" if odd else None


def _difference(pair: list[str], outcome: Outcome) -> str | None:
    """Whether the accuracies of ``diff --json`` are those of the lines that both runs have."""
    try:
        found = json.loads(outcome.out, parse_constant=lambda name: name + 1)
    except (ValueError, TypeError) as error:
        return f"no strict JSON ({error})"
    first = found[0] if isinstance(found, list) else found
    ours, theirs = (_scores(Path(each)) for each in pair[:2])
    for task, section in first["tasks"].items():
        common = [key for key in ours if key[0] == task and key in theirs]
        for scores, name in ((ours, "accuracy"), (theirs, "reference_accuracy")):
            mean = sum(scores[key] for key in common) / max(1, len(common))
            if section["items"] != len(common) or abs(section[name] - mean) > 1e-6:
                return (
                    f"{task}: {name} {section[name]} of {section['items']} items, by the lines {mean} of {len(common)}"
                )
    return None


def _scores(run: Path) -> dict[tuple[str, str], float]:
    found = {}
    for text in (run / "predictions.jsonl").read_bytes().split(b"\n"):
        if text.strip():
            line = json.loads(text)
            found[line["task"], line["id"]] = next(iter((line.get("scores") or {}).values()), float(line["correct"]))
    return found


def values(random: Random, place: Place) -> Case:
    """Any value of a JSON file."""
    run = copied(place, random)
    path = random.choice([run / name for name in JSON_FILES if (run / name).exists()])
    path.write_bytes(other_json(path.read_bytes(), random))
    return looked_at(place, run, random)


def lines(random: Random, place: Place) -> Case:
    """Any line, or their order."""
    run = copied(place, random)
    path = run / random.choice(LINE_FILES)
    path.write_bytes(other_lines(path.read_bytes(), random))
    return looked_at(place, run, random)


def contents(random: Random, place: Place) -> Case:
    """Bytes of any file."""
    run = copied(place, random)
    path, other = (random.choice([run / name for name in FILES if (run / name).exists()]) for _ in range(2))
    path.write_bytes(damaged(path.read_bytes(), other.read_bytes(), random))
    return looked_at(place, run, random)


def file_kind(random: Random, place: Place) -> Case:
    """Something else in the place of a file."""
    run = copied(place, random)
    path = random.choice([run / name for name in (*FILES, "report.html") if (run / name).exists()])
    found = kinds.put(path, random)
    if path.name == "report.html" or found == "link_chain":
        return Case(["orin-run", "diff", str(run), str(place.base / "other")], fails=DROPS)
    return looked_at(place, run, random)


def page_kind(random: Random, place: Place) -> Case:
    """Something else where the page is to be written."""
    run = copied(place, random, "run")
    page = random.choice((run / "report.html", place.out / "page.html"))
    if random.random() < 0.2:
        folder = page.parent
        os.chmod(folder, 0o500)  # noqa: PTH101
    else:
        found = kinds.put(page, random)
        if found in {
            "gone",
            "swapped_name",
            "empty",
            "newline",
            "sparse",
            "dangling",
            "link_chain",
            "unreadable",
            "proc",
        }:
            page = place.out / "x" / "y.html"
    return Case(["orin-run", "report", str(run), "--out", str(page)])


def swapped(random: Random, place: Place) -> Case:
    """Files of one run in the folder of another, or missing."""
    run = copied(place, random)
    for _ in range(random.choice((1, 2))):
        name = random.choice(FILES)
        source = (
            place.base
            / random.choice(("run", "half", "cached", "other"))
            / random.choice((name, name, random.choice(FILES)))
        )
        if random.random() < 0.3:
            (run / name).unlink(missing_ok=True)
        elif source.exists():
            shutil.copy(source, run / name)
    return looked_at(place, run, random)


def odd_names(random: Random, place: Place) -> Case:
    """Names of tasks, items, models and groups, and answers, that a terminal or a page would act on."""
    run = copied(place, random)
    new = texts.text(random) if random.random() < 0.7 else MARK + "\x1b[2J\u202e"
    if random.random() < 0.5:
        path = run / "predictions.jsonl"
        key = random.choice(("task", "id", "group", "prediction", "target", "text", "failed", "tokens_sha256"))
        rows = [json.loads(line) for line in path.read_bytes().splitlines()]
        for row in rows[: random.choice((1, 1, 99))]:
            row[key] = new
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        path = run / "run.json"
        header = json.loads(path.read_text("utf-8"))
        place_of = random.choice(
            ("engine", "time", "command", "model.name", "model.architecture", "machine", "device", "model.sha256")
        )
        _set(header, place_of.split("."), new)
        path.write_text(json.dumps(header), "utf-8")
    return looked_at(place, run, random)


def _set(value: dict[str, Any], keys: list[str], new: str) -> None:
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = new


def numbers(random: Random, place: Place) -> Case:
    """Sound forms with numbers of any size."""
    run = copied(place, random)
    path = run / random.choice(("report.json", "predictions.jsonl", "samples.jsonl", "parts.json"))
    if not path.exists():
        path = run / "predictions.jsonl"
    rows = (
        [json.loads(line) for line in path.read_bytes().splitlines()]
        if path.suffix == ".jsonl"
        else [json.loads(path.read_bytes())]
    )
    change: Callable[[float], float] = random.choice(
        (lambda n: n * 1e6, lambda n: -n, lambda n: n * 1e17, lambda _: 1e308, lambda _: 0, lambda n: n + 1e-9,
        lambda _: 10**18,
         lambda _: 0.5, lambda _: 5e-324, int)
    )  # fmt: skip
    changed = [_mapped(row, change, random, 0.3) for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in changed), "utf-8")
    return looked_at(place, run, random)


def _mapped(value: Any, change: Callable[[float], float], random: Random, share: float) -> Any:
    if isinstance(value, dict):
        return {key: _mapped(item, change, random, share) for key, item in value.items()}
    if isinstance(value, list):
        return [_mapped(item, change, random, share) for item in value]
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return change(value) if number and random.random() < share else value


def resume(random: Random, place: Place) -> Case:
    """A run to go on with, damaged in one of these ways."""
    run = copied(place, random, "half")
    kind = random.randrange(5)
    if kind == 0:
        path = run / random.choice(("run.json", "parts.json"))
        path.write_bytes(other_json(path.read_bytes(), random))
    elif kind == 1:
        path = run / "predictions.jsonl"
        path.write_bytes(other_lines(path.read_bytes(), random))
    elif kind == 2:
        path = run / random.choice(FILES[:1] + FILES[2:])
        path.write_bytes(path.read_bytes()[: random.randrange(1, 300)])
    elif kind == 3:
        kinds.put(
            run / random.choice(("predictions.jsonl", "run.json", "parts.json", "samples.jsonl", "report.json")), random
        )
    else:
        os.chmod(run, 0o500)  # noqa: PTH101
    return resumed(place, run)
