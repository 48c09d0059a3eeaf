"""Writes ``docs/tasks.md`` from the registry of tasks and ``docs/cli.md`` from every command's ``--help``.

    python docs/generate.py

``tests/docs/test_generated.py`` fails where a file is not what this gives.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import typer

from eval.tasks.base import Task
from eval.tasks.multiple_choice import MultipleChoice
from eval.tasks.registry import ALL, GROUPS
from orin_runner.cli.main import app

DOCS = Path(__file__).resolve().parent
WIDTH = 100
"""Columns of the help pages."""
ORIN_RUN = (sys.executable, "-m", "orin_runner")

TASKS_HEAD = """# Tasks

Written by `python docs/generate.py` from `eval/tasks/`; do not edit.

`orin-run tasks` prints this table, with `--data FOLDER` also the rows that are there. What `--data` accepts:
[usage.md](usage.md#give-it-the-data).

* Shots: worked examples before each question, as the task has them by default; in the second column as `--shots phi3`
  has them, after table 1 of Phi-3's report (arXiv:2404.14219).
* Scoring: `letters` compares the log-probabilities of the answer letters, `text` those of whole choices, `masses` the
  probability on all true answers, `generate` judges a greedy text, and `run` the program that it is, with `--run-code`
  alone. `*`: `--scoring letters|text` changes it; all other tasks refuse that option (`winogrande`, `truthfulqa_mc1`
  and `truthfulqa_mc2` take `text`, which changes nothing).
* Metrics: the first one is the task's accuracy.
* Split: what the questions are taken from, by lm-evaluation-harness's name (a published file may say `dev` or `val` for
  `validation`); of two, the first one whose files are there. A run, its report and `orin-run tasks --data FOLDER` say
  which was read. Empty where the data set is one whole.
"""
GROUPS_HEAD = "Names of several tasks, for `eval`, `plan` and `reference`:"

CLI_HEAD = f"""# Command line

Written by `python docs/generate.py` from `--help` at 100 columns (typer {version("typer")}); do not edit. Exit
statuses: [run-folder.md](run-folder.md#exit-statuses). `python -m convert` is `orin-run convert`.
"""

TEXT_TASKS = {
    "bbh",
    "bbh_direct",
    "challenge",
    "drop",
    "gsm8k",
    "gsm8k_cot",
    "mmlu_pro",
    "triviaqa",
}
"""Tasks that are answered by a greedy text."""
OWN_SCORING = {
    "agieval": "text, generate",
    "exam": "generate, letters",
    "humaneval": "run",
    "mbpp": "run",
    "mmlu": "letters",
    "truthfulqa_mc2": "masses",
}
NO_LETTERS = {"winogrande", "truthfulqa_mc1", "truthfulqa_mc2"}
"""Multiple-choice tasks that refuse ``--scoring letters``."""


def scoring_of(task: Task) -> str:
    """How a task's answers are compared; ``*`` where ``--scoring`` changes it."""
    if task.name in OWN_SCORING:
        own = OWN_SCORING[task.name]
    elif task.name in TEXT_TASKS:
        own = "generate"
    else:
        assert isinstance(task, MultipleChoice), f"{task.name}: docs/generate.py does not know how it is scored"
        own = task.scoring
    return own + (" *" if isinstance(task, MultipleChoice) and task.name not in NO_LETTERS else "")


def tasks_page() -> str:
    """``docs/tasks.md``."""
    names = ("task", "title", "split", "metrics", "shots", "Phi-3's", "scoring", "licence", "source")
    rows = [names, ("---",) * len(names)]
    for task in ALL:
        phi3 = "" if task.phi3_shots is None else str(task.phi3_shots)
        shots = (str(task.default_shots), phi3)
        link = f"[{task.name}](#{task.name})"
        split, metrics = ", else ".join(task.splits), ", ".join(task.metrics)
        rows.append((link, task.title, split, metrics, *shots, scoring_of(task), task.licence, task.source))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    groups = "\n".join(f"* `{name}`: {', '.join(names)}" for name, names in GROUPS.items())
    return f"{TASKS_HEAD}\n{table}\n\n{GROUPS_HEAD}\n\n{groups}\n" + "".join(_section(task) for task in ALL)


def _section(task: Task) -> str:
    """What the docstring of a task's module says; the second of two tasks in a module points to the first."""
    module = inspect.getmodule(type(task))
    assert module is not None
    assert module.__doc__ is not None, f"{module.__name__} has no docstring"
    first = next(other for other in ALL if inspect.getmodule(type(other)) is module)
    file = f"[{Path(str(module.__file__)).name}](../{module.__name__.replace('.', '/')}.py)"
    body = _markdown(module.__doc__) if first is task else f"See [{first.name}](#{first.name}).\n"
    return f"\n## {task.name}\n\n{task.title}: {task.metric}.\nModule: {file}.\n\n{body}"


def _markdown(docstring: str) -> str:
    """A docstring as Markdown: literals in single backquotes, indented rows as a code block."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        code = line.startswith("    ")
        lines.append(line if code else line.replace("``", "`"))
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """``docs/cli.md``."""
    commands = list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    pages = [("orin-run", ORIN_RUN), *((f"orin-run {name}", (*ORIN_RUN, name)) for name in commands)]
    blocks = (f"\n## {title}\n\n```text\n{_help(command)}\n```\n" for title, command in pages)
    return CLI_HEAD + "".join(blocks)


def _help(command: tuple[str, ...]) -> str:
    """The help of a command, without colours and the blanks that rich pads lines with."""
    kept = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "GITHUB_ACTIONS"}}
    environment = {**kept, "COLUMNS": str(WIDTH), "TERMINAL_WIDTH": str(WIDTH), "NO_COLOR": "1", "TERM": "dumb"}
    done = subprocess.run(
        [*command, "--help"], capture_output=True, encoding="utf-8", check=True, cwd=DOCS.parent, env=environment
    )
    return "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip("\n")


def main() -> None:
    """Write both files."""
    for name, page in (("tasks.md", tasks_page), ("cli.md", cli_page)):
        (DOCS / name).write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
