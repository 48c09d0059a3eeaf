"""``-q``, ``-v`` and ``--log-file`` of every command that says something, and what becomes of libraries' messages."""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

import pytest
import typer.main

from orin_runner.cli.main import app
from orin_runner.cli.output import opened_notes
from orin_runner.errors import UserError
from tests.support.commands import orin_run, refused
from tests.support.paths import TINY

SAY_NOTHING = {"tasks", "report", "doctor", "export"}
"""Commands that print a result at once."""
NO_TORCH = """
import importlib.util as util
find = util.find_spec
util.find_spec = lambda name, package=None: None if name.partition(".")[0] == "torch" else find(name, package)
"""
"""A ``sitecustomize`` of an environment without torch."""


def lines_of(log: Path) -> list[str]:
    """Without their times, which each has."""
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) for line in lines)
    return [line.partition(" ")[2] for line in lines]


def without_progress(stderr: str) -> list[str]:
    """The lines but those that say every ten seconds how far a slow machine is."""
    return [line for line in stderr.splitlines() if " % " not in line]


def test_every_command_takes_them() -> None:
    found = {
        name: {option for param in command.params for option in param.opts}
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    }
    for name, options in found.items():
        if name not in SAY_NOTHING:
            assert {"-q", "--quiet", "-v", "--verbose", "--log-file"} <= options, name


def test_a_run_says_a_line_for_each_thing(tiny_gguf: Path, tmp_path: Path) -> None:
    """The model and its proof, the device and its plan; on stdout the score with its metric, and where the run lies."""
    out, log = tmp_path / "run", tmp_path / "log.txt"
    done = orin_run("eval", "exam", "--limit", "8", "--model", tiny_gguf, "--out", out, "--log-file", log)
    assert done.returncode == 0, done.stderr
    model, device = without_progress(done.stderr)
    assert re.fullmatch(r"model .*: 0\.01 GiB BF16\+F16\+F32, proof: from the header only", model)
    assert re.fullmatch(r"device: \S.*; plan: [\d,]+ of [\d,]+ MiB, n_ctx \d+", device)
    head, score, cost, proof, last = done.stdout.splitlines()
    assert head.split() == ["task", "items", "metric", "value", "±", "s.e."]
    assert score.split()[:5] == ["exam", "8", "of", "480", "exact_match"]
    assert re.fullmatch(r"8 items in [\d.]+ s \([\d.]+/s\); [\d,]+ tokens computed, [\d,]+ without sharing", cost)
    assert (proof, last) == ("proof: verified", f"run written to {out}")
    assert max(map(len, [head, score, cost, device])) <= 100

    said = lines_of(log)
    assert said[0].startswith("orin-run ")
    assert {model, device} <= {*said}
    assert any(line.startswith("settings: n_ctx ") for line in said)
    assert any("near-ties: " in line for line in said)

    quiet = orin_run("eval", "--resume", "--out", out, "-q")
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert quiet.stdout.splitlines()[:2] == [head, score]
    loud = orin_run("eval", "--resume", "--out", out, "-v", "--log-file", log)
    assert loud.returncode == 0, loud.stderr
    for part in ("challenge 2024 clock", "near-ties: ", "8 of 480 rows", "  letters", "tokens sent"):
        assert (part in done.stdout, part in loud.stdout) == (False, True)
    assert lines_of(log)[: len(said)] == said, "a log is added to"


def test_what_ends_a_command_is_in_the_log(tmp_path: Path) -> None:
    """An error of the user's in its line; a log that cannot be written is one."""
    log = tmp_path / "log.txt"
    refused(orin_run("plan", "exam", "--model", tmp_path / "none.gguf", "--log-file", log), "none.gguf")
    assert "none.gguf" in lines_of(log)[-1]
    assert lines_of(log)[-1].startswith("error: ")
    refused(orin_run("plan", "exam", "--log-file", tmp_path / "no" / "log.txt"), "No such file or directory")


def test_a_bug_leaves_its_traceback_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with pytest.raises(ZeroDivisionError), opened_notes(quiet=False, verbose=False, log_file=log):
        _ = 1 / 0
    assert lines_of(log)[-1] == "ZeroDivisionError: division by zero"


def test_opposites_are_refused() -> None:
    with pytest.raises(UserError, match="ask for opposites"), opened_notes(quiet=True, verbose=True, log_file=None):
        pass


def test_libraries_are_details(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What they log and warn of is in the log, and on the screen with -v; a warning of this program's is one."""
    for verbose in (False, True):
        log = tmp_path / f"{verbose}.txt"
        with opened_notes(quiet=False, verbose=verbose, log_file=log):
            logging.getLogger("a.library").warning("retrying in %d s", 8)
            logging.getLogger("a.library").info("not worth a line")
            logging.getLogger("orin_run.part").warning("mind the gap")
            with warnings.catch_warnings():
                warnings.simplefilter("always")
                logging.captureWarnings(capture=True)
                warnings.warn("old thing", DeprecationWarning, stacklevel=1)
        shown = capsys.readouterr().err.splitlines()
        assert shown == [line for line in lines_of(log)[1:] if verbose or line.startswith("warning: ")]
        assert lines_of(log)[1:3] == ["a.library: retrying in 8 s", "warning: mind the gap"]
        assert "old thing" in lines_of(log)[3]
    assert not logging.getLogger().handlers or all("Notes" not in str(each) for each in logging.getLogger().handlers)


def test_transformers_does_not_speak_of_torch(tiny_gguf: Path, tmp_path: Path) -> None:
    """Without torch it says that it is not there whenever it is imported; a tokenizer needs none."""
    (tmp_path / "sitecustomize.py").write_text(NO_TORCH)
    done = orin_run(*("show", "exam", "--model", tiny_gguf, "--tokenizer", TINY), env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert [line.partition(" ")[0] for line in without_progress(done.stderr)] == ["model", "tokenizer:"]


@pytest.mark.slow
def test_the_hub_is_one_line(tmp_path: Path, tiny_gguf: Path) -> None:
    """Where nothing answers its client tries six times; only the error counts."""
    env = {
        "ORIN_DATA": "",
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "HF_HOME": str(tmp_path),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
    }
    done = orin_run("plan", "arc_easy", "--limit", "2", "--model", tiny_gguf, env=env)
    refused(done, "cannot load allenai/ai2_arc from the hub")
    assert len(without_progress(done.stderr)) == 2, done.stderr
