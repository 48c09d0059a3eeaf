"""A worker ends with the process that started it, and only then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

import pytest

from orin_runner.workers.death import LastWords
from orin_runner.workers.process import WorkerProcess
from tests.support.paths import ROOT
from tests.support.waiting import runs, until

PARENT = """
import sys, threading, time
from orin_runner.workers.process import WorkerProcess
from tests.orin_runner.workers.test_process import sleeps
def start():
    global process
    process = WorkerProcess(sleeps)
    process.connection.send("go")
    print(process.connection.recv(), flush=True)
if sys.argv[1] == "main":
    start()
else:
    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
time.sleep(600)
"""


def sleeps(connection: Connection, _message: str) -> None:
    """Say which process it is, and do nothing for long."""
    connection.send(os.getpid())
    time.sleep(600)


def echoes(connection: Connection, message: str) -> None:
    """Send back what comes, until the pipe ends."""
    while True:
        connection.send(message)
        message = connection.recv()


def raises(_connection: Connection, message: str) -> None:
    """A bug."""
    raise LookupError(message)


@pytest.mark.parametrize("thread", ["main", "another"])
def test_a_worker_does_not_outlive_its_parent(thread: str) -> None:
    """The parent is killed, so that nothing of its own can end the worker; the worker does not look at its pipe."""
    command = [sys.executable, "-c", PARENT, thread]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert runs(worker)
        parent.kill()
        parent.wait()
        began = time.monotonic()
        until(lambda: not runs(worker))
        assert time.monotonic() - began < 1.0


def test_a_worker_outlives_the_thread_that_started_it() -> None:
    """The kernel would end it with that thread; a pipeline made in a thread is used in others."""
    started: list[WorkerProcess] = []

    def start() -> None:
        started.append(WorkerProcess(echoes))
        started[0].connection.send("one")

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    (process,) = started
    assert process.connection.recv() == "one"
    time.sleep(0.6)  # longer than it takes to look twice
    process.connection.send("two")
    assert process.connection.recv() == "two"
    process.close(10)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_reaches_the_whole_group_does_not_end_a_worker(how: signal.Signals) -> None:
    """The parent decides."""
    process = WorkerProcess(echoes)
    process.connection.send("one")
    assert process.connection.recv() == "one"
    os.kill(process._process.pid, how)
    process.connection.send("two")
    assert process.connection.recv() == "two"
    process.close(10)


def test_an_exception_is_told_and_its_traceback_kept() -> None:
    """The line over the pipe, everything in what the process has written."""
    process = WorkerProcess(raises)
    process.connection.send("no such thing")
    told = process.connection.recv()
    assert isinstance(told, LastWords)
    assert told.text.startswith("LookupError: no such thing (test_process.py:")
    with pytest.raises(EOFError):
        process.connection.recv()
    assert str(process.death(told.text, 10)) == told.text
    assert "Traceback (most recent call last)" in process.output
    process.close(10)


def test_what_does_not_end_is_ended() -> None:
    """A worker that hangs costs the patience, not the run."""
    process = WorkerProcess(sleeps)
    process.connection.send("go")
    pid = process.connection.recv()
    process.close(0.1)
    assert not runs(pid)
