"""Two versions of this program side by side: ``orin-run eval`` of another source tree and of this one, interleaved.

    python -m benchmarks.bench_versions --other DIR --gguf M.gguf --data DIR [--tasks mmlu:3000,hellaswag:500]

``--other`` is a checkout of another commit; both run with the packages of this Python. Every round runs both versions
of every task, each in processes of its own. The table gives medians of tokens per second, of the ratio pair by pair,
and how many predictions are the same, log-probabilities included.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from orin_runner import __version__
from orin_runner.model import llama_library

SAME = ("task", "id", "prediction", "text", "logprobs")
"""What of a prediction is compared."""
THIS = Path(__file__).parent.parent
# Before 0.2 the command line was one file.
MAIN = """
try:
    from orin_runner.cli.main import main
except ImportError:
    from orin_runner.cli import main
main()
"""


def evaluate(tree: Path, words: list[str], out: Path) -> tuple[dict[str, Any], list[str]]:
    """One run of ``tree``: its task's section of the report, and its predictions' lines, sorted."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-c", MAIN, "eval", *words, "--out", str(out)]
    path = os.pathsep.join([str(tree), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tree, env={**os.environ, "PYTHONPATH": path}
    )
    if done.returncode:
        raise SystemExit(f"{tree}: {done.stderr[-2000:]}")
    (section,) = json.loads((out / "report.json").read_text(encoding="utf-8"))["tasks"].values()
    return section, sorted((out / "predictions.jsonl").read_text(encoding="utf-8").splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--other", type=Path, required=True)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", default="mmlu:3000,hellaswag:500", help="TASK:ITEMS,...")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("build/versions"))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    trees = {"other": args.other.resolve(), "this": THIS.resolve()}
    rates: dict[tuple[str, str], list[float]] = {}
    same: dict[str, str] = {}
    for number in range(args.rounds):
        for task, _, items in (word.partition(":") for word in args.tasks.split(",")):
            lines = {}
            for side, tree in trees.items():
                words = [
                    task,
                    "--limit",
                    items,
                    "--model",
                    str(args.gguf.resolve()),
                    "--data",
                    str(args.data.resolve()),
                ]
                section, lines[side] = evaluate(tree, words, (args.work / f"{task}-{side}").resolve())
                rate = section["device"]["answer_tokens"] / section["device"]["answer_s"]
                rates.setdefault((task, side), []).append(rate)
                print(f"round {number + 1} {task} {side}: {rate:,.0f} tokens/s, {section['device']}", flush=True)
            pairs = [(json.loads(a), json.loads(b)) for a, b in zip(lines["other"], lines["this"], strict=True)]
            n_equal = sum(all(a[key] == b[key] for key in SAME) for a, b in pairs)
            same[task] = f"{n_equal}/{len(pairs)}"
    devices = ", ".join(f"{device.name} ({device.description})" for device in llama_library.devices())
    print(f"{platform.machine()}, {devices}; llama-cpp-python {llama_library.version()}, orin-run {__version__}")
    print("| task | other, tokens/s | this, tokens/s | this / other, median (smallest to largest) | same predictions |")
    print("| --- | ---: | ---: | --- | ---: |")
    for task, equal in same.items():
        other, this = rates[task, "other"], rates[task, "this"]
        ratios = sorted(b / a for a, b in zip(other, this, strict=True))
        spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
        print(f"| {task} | {statistics.median(other):,.0f} | {statistics.median(this):,.0f} | {spread} | {equal} |")


if __name__ == "__main__":
    main()
