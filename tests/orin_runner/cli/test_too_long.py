"""``--too-long`` from the command line: a model of fewer positions than some of the exam's prompts have."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.evaluate import prepare
from eval.runs.run import Run
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.cli.main import main
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import context_tokens
from tests.support.checkpoints import phi3
from tests.support.commands import orin_run, refused

POSITIONS, ITEMS, NEW = 384, 20, 6
EXAM = ("exam", "--limit", str(ITEMS), "--max-new-tokens", str(NEW))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """A folder with a checkpoint, its GGUF, and a run of it that truncates."""
    folder = tmp_path_factory.mktemp("made")
    phi3(folder / "checkpoint", tiny, positions=POSITIONS, window=None, sharpness=4.0)
    convert(Checkpoint.open(folder / "checkpoint"), folder / "model.gguf", Options())
    done = orin_run("eval", *EXAM, "--model", folder / "model.gguf", "--out", folder / "run")
    assert done.returncode == 0, done.stderr
    (folder / "stderr").write_text(done.stderr)
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def beyond(made: Path) -> dict[str, int]:
    """By item, the tokens that it needs more than there are, for those that do; counted apart from what is tested."""
    tokenizer = Tokenizer.from_gguf(GGUFFile.open(made / "model.gguf"))
    found = {}
    for question in prepare(get_task("exam"), LoadOptions(limit=ITEMS), tokenizer).questions:
        needed = len(question.request.prompt) + (NEW if question.doc.mode == "generate" else 0)
        assert question.doc.mode == "generate" or context_tokens(question.request) == needed
        if needed > POSITIONS:
            found[question.doc.id] = needed - POSITIONS
    assert 2 < len(found) < ITEMS - 2
    return found


def section(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "report.json").read_text())["tasks"]["exam"]
    return found


def test_what_is_too_long_is_truncated_by_default(made: Path, beyond: dict[str, int]) -> None:
    """In one line on the screen, by item in the run, and as a bucket of the report and of the page."""
    run = Run.open(made / "run")
    assert run.header["settings"]["too_long"] == "truncate"
    assert {name: p.truncated for (_, name), p in run.predictions.items() if p.truncated} == beyond
    assert len(run.predictions) == ITEMS
    lines = [line for line in (made / "stderr").read_text().splitlines() if "--too-long truncate" in line]
    assert len(lines) == 1
    assert f"{len(beyond)} of {ITEMS} exam prompts" in lines[0]
    assert f"at most {max(beyond.values())} tokens" in lines[0]
    truncated = run.report["tasks"]["exam"]["truncated"]
    assert (truncated["items"], truncated["tokens"]) == (len(beyond), sum(beyond.values()))
    assert (
        f"{len(beyond)} items had their prompts truncated, by {sum(beyond.values()):,}" in (made / "stdout").read_text()
    )
    page = (made / "run" / "report.html").read_text()
    assert f"{len(beyond)} of {ITEMS} items had prompts longer than the model's context" in page
    assert "truncated prompts" in page


def test_the_reference_truncates_the_same(made: Path, tmp_path: Path, beyond: dict[str, int]) -> None:
    """Token for token; diff has a line for these items."""
    done = orin_run("reference", *EXAM, "--model", made / "checkpoint", "--out", tmp_path / "reference")
    assert done.returncode == 0, done.stderr
    ours, theirs = Run.open(made / "run").predictions, Run.open(tmp_path / "reference").predictions
    for key, one in ours.items():
        assert (one.tokens_sha256, one.truncated) == (theirs[key].tokens_sha256, theirs[key].truncated)
    done = orin_run("diff", made / "run", tmp_path / "reference", "--json", "--max-drop", "100")
    found = json.loads(done.stdout)["tasks"]["exam"]
    assert found["same_token_ids"] == ITEMS
    assert (found["truncated"]["items"], found["whole"]["items"]) == (len(beyond), ITEMS - len(beyond))
    assert found["causes"]["unexplained"] == 0
    assert found["max_logprob_difference"] < 0.2
    shown = orin_run("diff", made / "run", tmp_path / "reference", "--max-drop", "100").stdout
    assert "  truncated prompts" in shown
    assert "  whole prompts" in shown


def test_what_is_skipped_is_in_no_accuracy(made: Path, tmp_path: Path, beyond: dict[str, int]) -> None:
    """But among the predictions, and nothing is left to ask of a run that has skipped some; diff names both rules."""
    out = tmp_path / "run"
    command = ("eval", *EXAM, "--model", made / "model.gguf", "--too-long", "skip", "--out", out)
    done = orin_run(*command)
    assert done.returncode == 0, done.stderr
    run = Run.open(out)
    assert {name for (_, name), p in run.predictions.items() if p.skipped} == set(beyond)
    assert len(run.predictions) == ITEMS
    found = section(out)
    assert (found["items"], found["skipped"], found["truncated"]) == (ITEMS - len(beyond), len(beyond), None)
    assert f"{len(beyond)} items were skipped and are in no accuracy" in done.stdout
    assert f" {ITEMS - len(beyond)} of 480 " in done.stdout
    assert f"{len(beyond)} items have prompts longer than the model's context" in (out / "report.html").read_text()
    done = orin_run(*command, "--resume")
    assert done.returncode == 0, done.stderr
    assert "nothing is left to go on with" in done.stderr
    done = orin_run("diff", out, made / "run", "--max-drop", "100")
    assert f"{len(beyond)} exam items are skipped in {out} or {made / 'run'}: they are not compared" in done.stderr
    assert f"--too-long skip in {out}, truncate in {made / 'run'}" in done.stderr
    refused(orin_run(*command[:-3], "truncate", "--out", out, "--resume"), "a run with --too-long skip, not truncate")


class Ended:
    """Runs the command line in this process, where nothing is loaded, and returns its error line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str | Path) -> str:
        self._monkeypatch.setattr(sys, "argv", ["orin-run", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        (line,) = [line for line in self._capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return line


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ended:
    return Ended(monkeypatch, capsys)


@pytest.mark.parametrize("command", ["eval", "plan", "reference"])
def test_refused_prompts_leave_nothing_behind(
    command: str, made: Path, tmp_path: Path, beyond: dict[str, int], ended: Ended
) -> None:
    model = made / ("checkpoint" if command == "reference" else "model.gguf")
    out = () if command == "plan" else ("--out", tmp_path / "run")
    longest = max(beyond, key=lambda name: beyond[name])
    assert ended(command, *EXAM, "--model", model, "--too-long", "refuse", *out) == (
        f"error: {len(beyond)} of {ITEMS} exam prompts, with what is asked behind them, are longer than the model's "
        f"{POSITIONS} tokens of context; the longest, {longest}, needs {beyond[longest] + POSITIONS}; "
        f"--too-long truncate or skip, or fewer --shots"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", ["eval exam", "plan exam", "reference exam", "lm-eval --tasks x"])
def test_a_rule_that_is_none_is_one_line(command: str, ended: Ended) -> None:
    line = ended(*command.split(), "--model", "model.gguf", "--too-long", "word")
    assert "'word' is not one of 'truncate', 'skip', 'refuse'" in line


def test_the_harness_cannot_skip(ended: Ended) -> None:
    pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")
    line = ended("lm-eval", "--tasks", "x", "--model", "model.gguf", "--too-long", "skip")
    assert "the harness wants an answer to each request" in line


def test_a_plan_counts_what_will_be_truncated(made: Path, beyond: dict[str, int]) -> None:
    done = orin_run("plan", *EXAM, "--model", made / "model.gguf", "--json")
    found = json.loads(done.stdout)
    assert (found["truncated"], found["skipped"]) == ({"exam": len(beyond)}, {"exam": 0})
    assert (found["requests"], found["longest"]) == (ITEMS, POSITIONS)
    assert f"{len(beyond)} of {ITEMS} exam prompts" in done.stderr
    done = orin_run("plan", *EXAM, "--model", made / "model.gguf", "--json", "--too-long", "skip")
    found = json.loads(done.stdout)
    assert (found["truncated"], found["skipped"]) == ({"exam": 0}, {"exam": len(beyond)})
    assert found["requests"] == ITEMS - len(beyond)


def test_nothing_left_to_ask_is_a_mistake(tmp_path: Path, tiny: Path, ended: Ended) -> None:
    """And texts that leave no room for a prompt are one, whatever the rule."""
    phi3(tmp_path / "checkpoint", tiny, positions=32, window=None)
    convert(Checkpoint.open(tmp_path / "checkpoint"), tmp_path / "model.gguf", Options())
    command = ("eval", "exam", "--limit", "4", "--model", tmp_path / "model.gguf", "--out", tmp_path / "run")
    assert ended(*command).endswith(
        "leave no room for a prompt in the model's 32 tokens of context; --max-new-tokens 16"
    )
    line = ended(*command, "--max-new-tokens", "4", "--too-long", "skip")
    assert "no prompt fits into the model's 32 tokens of context: nothing is left to ask" in line
    assert not (tmp_path / "run").exists()
