"""What the comparison of a model's data with its manifest costs a run: without one, beside the run, before its answers.

    python -m benchmarks.proof_cost --gguf FILE --data DIR [--task mmlu] [--limit 2000] [--rounds 2]

FILE has a manifest beside it (of a random model: ``random_gguf.py prove``). Each way is a process of its own, in turn;
for the first the manifest is moved away.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orin_runner.model.gguf_digests import manifest_path

WAYS: dict[str, tuple[str, ...]] = {"no manifest": (), "beside the run": (), "--verify": ("--verify",)}


@contextmanager
def hidden(path: Path, hide: bool) -> Iterator[None]:
    """``path`` under another name meanwhile."""
    aside = path.with_name(path.name + ".aside")
    if hide:
        path.rename(aside)
    try:
        yield
    finally:
        if hide:
            aside.rename(path)


def measure(way: str, args: argparse.Namespace) -> tuple[tuple[float, float, float], str]:
    """Seconds from start to exit, seconds of loading, items a second of inference; and how far the model is proven."""
    with tempfile.TemporaryDirectory() as folder, hidden(manifest_path(args.gguf), way == "no manifest"):
        out = Path(folder) / "run"
        words = ["eval", args.task, "--limit", str(args.limit), "--model", args.gguf, "--data", args.data, "--out", out]
        command = [sys.executable, "-m", "orin_runner", *map(str, words), *WAYS[way]]
        before = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        wall = time.perf_counter() - before
        (section,) = json.loads((out / "report.json").read_text(encoding="utf-8"))["tasks"].values()
        proof = json.loads((out / "run.json").read_text(encoding="utf-8"))["model"]["proof"]
    clocks = section["clocks"]
    return (wall, clocks["load"], section["items"] / clocks["inference"]), proof


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--task", default="mmlu")
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    found: dict[str, list[tuple[tuple[float, float, float], str]]] = {way: [] for way in WAYS}
    for _ in range(args.rounds):
        for way in WAYS:
            found[way].append(measure(way, args))
    print("| way | proof | start to exit, s | load, s | items/s of inference |\n| --- | --- | ---: | ---: | ---: |")
    for way, runs in found.items():
        wall, load, rate = (statistics.median(figures[k] for figures, _ in runs) for k in range(3))
        print(f"| {way} | {runs[-1][1]} | {wall:.2f} | {load:.2f} | {rate:.1f} |")


if __name__ == "__main__":
    main()
