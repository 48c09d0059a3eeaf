"""``orin-run``: its commands, a file each."""

from __future__ import annotations

from typing import Annotated

import typer

from orin_runner import __version__
from orin_runner.cli import exits
from orin_runner.cli.diff import diff_command
from orin_runner.cli.eval import eval_command
from orin_runner.cli.inspect import inspect_command
from orin_runner.cli.lm_eval import lm_eval_command
from orin_runner.cli.merge import merge_command
from orin_runner.cli.plan import plan_command
from orin_runner.cli.reference import reference_command
from orin_runner.cli.report import report_command
from orin_runner.cli.selftest import selftest_command
from orin_runner.cli.tasks import tasks_command
from orin_runner.console import say
from orin_runner.model import llama

app = typer.Typer(
    cls=exits.Group,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Run a non-quantized LLM over whole benchmarks through llama.cpp, computing every distinct token once.",
)
app.command("eval")(eval_command)
app.command("plan")(plan_command)
app.command("inspect")(inspect_command)
app.command("tasks")(tasks_command)
app.command("selftest")(selftest_command)
app.command("reference")(reference_command)
app.command("lm-eval", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(lm_eval_command)
app.command("merge")(merge_command)
app.command("diff")(diff_command)
app.command("report")(report_command)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    if version:
        say(f"orin-run {__version__}, llama-cpp-python {llama.version()}")
        raise typer.Exit


def main() -> None:
    """Entry point."""
    exits.run(app)
