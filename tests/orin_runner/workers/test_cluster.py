"""The parent's end of processes on nodes, with a driver that has no Ray: its one node is this machine."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from typing import Any

import pytest

from orin_runner.errors import UserError
from orin_runner.workers import cluster as module
from orin_runner.workers.cluster import Cluster
from orin_runner.workers.cluster_messages import Connect, Connected, Ended, Held, Kill, NoCluster, Node, Start
from orin_runner.workers.process import place_of
from orin_runner.workers.relay import Relay

NODE = Node("1", "node 10.0.0.2", 2, 0)


def drives(connection: Connection, _asked: Connect) -> None:
    """Start what is asked for here."""
    connection.send(Connected((NODE,)))
    connection.send(Held({"1": {"orin-run": "1"}}))
    relay = Relay()
    while True:
        message = connection.recv()
        if isinstance(message, Kill):
            relay.kill(message.number)
            continue
        pipe = Connection(recv_handle(connection))
        relay.start(message)
        for function in (to_node, from_node):
            threading.Thread(target=function, args=(relay, message.number, pipe), daemon=True).start()


def to_node(relay: Relay, number: int, pipe: Connection) -> None:
    with suppress(EOFError, OSError):
        while True:
            relay.send(number, pipe.recv())


def from_node(relay: Relay, number: int, pipe: Connection) -> None:
    ended: Ended | None = None
    while ended is None:
        messages, ended = relay.take(number)
        for message in messages:
            pipe.send(message)
    pipe.send(ended)


def hears_nothing(connection: Connection, _asked: Connect) -> None:
    """A node that can no longer be reached, though nobody has noticed yet."""
    connection.send(Connected((NODE,)))
    connection.send(Held({"1": {}}))
    pipes = []
    while True:
        if isinstance(connection.recv(), Start):
            pipes.append(recv_handle(connection))


def finds_none(connection: Connection, asked: Connect) -> None:
    connection.send(NoCluster(f"nothing at {asked.address}", "start it"))


def loses_it(connection: Connection, _asked: Connect) -> None:
    """Connect, and find no relay to be had."""
    connection.send(Connected((NODE,)))
    connection.send(NoCluster("node 10.0.0.2: others use it", "wait"))


def fails(_connection: Connection, _asked: Connect) -> None:
    raise LookupError("a bug")


def says_nothing(_connection: Connection, _asked: Connect) -> None:
    time.sleep(600)


def answers(connection: Connection, message: str) -> None:
    """Send each message back; end with a line on the one that says so."""
    while message != "end":
        connection.send(message.upper())
        message = connection.recv()
    print("GGML_ASSERT(true) failed", file=sys.stderr)
    sys.exit(3)


@pytest.fixture
def driven(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Cluster]:
    """A cluster with that driver."""

    def made(driver: Any) -> Cluster:
        monkeypatch.setattr(module, "DRIVER", place_of(driver))
        monkeypatch.setattr(module.importlib.util, "find_spec", lambda _name: "a library")
        return Cluster("10.0.0.1:6379", None)

    return made


def test_a_process_on_a_node_is_as_one_here(driven: Callable[[Any], Cluster]) -> None:
    """Messages both ways, several processes at once, the end with status and output."""
    with driven(drives) as cluster:
        assert cluster.nodes == (NODE,)
        assert cluster.versions == {"1": {"orin-run": "1"}}
        processes = [cluster.start(NODE, answers, {}, ()) for _ in range(3)]
        for k, process in enumerate(processes):
            process.connection.send(f"a{k}")
            process.connection.send(f"b{k}")
            process.connection.send("end")
        for k, process in enumerate(processes):
            assert [process.connection.recv() for _ in range(2)] == [f"A{k}", f"B{k}"]
            with pytest.raises(EOFError):
                process.connection.recv()
            death = process.death(None, 1)
            assert (str(death), death.final) == ("GGML_ASSERT(true) failed", False)
            assert str(process.death("its own words", 1)) == "its own words"
            assert process.output == "GGML_ASSERT(true) failed\n"
            process.close(1)


@pytest.mark.parametrize("driver", [drives, hears_nothing])
def test_whoever_listens_to_a_process_that_is_killed_hears_its_end(
    driven: Callable[[Any], Cluster], driver: Any
) -> None:
    """At once, from another thread, even where its node does not answer."""
    with driven(driver) as cluster:
        process = cluster.start(NODE, says_nothing, {}, ())
        process.connection.send("go")
        ends: list[BaseException] = []

        def listens() -> None:
            try:
                process.connection.recv()
            except (EOFError, OSError) as error:
                ends.append(error)

        thread = threading.Thread(target=listens, daemon=True)
        thread.start()
        process.kill()
        thread.join(30)
        assert [type(end) for end in ends] == [EOFError]
        process.close(1)


def test_nothing_runs_on_where_the_driver_is_gone(driven: Callable[[Any], Cluster]) -> None:
    """As where a node is lost: the death is final, and so is that of whatever is started behind it."""
    with driven(drives) as cluster:
        process = cluster.start(NODE, says_nothing, {}, ())
        process.connection.send("go")
        cluster._driver.kill()
        with pytest.raises((EOFError, ConnectionResetError)):
            process.connection.recv()
        death = process.death(None, 1)
        assert death.final
        assert not death.may_be_memory
        process.close(1)
        late = cluster.start(NODE, says_nothing, {}, ())
        with pytest.raises(BrokenPipeError):
            late.connection.send("go")
        assert late.death(None, 1).final
        late.kill()
        late.close(1)


@pytest.mark.parametrize(
    ("driver", "message", "hint"),
    [
        (finds_none, "nothing at 10.0.0.1:6379", "start it"),
        (loses_it, "node 10.0.0.2: others use it", "wait"),
        (fails, "Ray has died (LookupError: a bug (test_cluster.py:", "ray status says how it is"),
    ],
)
def test_no_cluster(driven: Callable[[Any], Cluster], driver: Any, message: str, hint: str) -> None:
    """One line, and what to try; no process is left."""
    cluster = driven(driver)
    with pytest.raises(UserError) as raised, cluster:
        pass
    assert raised.value.message.startswith(message)
    assert raised.value.hint == hint
    assert cluster._driver._process.returncode is not None


def test_a_cluster_that_does_not_answer(driven: Callable[[Any], Cluster], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would go on trying for minutes."""
    monkeypatch.setattr(module, "CONNECT_S", 0.2)
    cluster = driven(says_nothing)
    with pytest.raises(UserError, match=r"the Ray cluster at 10\.0\.0\.1:6379 does not answer"), cluster:
        pass
    assert cluster._driver._process.returncode == -signal.SIGKILL
