"""``orin-run``: its commands, a file each."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from orin_runner.cli import convert, defaults, exits
from orin_runner.cli.bench import bench_command
from orin_runner.cli.diff import diff_command
from orin_runner.cli.doctor import doctor_command
from orin_runner.cli.eval import eval_command
from orin_runner.cli.export import export_command
from orin_runner.cli.inspect import inspect_command
from orin_runner.cli.lm_eval import lm_eval_command
from orin_runner.cli.merge import merge_command
from orin_runner.cli.output import with_output
from orin_runner.cli.plan import plan_command
from orin_runner.cli.reference import reference_command
from orin_runner.cli.report import report_command
from orin_runner.cli.selftest import selftest_command
from orin_runner.cli.show import show_command
from orin_runner.cli.tasks import tasks_command
from orin_runner.console import say
from orin_runner.model import llama_library
from orin_runner.version import __version__

NAME = "orin-run"
app = typer.Typer(
    cls=exits.Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once.",
)


def _add(name: str, command: Callable[..., None], *examples: str, **settings: Any) -> None:
    """A command, with lines that ``--help`` ends in."""
    lines = "\n\n".join(("Examples:", *(f"orin-run {name} {words}".rstrip() for words in examples)))
    app.command(name, cls=defaults.Command, epilog=lines, context_settings=settings)(with_output(command))


_add(
    "eval",
    eval_command,
    "mmlu boolq --data FOLDER --limit 100",
    "my_questions.jsonl --template prompt.txt",
    "phi3 --run-code --out runs/phi3",
    "--resume --out runs/phi3",
)
_add("plan", plan_command, "mmlu --data FOLDER --device orin-32gb")
_add(
    "convert",
    convert.convert_command,
    "CHECKPOINT models/mine.gguf --make-default",
    "microsoft/Phi-3-medium-4k-instruct",
)
_add("doctor", doctor_command, "--model FILE.gguf", "--json")
_add("bench", bench_command, "--model FILE.gguf", "--repetitions 10 --json")
_add("inspect", inspect_command, "FILE.gguf")
_add("tasks", tasks_command, "--data FOLDER", "mmlu boolq")
_add("show", show_command, "mmlu --data FOLDER --id abstract_algebra/3", "my_questions.csv --limit 2 --json")
_add("selftest", selftest_command, "--model FILE.gguf")
_add("reference", reference_command, "boolq --data FOLDER --model CHECKPOINT --limit 100 --out runs/reference")
_add(
    "lm-eval",
    lm_eval_command,
    "--tasks lambada_openai --limit 100",
    "--tasks my_task.yaml --include_path FOLDER --out runs/mine",
    "--resume --out runs/mine",
    allow_extra_args=True,
    ignore_unknown_options=True,
)
_add("merge", merge_command, "runs/part1 runs/part2 runs/part3 --out runs/all")
_add("diff", diff_command, "runs/boolq runs/reference", "runs/new runs/old --max-drop 1 --json")
_add("export", export_command, "runs/boolq --format lm-eval --out results")
_add("report", report_command, "runs/boolq", "runs/new runs/old")


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", "-V", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    if version:
        say(f"orin-run {__version__}, llama-cpp-python {llama_library.version()}")
        raise typer.Exit


def main() -> None:
    """Entry point."""
    # By its name, however it was started: scripts for shells go by it.
    exits.run(partial(app, prog_name=NAME), hint=convert.HINT if sys.argv[1:2] == ["convert"] else None)
