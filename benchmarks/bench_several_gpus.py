"""One GPU, a replica on each of several, and one model with its layers divided over them: ``orin-run eval`` of each.

    python -m benchmarks.bench_several_gpus --gguf M.gguf --data DIR [--tasks mmlu:6000,hellaswag:2000,bbh_direct:500]
        [--ways one,replicas,split] [--rounds 1] [--work DIR] [--more=--protocol=2023]

Each way is a process of its own from its start to its exit, in turn. ``replicas`` is what ``--gpus auto`` does where
the model fits one GPU, ``two`` the same on the first two, ``split`` is ``--replicas 1``, ``pairs`` is ``--replicas 2``:
of four GPUs two for each. The table has, by the run's own report, items a second of
inference (tokenizing left out) and from the first prompt to the last score, tokens a second, computed / unique; by a
clock outside seconds from the process's start to its exit; and how many answers are those of the first way.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAYS = {
    "one": ("--gpus", "1"),
    "two": ("--gpus", "2"),
    "replicas": (),
    "pairs": ("--replicas", "2"),
    "split": ("--replicas", "1"),
}


@dataclass(frozen=True)
class Measured:
    """A run: what its report says of the task, seconds from start to exit, MiB planned and measured by device."""

    section: dict[str, Any]
    wall: float
    memory: str
    answers: dict[str, Any]

    @property
    def inference(self) -> float:
        """Items a second of inference."""
        return float(self.section["items"]) / float(self.section["clocks"]["inference"])

    @property
    def tokens(self) -> float:
        """Tokens computed a second of prefill and decode."""
        clocks = self.section["clocks"]
        return float(self.section["tokens"]["computed"]) / float(clocks["prefill"] + clocks["decode"])


def measure(task: str, items: str, way: str, args: argparse.Namespace) -> Measured:
    """One process."""
    out = args.work / f"{task}-{way}"
    shutil.rmtree(out, ignore_errors=True)
    words = ["eval", task, "--model", str(args.gguf), "--data", str(args.data), "--out", str(out), *WAYS[way]]
    words += [*(["--limit", items] if items else []), *shlex.split(args.more)]
    before = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "orin_runner", *words], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - before
    if done.returncode:
        raise SystemExit(f"{task} {way}: {done.stderr[-3000:]}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    plan = json.loads((out / "run.json").read_text(encoding="utf-8"))["memory"]
    planned = [column["total"] for column in plan["columns"]] or [plan["total"]]
    measured = report["measured"]
    peaks = [gpu.get("peak_mib") for gpu in measured.get("gpus") or []] or [measured["peak_gpu_mib"]]
    memory = f"{plan['n_contexts']} x {plan['settings']['n_batch']}; planned {[n >> 20 for n in planned]}, peak {peaks}"
    rows = map(json.loads, (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines())
    answers = {row["id"]: row["prediction"] if row["text"] is None else row["text"] for row in rows}
    (section,) = report["tasks"].values()
    return Measured(section, wall, memory, answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="mmlu:6000,hellaswag:2000,bbh_direct:500", help="TASK:ITEMS,...")
    parser.add_argument("--ways", default="one,replicas,split", help=",".join(WAYS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--more", default="", help="further options of every orin-run eval")
    parser.add_argument("--work", type=Path, default=Path("build/several"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    found: dict[tuple[str, str], list[Measured]] = {}
    for _ in range(args.rounds):
        for task, _, items in (word.partition(":") for word in args.tasks.split(",")):
            for way in args.ways.split(","):
                run = measure(task, items, way, args)
                found.setdefault((task, way), []).append(run)
                print(task, way, f"{run.tokens:,.0f} tokens/s, {run.wall:.1f} s;", run.memory, flush=True)
                print(json.dumps({key: run.section.get(key) for key in ("clocks", "device", "replicas")}), flush=True)
    print(
        "| task, items | way | items/s of inference | of one | items/s | tokens/s | computed/unique | wall s | same |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for (task, way), runs in found.items():
        first = found[task, args.ways.split(",")[0]]
        inference, one = (statistics.median(run.inference for run in each) for each in (runs, first))
        tokens = runs[-1].section["tokens"]
        same = sum(runs[-1].answers[key] == value for key, value in first[-1].answers.items())
        cells = (
            f"{task}, {len(runs[-1].answers):,}",
            way,
            f"{inference:.1f}",
            f"{inference / one:.3f}",
            f"{statistics.median(run.section['items_per_s'] for run in runs):.1f}",
            f"{statistics.median(run.tokens for run in runs):,.0f}",
            f"{tokens['computed'] / tokens['unique']:.4f}",
            f"{statistics.median(run.wall for run in runs):.1f}",
            f"{same:,}",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
