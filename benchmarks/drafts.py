"""Do drafts ever lose? Greedy texts with drafts and without, in tokens computed and in CPU seconds.

    python -m benchmarks.drafts --gguf FILE [--gguf FILE …] [--data DIR] [--rounds N] [--items N] [--new-tokens N]
                                [--tasks exam,public] [--before FOLDER]

The exam's text items, and the challenge's 30 public questions from --data or ORIN_DATA. Each side is a process that
has the model loaded; all sides answer once a round, one after another, the next round in the opposite order. CPU
seconds are user and system time of the process while it answers, so a busy machine disturbs them little. --before is
another copy of this repository, whose engine is measured as well, with drafts and without. Texts of all sides must be
equal.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from eval.encoding import encode_docs
from eval.tasks.base import LoadOptions, spread
from eval.tasks.challenge import Challenge
from eval.tasks.doc import Doc
from eval.tasks.exam import Exam
from orin_runner.engine.engine import Engine
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.memory_plan import MemoryPlanner, budget_of, needs_of
from orin_runner.model import llama
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Generated, GenerateRequest, context_tokens

EXAM, PUBLIC = "exam", "public"


def docs_of(name: str, args: argparse.Namespace) -> Sequence[Doc]:
    """The text items of the exam, or the public questions."""
    if name == EXAM:
        return spread([doc for doc in Exam().load(LoadOptions()).docs if doc.mode == "generate"], args.items)
    public = Challenge().load(LoadOptions(Path(args.data) / "cechallenge2024" / "test_dataset.jsonl")).docs
    return [replace(doc, max_new_tokens=args.new_tokens) for doc in public]


def answer(args: argparse.Namespace) -> None:
    """One side: for each line of stdin all texts once, and a line about them on stdout."""
    file = GGUFFile.open(args.gguf[0])
    docs = docs_of(args.side[0], args)
    requests = [
        q.request for q in encode_docs(docs, Tokenizer.from_gguf(file)) if isinstance(q.request, GenerateRequest)
    ]
    plan = MemoryPlanner(file, present_device(), cpu_threads()).plan(needs_of(requests))
    overrides = file.rope_overrides(max(map(context_tokens, requests)))
    with llama.Model(args.gguf[0], overrides=overrides) as model, llama.Context(model, plan.settings) as context:
        engine = Engine(
            [context], budget_of(plan.settings), n_positions=model.n_ctx_train, draft=args.side[1] == "drafts"
        )
        for _ in sys.stdin:
            before = time.process_time()
            found = dict(engine.run(requests))
            seconds = time.process_time() - before
            texts = [result for _, result in sorted(found.items()) if isinstance(result, Generated)]
            said = {
                "seconds": seconds,
                "computed": engine.stats.computed,
                "checked": engine.stats.checked,
                "calls": engine.stats.device.calls,
                "unique": engine.stats.unique,
                "drafted": sum(text.drafted for text in texts),
                "texts": [text.tokens.tolist() for text in texts],
            }
            print(json.dumps(said), flush=True)


def measure(gguf: Path, task: str, args: argparse.Namespace) -> None:
    """The rows of one model and task."""
    here = Path(__file__).parents[1]
    sides = {(what, folder): f"{what}{' before' if folder != here else ''}"
             for folder in (here, *([args.before] if args.before else [])) for what in ("drafts", "none")}  # fmt: skip
    rest = ["--items", args.items, "--new-tokens", args.new_tokens, "--data", args.data or ""]
    children = {}
    for what, folder in sides:
        words = [sys.executable, here / "benchmarks" / "drafts.py", "--gguf", gguf, "--side", task, what, *rest]
        children[what, folder] = subprocess.Popen(
            [str(word) for word in words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(folder)},
        )
    said: dict[Any, list[dict[str, Any]]] = {side: [] for side in sides}
    for n in range(args.rounds + 1):
        for side in list(sides)[:: 1 if n % 2 else -1]:
            pipe = children[side]
            assert pipe.stdin is not None
            assert pipe.stdout is not None
            pipe.stdin.write("\n")
            pipe.stdin.flush()
            said[side].append(json.loads(pipe.stdout.readline()))
    for child in children.values():
        child.communicate("")
    first = next(iter(said.values()))[0]["texts"]
    for side, name in sides.items():
        runs = said[side][1:]  # the first one warms up
        seconds = statistics.median(run["seconds"] for run in runs)
        assert all(run["texts"] == first for run in runs), "texts differ"
        tokens = sum(map(len, first))
        print(
            f"| {gguf.stem} | {task} | {name} | {seconds:.3f} | {runs[0]['computed']:,} | {runs[0]['checked']:,} | "
            f"{runs[0]['calls']} | {runs[0]['drafted']} of {tokens} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, action="append", required=True)
    parser.add_argument("--data", default=os.environ.get("ORIN_DATA"), help="folder with cechallenge2024/")
    parser.add_argument("--tasks", default=f"{EXAM},{PUBLIC}")
    parser.add_argument("--items", type=int, default=120, help="exam items, evenly spread over its texts")
    parser.add_argument("--new-tokens", type=int, default=16, help="most of each text of the public questions")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", type=Path, help="another copy of this repository")
    parser.add_argument("--side", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        answer(args)
        return
    print("| model | task | side | CPU s | computed | checked | calls | drafted |\n| " + " | ".join(["---"] * 8) + " |")
    for gguf in args.gguf:
        for task in args.tasks.split(","):
            measure(gguf, task, args)


if __name__ == "__main__":
    main()
