"""``orin_runner.evaluate``: what ``orin-run eval`` does, from Python."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orin_runner import evaluate
from orin_runner.errors import RunError, UserError
from tests.support.commands import orin_run


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The parts of a report that two runs have in common."""
    kept = ("accuracy", "stderr", "items", "failed", "metrics", "groups", "tokens", "split", "rows", "greedy")
    return {name: {key: section.get(key) for key in kept} for name, section in report["tasks"].items()}


def test_it_returns_the_report(tmp_path: Path, tiny_gguf: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of a run as the command leaves it; standard output is the caller's."""
    report = evaluate(["exam"], tiny_gguf, limit=6, draft=False, out=tmp_path / "called")
    assert capfd.readouterr().out == ""
    assert report == read(tmp_path / "called" / "report.json")
    assert report["tasks"]["exam"]["items"] == 6
    assert (tmp_path / "called" / "report.html").exists()
    words = ("exam", "--model", tiny_gguf, "--limit", "6", "--no-draft", "--out", tmp_path / "typed")
    done = orin_run("eval", *words)
    assert done.returncode == 0, done.stderr
    assert without_times(report) == without_times(read(tmp_path / "typed" / "report.json"))
    called, typed = ((tmp_path / name / "predictions.jsonl").read_text() for name in ("called", "typed"))
    assert sorted(called.splitlines()) == sorted(typed.splitlines())
    assert (tmp_path / "called" / "run.toml").read_text() == (tmp_path / "typed" / "run.toml").read_text()
    said = read(tmp_path / "called" / "run.json")["command"]
    assert said.startswith("orin_runner.evaluate(tasks=['exam'], model=")


def test_clocks_do_not_begin_with_the_process(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time before the call is the caller's."""
    monkeypatch.delattr("orin_runner.cli.caller.process_started")
    report = evaluate("exam", tiny_gguf, limit=2, out=tmp_path / "run", quiet=True)
    resumed = evaluate("exam", tiny_gguf, limit=2, out=tmp_path / "run", resume=True)
    assert resumed == report, "nothing was left to ask"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"limt": 3}, "orin_runner.evaluate(): 'limt' is no option; did you mean 'limit'?"),
        ({"max-new-tokens": 3}, "'max-new-tokens' is no option; did you mean 'max_new_tokens'?"),
        ({"as_json": True}, "'as_json' is no option"),
        ({"limit": "many"}, "--limit is a number of questions"),
        ({"limit": True}, "limit is a text or a number, not True"),
        ({"draft": "no"}, "draft is true or false, not 'no'"),
        ({"too_long": "cut"}, "Invalid value for '--too-long'"),
        ({"max_new_tokens": 0}, "Invalid value for '--max-new-tokens'"),
        ({"resume": True}, "--resume needs --out"),
        ({"config": "x.toml"}, "'config' is no option"),
    ],
)
def test_mistakes_are_user_errors(options: dict[str, Any], message: str, tiny_gguf: Path) -> None:
    """As the command's are, one line each."""
    with pytest.raises(UserError) as refusal:
        evaluate("exam", tiny_gguf, **options)
    assert message in str(refusal.value)


def test_what_does_not_fit_is_a_run_error(tmp_path: Path, tiny_gguf: Path) -> None:
    with pytest.raises(RunError, match="does not fit into memory"):
        evaluate("exam", tiny_gguf, device="1M", limit=2, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_failed_items_are_in_the_report(
    tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The command ends with status 1 then; here a warning says it."""

    def failed(*_: object) -> None:
        raise RunError("2 of 2 items failed and count as wrong")

    monkeypatch.setattr("orin_runner.cli.eval.raise_for_failed", failed)
    report = evaluate("exam", tiny_gguf, limit=2, out=tmp_path / "run")
    assert report == read(tmp_path / "run" / "report.json")
    assert "warning: 2 of 2 items failed and count as wrong" in capfd.readouterr().err


def test_an_interruption_stays_one(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And says how the run goes on; the report of what was answered is there."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orin_runner.cli.metered._RunProgress.__call__", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"orin-run eval --resume --out \S+ goes on"):
        evaluate("exam", tiny_gguf, limit=24, out=tmp_path / "run")
    assert read(tmp_path / "run" / "report.json")["tasks"]["exam"]["unanswered"] > 0
