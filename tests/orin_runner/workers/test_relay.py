"""The end on another machine, without a cluster: processes are started, heard and ended by number."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import pytest

from orin_runner.workers.cluster_messages import Ended, Start
from orin_runner.workers.process import place_of
from orin_runner.workers.relay import AT_ONCE, Relay
from tests.support.paths import ROOT

HERE = tuple(sorted(os.sched_getaffinity(0)))[:1]


def echoes(connection: Connection, message: Any) -> None:
    """Send back what comes, until None."""
    while message is not None:
        connection.send(message)
        message = connection.recv()


def tells(connection: Connection, _message: str) -> None:
    """Say where it runs, then end with a line."""
    connection.send((os.environ.get("MARK"), sorted(os.sched_getaffinity(0))))
    print("GGML_ASSERT(true) failed", file=sys.stderr)
    sys.exit(3)


def counts(connection: Connection, n: int) -> None:
    """Send n messages at once."""
    for k in range(n):
        connection.send(k)


def sleeps(_connection: Connection, _message: str) -> None:
    time.sleep(600)


def start(number: int, function: Any) -> Start:
    return Start(number, "a node", place_of(function), {"MARK": "set"}, HERE)


def taken(relay: Relay, number: int) -> tuple[list[Any], Ended]:
    """All that a process says until its end."""
    found: list[bytes] = []
    until = time.monotonic() + 60
    while time.monotonic() < until:  # a fast reader is given the messages one by one
        more, ended = relay.take(number)
        found += more
        if ended is not None:
            return [pickle.loads(each) for each in found], ended  # noqa: S301 - from a process of our own
    pytest.fail("it never ended")


def test_messages_pass_both_ways_in_order() -> None:
    """As bytes, to the process that the number names."""
    relay = Relay()
    for number in (4, 9):
        relay.start(start(number, echoes))
    for message in [*range(20), None]:
        for number in (4, 9):
            relay.send(number, pickle.dumps(None if message is None else (number, message)))
    for number in (9, 4):
        said, ended = taken(relay, number)
        assert said == [(number, k) for k in range(20)]
        assert ended.code == 0
        relay.send(number, pickle.dumps("too late"))


def test_all_that_is_said_before_the_end_is_heard() -> None:
    """More messages than one call brings."""
    relay = Relay()
    relay.start(start(0, counts))
    relay.send(0, pickle.dumps(2 * AT_ONCE + 3))
    said, _ = taken(relay, 0)
    assert said == list(range(2 * AT_ONCE + 3))


def test_a_process_has_its_environment_and_cpus_and_leaves_its_last_words() -> None:
    """Exit status and output come with its end."""
    relay = Relay()
    relay.start(start(0, tells))
    relay.send(0, pickle.dumps(""))
    said, ended = taken(relay, 0)
    assert said == [("set", list(HERE))]
    assert (ended.code, ended.output.strip()) == (3, "GGML_ASSERT(true) failed")


def test_a_process_is_killed_before_and_after_its_start() -> None:
    """A word of its end may overtake that of its start."""
    relay = Relay()
    relay.kill(1)
    for number in (0, 1):
        relay.start(start(number, sleeps))
        relay.send(number, pickle.dumps(""))
    assert taken(relay, 1)[1].code == -9
    assert relay.take(0) == ([], None)
    relay.kill(0)
    assert taken(relay, 0)[1].code == -9


def test_nothing_heavy_is_imported() -> None:
    """Neither llama.cpp, whose CUDA build opens a GPU, nor what Ray brings."""
    code = "import sys, orin_runner.workers.relay; print({'llama_cpp', 'numpy', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "set()"
