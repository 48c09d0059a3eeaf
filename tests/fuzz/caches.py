"""Damaged prompt caches: a run goes on without what it cannot use, and answers the same."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from random import Random

from tests.fuzz.ggufs import LEFT_OUT, whole_run
from tests.support.fuzz import kinds
from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.mutations import damaged


def _evaluated(place: Place, cache: Path, *options: str) -> Case:
    out = place.out / "run"
    common = ["--model", str(place.base / "llama.gguf"), "--data", str(place.base / "sharing")]

    def right(outcome: Outcome) -> str | None:
        return whole_run(out, outcome) or _other_answers(place.base / "cached", out)

    return Case(
        ["orin-run", "eval", "boolq", *common, "--out", str(out), "--prompt-cache", str(cache), *options],
        writes=(out, cache, place.out, place.inputs, place.state),
        right=right,
        fails=LEFT_OUT,
    )


def _other_answers(expected: Path, found: Path) -> str | None:
    texts = [{line["id"]: line["prediction"] for line in map(json.loads,
    (run / "predictions.jsonl").read_text("utf-8").splitlines())}
             for run in (expected, found)]  # fmt: skip
    return None if texts[0] == texts[1] else "other answers than without the damage"


def states(random: Random, place: Place) -> Case:
    """Bytes of the states, or something else in their place."""
    cache = Path(shutil.copytree(place.base / "cache", place.inputs / "cache"))
    files = sorted(cache.iterdir())
    for path in files:
        if random.random() < 0.3:
            kinds.put(path, random)
        else:
            path.write_bytes(damaged(path.read_bytes(), files[0].read_bytes() if files[0].is_file() else b"", random))
    return _evaluated(place, cache)


def headers(random: Random, place: Place) -> Case:
    """States whose first line says something else, with a digest that is right."""
    cache = Path(shutil.copytree(place.base / "cache", place.inputs / "cache"))
    for path in cache.iterdir():
        head, _, payload = path.read_bytes().partition(b"\n")
        header = json.loads(head)
        header[random.choice(("key", "bytes", "sha256"))] = random.choice(
            (None, 0, -1, "", 1e400, [], {}, "\ud83d", 1 << 70, True)
        )
        path.write_bytes(json.dumps(header).encode() + b"\n" + payload)
    return _evaluated(place, cache)


def folders(random: Random, place: Place) -> Case:
    """An odd folder, or an odd bound of it."""
    cache = place.inputs / "cache"
    kind = random.randrange(4)
    options = ["--prompt-cache-size", random.choice(("0", "1B", "1e300", "0.1K"))]
    if kind == 0:
        kinds.put(
            cache,
            random,
            random.choice(("fifo", "loop", "dangling", "empty", "to_null", "socket", "device", "unreadable")),
        )
    elif kind == 1:
        shutil.copytree(place.base / "cache", cache)
        os.chmod(cache, random.choice((0o000, 0o500, 0o300)))  # noqa: PTH101
    elif kind == 2:
        cache = place.inputs / random.choice(("x" * 300, "a\nb", "\udcff", "[red]x", "a/" * 1500))
    else:
        shutil.copytree(place.base / "cache", cache)
        return _evaluated(place, cache, *options)
    return _evaluated(place, cache)
