"""How a program ends: one line, the status that shells expect, and nothing left behind."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
import typer

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from orin_runner.cli import exits
from orin_runner.errors import RunError, UserError
from tests.support.commands import CONVERT, ORIN_RUN, orin_run, orin_run_begun
from tests.support.moments import heeds_signals
from tests.support.paths import ROOT
from tests.support.waiting import until

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
LINE = {
    signal.SIGINT: "error: interrupted",
    signal.SIGTERM: "error: interrupted by SIGTERM",
    signal.SIGHUP: "error: interrupted by SIGHUP",
}


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(autouse=True)
def _nothing_ignored() -> Iterator[None]:
    """Programs inherit what is ignored; a shell starts background jobs with Ctrl-C ignored, these tests among them."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in STATUS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def children(pid: int) -> list[int]:
    """Processes that ``pid``'s main thread has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("how", list(STATUS), ids=lambda how: how.name)
def test_a_run_that_is_interrupted_can_go_on(tmp_path: Path, gguf: Path, how: signal.Signals) -> None:
    """Predictions are kept, the report is written, the line says how to go on, and no worker is left."""
    out = tmp_path / "run"
    arguments = ("eval", "exam", "--model", gguf, "--limit", "120", "--out", out)
    process = orin_run_begun(*arguments)
    predictions = out / "predictions.jsonl"
    until(lambda: predictions.exists() and predictions.stat().st_size > 0)
    workers = children(process.pid)
    assert workers
    process.send_signal(how)
    process.send_signal(signal.SIGTERM)  # it is ending, and writes its report all the same
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == STATUS[how], stderr
    assert stderr.splitlines()[-1].startswith(f"{LINE[how]}; orin-run eval --resume --out {out} goes on")
    assert "items unanswered" in stdout
    assert "Traceback" not in stderr
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    section = json.loads((out / "report.json").read_text())["tasks"]["exam"]
    kept = predictions.read_bytes()
    assert section["items"] == len(kept.splitlines()) < 120
    done = orin_run(*arguments, "--resume")
    assert done.returncode == 0, done.stderr
    assert predictions.read_bytes().startswith(kept)
    assert len(predictions.read_bytes().splitlines()) == 120


@pytest.mark.parametrize("how", list(STATUS), ids=lambda how: how.name)
@pytest.mark.parametrize("command", ["eval", "plan", "selftest", "reference", "lm-eval", "convert"])
def test_every_command_ends_in_one_line(
    tmp_path: Path, gguf: Path, tiny: Path, command: str, how: signal.Signals
) -> None:
    """At a moment of its own: while importing, tokenizing, planning, loading or computing; nothing is left running."""
    full = {
        "eval": (*ORIN_RUN, "eval", "exam", "--model", gguf, "--out", tmp_path / "run"),
        "plan": (*ORIN_RUN, "plan", "exam", "--model", gguf),
        "selftest": (*ORIN_RUN, "selftest", "--requests", "200", "--model", gguf),
        "reference": (*ORIN_RUN, "reference", "exam", "--model", tiny, "--out", tmp_path / "run"),
        "lm-eval": (*ORIN_RUN, "lm-eval", "--tasks", "arc_easy", "--model", gguf, "--out", tmp_path / "run"),
        "convert": (*CONVERT, tiny, tmp_path / "out" / "x.gguf"),
    }[command]
    process = subprocess.Popen([*full], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: heeds_signals(process))
    time.sleep(random.Random(f"{command} {how}").uniform(0, 1.5))
    workers = children(process.pid)
    process.send_signal(how)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == STATUS[how], stderr
    assert stderr.splitlines()[-1].startswith(LINE[how])
    assert sum(line.startswith("error:") for line in stderr.splitlines()) == 1
    assert "Traceback" not in stderr
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))
    if command == "convert":
        assert not list(tmp_path.rglob("*.gguf*"))


def ended(program: object, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str]]:
    """Exit status and lines on stderr."""
    with pytest.raises(SystemExit) as caught:
        exits.run(program)  # type: ignore[arg-type]
    return int(caught.value.code or 0), capsys.readouterr().err.splitlines()


def raising(error: BaseException) -> object:
    def program() -> NoReturn:
        raise error

    return program


def test_errors_and_their_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    """2 for what the user can mend, 1 for a run that failed, 130 for Ctrl-C."""
    assert ended(raising(UserError("bad", "do this")), capsys) == (2, ["error: bad; do this"])
    assert ended(raising(FileNotFoundError(2, "No such file", "x")), capsys) == (2, ["error: x: No such file"])
    assert ended(raising(RunError("it failed")), capsys) == (1, ["error: it failed"])
    assert ended(raising(KeyboardInterrupt()), capsys) == (130, ["error: interrupted"])
    assert ended(raising(exits.BrokenOffError("go on so")), capsys) == (130, ["error: interrupted; go on so"])
    assert ended(raising(SystemExit(3)), capsys) == (3, [])
    with pytest.raises(LookupError):
        exits.run(raising(LookupError()))  # type: ignore[arg-type]


@pytest.mark.parametrize("how", list(STATUS), ids=lambda how: how.name)
def test_a_signal_within_typer_is_said(how: signal.Signals, capsys: pytest.CaptureFixture[str]) -> None:
    """typer would end silently, and with Ctrl-C's status whatever it was."""
    app = typer.Typer()
    app.command(cls=exits.Command)(lambda: os.kill(os.getpid(), how))

    assert ended(lambda: app([]), capsys) == (STATUS[how], [LINE[how]])
    plain = typer.Typer()
    plain.command()(lambda: os.kill(os.getpid(), how))
    assert ended(lambda: plain([]), capsys) == (STATUS[how], [LINE[how]])


def test_a_signal_within_exec_ends_with_the_status(tmp_path: Path) -> None:
    """CPython ends a module by SIGINT where the last exec() was interrupted; dataclasses use it while importing."""
    (tmp_path / "interrupted.py").write_text(
        "import os; from orin_runner.cli import exits; exits.run(lambda: exec('os.kill(os.getpid(), 15)', {'os': os}))"
    )
    command = [sys.executable, "-m", "interrupted"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (143, "error: interrupted by SIGTERM\n")


@pytest.mark.parametrize("method", [False, True])
def test_a_signal_within_a_finalizer_is_not_lost(method: bool) -> None:
    program = f"""
import os, signal, time, weakref
from orin_runner.cli import exits

class Thing:
    def {"__del__" if method else "unused"}(self):
        signalled()

def signalled():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(0.01)

def program():
    thing = Thing()
    {"" if method else "weakref.finalize(thing, signalled)"}
    del thing
    time.sleep(20)
    print("went on")

exits.run(program)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "error: interrupted\n")


@pytest.mark.parametrize("own", [False, True])
def test_a_library_is_imported_to_its_end(own: bool, tmp_path: Path) -> None:
    """A module of this project is not waited for, only what it imports in its turn."""
    (tmp_path / "evaluate").mkdir()
    (tmp_path / "evaluate/__init__.py").write_text("import os; os.kill(os.getpid(), 15); print('imported')")
    (tmp_path / "convert").mkdir()
    (tmp_path / "convert/__init__.py").write_text("import os; os.kill(os.getpid(), 15); print('imported')")
    program = f"""
import time
from orin_runner.cli import exits

def program():
    import {"convert" if own else "evaluate"}
    time.sleep(20)
    print("went on")

exits.run(program)
"""
    command = [sys.executable, "-c", program]
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)
    said = "" if own else "imported\n"
    assert (done.returncode, done.stdout, done.stderr) == (143, said, "error: interrupted by SIGTERM\n")


def test_a_signal_within_torch_does_not_abort() -> None:
    """Its initialisation calls Python from C++, and an exception that comes back ends the process."""
    program = """
import os, signal, sys, time
from orin_runner.cli import exits

within = []

def watch(frame, event, arg):
    if event == "c_call" and arg.__name__ == "_c10d_init":
        within.append(arg)
    elif event == "call" and within:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

def program():
    sys.setprofile(watch)
    import torch
    time.sleep(20)
    print("went on")

exits.run(program)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (143, "", "error: interrupted by SIGTERM\n")


@pytest.mark.parametrize("start", ["program", "lambda: exits.run(program)"], ids=["alone", "within another"])
@pytest.mark.parametrize("how", list(STATUS), ids=lambda how: how.name)
def test_a_signal_behind_the_program_is_said(how: signal.Signals, start: str) -> None:
    """When it has ended and its handlers are being put back. ``python -m convert`` is one within another."""
    program = f"""
import os, sys
from orin_runner.cli import exits

def watch(frame, event, arg):
    if event == "call" and frame.f_code is exits.Interruptions.__exit__.__code__:
        sys.setprofile(None)
        os.kill(os.getpid(), {how.value})

def program():
    sys.setprofile(watch)
    print("done", flush=True)

exits.run_process({start})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (STATUS[how], "done\n", f"{LINE[how]}\n")


def test_impatience_is_quiet() -> None:
    """Ctrl-C again, while the program ends on account of the first."""
    program = """
import os, signal
from orin_runner.cli import exits

def program():
    try:
        os.kill(os.getpid(), signal.SIGINT)
    finally:
        os.kill(os.getpid(), signal.SIGINT)

exits.run_process(program)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 130
    assert done.stderr in {"", "error: interrupted\n"}


def test_what_ends_is_not_disturbed_by_the_same_again(capsys: pytest.CaptureFixture[str]) -> None:
    """A service's SIGTERM and a terminal's SIGHUP come together; an impatient Ctrl-C still counts."""
    steps: list[str] = []

    def program() -> None:
        try:
            os.kill(os.getpid(), signal.SIGHUP)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
            steps.append("report written")
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
            raise exits.BrokenOffError("so") from None

    assert ended(program, capsys) == (129, ["error: interrupted by SIGHUP; so"])
    assert steps == ["report written"]


def test_ignored_signals_stay_ignored() -> None:
    """nohup and a shell's background jobs start programs so; afterwards everything is as before."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    term = signal.getsignal(signal.SIGTERM)
    try:
        with exits.Interruptions() as interruptions:
            os.kill(os.getpid(), signal.SIGHUP)
        assert interruptions.number is None
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is term
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_end_nothing(closed: str, tmp_path: Path, gguf: Path) -> None:
    """The results are in the files, and no file has the number of a stream: what llama.cpp says would stand in it."""
    out = tmp_path / "run"
    words = " ".join([*ORIN_RUN, "eval", "exam", "--limit", "2", "--model", str(gguf), "--out", str(out)])
    assert subprocess.run(["sh", "-c", f"exec {words} {closed}"], check=False, capture_output=True).returncode == 0
    lines = (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert len([json.loads(line) for line in lines]) == 2
    for name in ("run.json", "report.json"):
        assert isinstance(json.loads((out / name).read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("words", [["tasks"], ["tasks", "--json"], ["--version"]])
def test_a_result_that_cannot_be_written_is_named(words: list[str]) -> None:
    """Standard output into a file on a full disk."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*ORIN_RUN, *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "error: standard output: No space left on device\n")
