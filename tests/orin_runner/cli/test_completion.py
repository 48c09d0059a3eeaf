"""What a shell completes, asked as its script asks."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from eval.tasks.registry import GROUPS, TASKS
from orin_runner.cli.main import app
from orin_runner.machine.devices import KNOWN
from tests.support.commands import orin_run

SCRIPT = "complete -o default -F _orin_run_completion orin-run"


def completions(line: str) -> list[str]:
    """Of the last word of a command line, which may be empty."""
    words = line.split(" ")
    return asked("complete_bash", COMP_WORDS=line, COMP_CWORD=str(len(words) - 1)).split()


def asked(what: str, **env: str) -> str:
    done = CliRunner().invoke(app, [], prog_name="orin-run", env={"_ORIN_RUN_COMPLETE": what, **env})
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("orin-run eval winog", ["winogrande"]),
        ("orin-run eval mmlu,piqa,winog", ["mmlu,piqa,winogrande"]),
        ("orin-run eval mmlu ", [*TASKS, *GROUPS]),
        ("orin-run plan challenge2", ["challenge2024"]),
        ("orin-run show hella", ["hellaswag"]),
        ("orin-run eval mmlu --device ", ["auto", *KNOWN]),
        ("orin-run eval mmlu --scoring l", ["letters"]),
        ("orin-run conv", ["convert"]),
        ("orin-run eval --confi", ["--config"]),
        # Nothing is opened while a word is completed, whatever the line names.
        ("orin-run eval --config missing.toml winog", ["winogrande"]),
        ("orin-run eval --resume --out missing winog", ["winogrande"]),
    ],
)
def test_words(line: str, words: list[str]) -> None:
    assert sorted(completions(line)) == sorted(words)


def test_the_script_is_printed() -> None:
    """Where there is nothing to complete, bash goes on with names of files."""
    assert SCRIPT in asked("source_bash")


def test_a_module_has_the_programs_name() -> None:
    """In the script, and in what --help says."""
    done = orin_run(env={"_ORIN_RUN_COMPLETE": "source_bash"})
    assert SCRIPT in done.stdout, done.stderr
    assert "Usage: orin-run tasks " in orin_run("tasks", "--help").stdout
