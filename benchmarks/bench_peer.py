"""vLLM beside this engine, where vLLM is installed: the same token ids, the same machine, letters and HellaSwag.

    python -m benchmarks.bench_peer --hf FOLDER --gguf FILE --data DIR [--limit N] [--tasks mmlu,hellaswag]
                                    [--python PYTHON] [--rounds 2] [--work build/peer]

FOLDER is the checkpoint that FILE was converted from. For each task ``orin-run eval`` and vLLM answer the same items,
one process after the other. *Start to results* is a clock outside the process; for vLLM data and tokenizing are not in
it, since it gets token ids. *Steady* leaves loading out: of this engine the report's ``inference``, of vLLM its last
round, with an emptied prefix cache. *Same*: items whose choice is this engine's. ``--python`` is the Python that vLLM
is installed in (this one), which need not have this project. Without vLLM nothing is measured, and the status is 0.

vLLM was never run here: the script is written from its documentation and tested with a stand-in.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.asked import questions_of
from eval.encoding import Question
from eval.predict import predict
from eval.runs.run import Run
from eval.tasks.base import Task
from eval.tasks.registry import get_task
from orin_runner.console import Notes, say
from orin_runner.errors import UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Scored, ScoreRequest, context_tokens
from orin_runner.version import __version__

SIDE = Path(__file__).with_name("vllm_side.py")
INSTALL = "pip install vllm, in an environment of its own, and name its Python with --python"
COLUMNS = (
    *("task", "items", "side", "start to results, s", "items/s", "load, s", "steady, s", "items/s steady"),
    *("accuracy", "same", "largest difference of a sum"),
)


@dataclass(frozen=True)
class Side:
    """What one side took for a task, and what it answered.

    Attributes:
        name: with its version.
        wall_s, load_s, steady_s: seconds; ``load_s`` None where it is not known.
        chosen: the choice of each item, by its id.
        sums: per item the log-probability of each choice, -inf where it is not known.
        accuracy: by the task's first metric.
    """

    name: str
    wall_s: float
    load_s: float | None
    steady_s: float
    chosen: dict[str, str]
    sums: dict[str, Sequence[float]]
    accuracy: float


def lacks_vllm(python: str) -> bool:
    """Whether that Python cannot import vLLM.

    Raises:
        UserError: it is no Python.
    """
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        return subprocess.run([python, "-c", look], check=False, capture_output=True).returncode != 0
    except OSError as error:
        raise UserError(
            f"{python} cannot be started: {error.strerror}", "--python names a Python interpreter"
        ) from error


def choices_of(task: Task, file: GGUFFile, encoder: Tokenizer, args: argparse.Namespace) -> list[Question]:
    """The questions of ``orin-run eval`` with the same options.

    Raises:
        UserError: the data is not usable, or the task asks for texts.
    """
    questions = questions_of(task, file, encoder, args.data, args.limit)
    if not all(isinstance(question.request, ScoreRequest) for question in questions):
        raise UserError(f"{task.name} asks for texts", "name tasks that score choices, like mmlu or hellaswag")
    return questions


def job_of(questions: Sequence[Question], model: Path, rounds: int) -> dict[str, Any]:
    """What ``vllm_side`` reads."""
    requests = [question.request for question in questions if isinstance(question.request, ScoreRequest)]
    items = [
        {
            "prompt": request.prompt.tolist(),
            "choices": [choice.tolist() for choice in request.continuations],
            "scored": list(request.n_scored),
        }
        for request in requests
    ]
    # Behind the last token, which is only predicted here, vLLM computes it and one more.
    longest = max(map(context_tokens, requests)) + 2
    return {"model": str(model), "max_model_len": longest, "rounds": rounds, "items": items}


def vllm_side(task: Task, questions: Sequence[Question], encoder: Tokenizer, args: argparse.Namespace) -> Side:
    """vLLM, in a process of its own."""
    job, out = args.work / f"{task.name}-job.json", args.work / f"{task.name}-vllm.json"
    job.write_text(json.dumps(job_of(questions, args.hf, args.rounds)), encoding="utf-8")
    out.unlink(missing_ok=True)
    wall = timed([args.python, str(SIDE), str(job), str(out)], f"vLLM, {task.name}")
    found = json.loads(out.read_text(encoding="utf-8"))
    # The first round is in ``wall``; the others are not part of getting results.
    wall -= sum(found["answer_s"][1:])
    sums = [[-np.inf if each is None else each for each in row] for row in found["sums"]]
    predictions = [
        predict(task, question, scored(question, row), encoder) for question, row in zip(questions, sums, strict=True)
    ]
    return Side(
        f"vLLM {found['version']}",
        wall,
        found["load_s"],
        found["answer_s"][-1],
        {each.id: each.prediction for each in predictions},
        {each.id: row for each, row in zip(predictions, sums, strict=True)},
        float(np.mean([each.score for each in predictions])),
    )


def scored(question: Question, sums: Sequence[float]) -> Scored:
    """A result whose choices have these sums, each in the first of its tokens."""
    request = question.request
    assert isinstance(request, ScoreRequest)
    tokens = [np.array([each] + [0.0] * (n - 1)) for each, n in zip(sums, request.n_scored, strict=True)]
    return Scored(tuple(tokens), (False,) * len(tokens))


def orin_side(task: Task, questions: Sequence[Question], args: argparse.Namespace) -> Side:
    """``orin-run eval``, in a process of its own."""
    out = args.work / f"{task.name}-orin-run"
    shutil.rmtree(out, ignore_errors=True)
    words = ["eval", task.name, "--model", str(args.gguf), "--data", str(args.data), "--out", str(out)]
    words += [] if args.limit is None else ["--limit", str(args.limit)]
    wall = timed([sys.executable, "-m", "orin_runner", *words], f"orin-run, {task.name}")
    run = Run.open(out)
    clocks = run.report["tasks"][task.name]["clocks"]
    predictions = [run.predictions[task.name, question.doc.id] for question in questions]
    assert [each.tokens_sha256 for each in predictions] == [question.digest for question in questions], "other prompts"
    return Side(
        f"orin-run {__version__}",
        wall,
        clocks.get("load"),
        clocks["inference"],
        {each.id: each.prediction for each in predictions},
        {each.id: each.logprobs or () for each in predictions},
        float(np.mean([each.score for each in predictions])),
    )


def timed(command: Sequence[str], what: str) -> float:
    """Seconds of a process.

    Raises:
        UserError: it fails.
    """
    before = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise UserError(f"{what} ended with status {done.returncode}: {last}", f"run it by hand: {' '.join(command)}")
    return time.perf_counter() - before


def rows(task: str, sides: Sequence[Side]) -> list[str]:
    """The table's rows of a task, the first side's first."""
    first = sides[0]
    found = []
    for side in sides:
        n = len(side.chosen)
        same = sum(side.chosen.get(key) == choice for key, choice in first.chosen.items())
        cells = (
            *(task, f"{n:,}", side.name, f"{side.wall_s:.1f}", f"{n / side.wall_s:.1f}"),
            *("" if side.load_s is None else f"{side.load_s:.1f}", f"{side.steady_s:.1f}", f"{n / side.steady_s:.1f}"),
            *(f"{side.accuracy:.2%}", f"{same:,}", f"{largest_difference(first, side):.3g}"),
        )
        found.append(f"| {' | '.join(cells)} |")
    return found


def largest_difference(one: Side, other: Side) -> float:
    """Of any choice's sum that both know."""
    pairs = [np.subtract(sums, other.sums[key]) for key, sums in one.sums.items() if key in other.sums]
    known = np.abs(np.concatenate(pairs or [np.empty(0)]))
    return float(known[np.isfinite(known)].max(initial=0.0))


def measure(args: argparse.Namespace) -> None:
    """Everything.

    Raises:
        UserError: a path is not there, a task has no data, or a side fails.
    """
    if lacks_vllm(args.python):
        say(f"skipped: vLLM is not installed in {args.python}, nothing was measured; {INSTALL}")
        return
    for option, path in (("--hf", args.hf), ("--gguf", args.gguf), ("--data", args.data)):
        if path is None or not path.exists():
            raise UserError(f"there is no {path}" if path else f"{option} is missing", f"{option} names what is there")
    args.work.mkdir(parents=True, exist_ok=True)
    file = GGUFFile.open(args.gguf)
    encoder = Tokenizer.from_gguf(file)
    say(f"| {' | '.join(COLUMNS)} |")
    say(f"|{' --- |' * len(COLUMNS)}")
    for name in args.tasks.split(","):
        task = get_task(name)
        questions = choices_of(task, file, encoder, args)
        for row in rows(name, [orin_side(task, questions, args), vllm_side(task, questions, encoder, args)]):
            say(row)


def main() -> None:
    data = os.environ.get("ORIN_DATA")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--hf", type=Path, help="the checkpoint's folder, for vLLM")
    parser.add_argument("--gguf", type=Path, help="the same, converted, for orin-run")
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="published files ($ORIN_DATA)")
    parser.add_argument("--limit", type=int, help="items of each task, evenly spread (all)")
    parser.add_argument("--tasks", default="mmlu,hellaswag")
    parser.add_argument("--python", default=sys.executable, help="the Python that vLLM is installed in")
    parser.add_argument("--rounds", type=int, default=2, help="times that vLLM answers; the last one is the steady one")
    parser.add_argument("--work", type=Path, default=Path("build/peer"))
    args = parser.parse_args()
    try:
        measure(args)
    except UserError as error:
        Notes().error(error.message, error.hint)
        sys.exit(2)


if __name__ == "__main__":
    main()
