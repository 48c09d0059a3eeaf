"""What a node must have before anything runs on it, with answers that are made here."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from orin_runner.errors import UserError
from orin_runner.machine.memory_plan import Needs
from orin_runner.machine.seats import Seat
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.cluster import Cluster
from orin_runner.workers.cluster_messages import Node
from orin_runner.workers.messages import Job, Refused
from orin_runner.workers.nodes import Found, Look, boot_id, check_versions, checked, look, places_of, places_on
from orin_runner.workers.process import Function, Process, WorkerProcess
from orin_runner.workers.relay import versions

NODE = Node("1", "node 10.0.0.2", 2, 0)
GIB = 1 << 30
MODEL = Path("/models/m.gguf")
FOUND = Found("digest", [Seat("this machine")], "", 8, 4 * GIB, boot_id())


def looked(asked: Look) -> Found | Refused:
    """The answer of a node that is this machine."""
    process = WorkerProcess(look)
    process.connection.send(asked)
    answer: Found | Refused = process.connection.recv()
    process.close(10)
    return answer


def test_a_node_says_what_it_has(tiny_gguf: Path) -> None:
    """The file's digest, its CPUs, its memory; so many seats as are asked for."""
    found = looked(Look(tiny_gguf, "auto", "1"))
    assert isinstance(found, Found)
    assert found.digest == GGUFFile.open(tiny_gguf).digest()
    assert found.seats == [Seat("this machine")]
    assert found.n_cpus == len(os.sched_getaffinity(0))
    assert found.available > GIB // 4


def test_a_node_without_the_file_is_refused_by_name(tmp_path: Path) -> None:
    """Its own answer, in one line."""
    path = tmp_path / "missing.gguf"
    answer = looked(Look(path, "auto", "auto"))
    with pytest.raises(UserError, match=r"^node 10.0.0.2: .*missing.gguf"):
        checked("node 10.0.0.2", answer, path, "digest")


def test_a_node_without_so_many_cpus_is_refused_by_name(tiny_gguf: Path) -> None:
    """As on one machine."""
    answer = looked(Look(tiny_gguf, "auto", "9999"))
    with pytest.raises(UserError, match=r"^node 10.0.0.2: 9999 replicas need 9999 CPUs"):
        checked("node 10.0.0.2", answer, tiny_gguf, "digest")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (replace(FOUND, digest="another"), "node 10.0.0.2: /models/m.gguf is another file than here"),
        (Refused("no such file", "copy it there"), "node 10.0.0.2: no such file"),
        ("SIGKILL", "node 10.0.0.2: SIGKILL"),
    ],
)
def test_a_node_that_will_not_do(answer: Found | Refused | str, said: str) -> None:
    """One line that begins with its name, with what to do."""
    with pytest.raises(UserError) as raised:
        checked("node 10.0.0.2", answer, MODEL, "digest")
    assert raised.value.message == said
    assert raised.value.hint


def test_a_node_that_will_do() -> None:
    """The same file."""
    assert checked("node 10.0.0.2", FOUND, MODEL, "digest") is FOUND


@pytest.mark.parametrize("what", ["orin-run", "llama-cpp-python"])
def test_other_versions_are_refused_by_name(what: str) -> None:
    """Both are named, and a node without it."""
    ours = versions()
    check_versions("node 10.0.0.2", dict(ours), ours)
    with pytest.raises(UserError, match=f"node 10.0.0.2 has {what} 0.0.1, this machine has {ours[what]}"):
        check_versions("node 10.0.0.2", {**ours, what: "0.0.1"}, ours)
    with pytest.raises(UserError, match=f"{what} none"):
        check_versions("node 10.0.0.2", {k: v for k, v in ours.items() if k != what}, ours)


class Here:
    """A cluster whose nodes are all this machine."""

    def __init__(self, nodes: list[Node]) -> None:
        self.nodes = nodes
        self.versions = {node.id: versions() for node in nodes}
        self.started: list[tuple[str, dict[str, str], tuple[int, ...]]] = []

    def start(
        self, node: Node, function: Function, environment: dict[str, str], cpus: tuple[int, ...]
    ) -> WorkerProcess:
        self.started.append((node.name, environment, cpus))
        return WorkerProcess(function, environment=environment, cpus=cpus)


def test_each_node_has_its_replicas(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named by node; no more threads than Ray may give away there; the path is absolute."""
    monkeypatch.chdir(tiny_gguf.parent)
    nodes = [NODE, Node("2", "node 10.0.0.3", 1, 0)]
    here = Here(nodes)
    file = GGUFFile.open(Path(tiny_gguf.name))
    places, lines = places_on(cast("Cluster", here), file, "auto", "auto")
    assert lines == []
    assert [place.name for place in places] == ["node 10.0.0.2", "node 10.0.0.3"]
    assert [place.n_threads for place in places] == [min(2, len(os.sched_getaffinity(0))), 1]
    job = places[1].job(Job(Path("relative"), Needs(1), (), None, 1.0, 64, draft=True))
    assert (job.model, job.n_threads, job.device_bytes) == (tiny_gguf, 1, None)
    here.started.clear()
    process = cast("Callable[[Function], Process]", places[1].spawn)(look)
    process.kill()
    process.close(1)
    assert here.started == [("node 10.0.0.3", {}, ())]


def test_replicas_of_a_node_are_pinned_and_share_what_it_has() -> None:
    """Each to its GPU, with a part of the CPUs of the machine, not of those that Ray gives away; or to its CPUs."""
    here = Here([])
    node = Node("1", "node 10.0.0.2", 2, 2)
    found = replace(FOUND, seats=[Seat("GPU 0", ("0",)), Seat("GPU 1", ("1",))])
    places = places_of(cast("Cluster", here), node, MODEL, found)
    assert [(place.name, place.n_threads, place.memory) for place in places] == [
        ("node 10.0.0.2, GPU 0", 4, None),
        ("node 10.0.0.2, GPU 1", 4, None),
    ]
    assert [place.gpus for place in places] == [("0",), ("1",)], "the node is this machine"
    places = places_of(cast("Cluster", here), node, MODEL, replace(found, boot="another"))
    assert [place.gpus for place in places] == [None, None]
    process = places[1].spawn(look)
    process.kill()
    process.close(1)
    assert here.started == [("node 10.0.0.2", {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, ())]
    assert [place.n_threads for place in places_of(cast("Cluster", here), NODE, MODEL, FOUND)] == [2]
    cpus = [Seat("CPUs 0 to 4", cpus=(0, 1, 2, 3, 4), share=0.5), Seat("CPU 5", cpus=(5,), share=0.5)]
    places = places_of(cast("Cluster", here), NODE, MODEL, replace(FOUND, seats=cpus))
    assert [(place.name, place.n_threads, place.memory) for place in places] == [
        ("node 10.0.0.2, CPUs 0 to 4", 5, 2 * GIB),
        ("node 10.0.0.2, CPU 5", 1, 2 * GIB),
    ]


def test_a_copy_with_another_time_is_another_file_where_nothing_better_names_it(
    tiny_gguf: Path, tmp_path: Path
) -> None:
    """Of a file with a manifest that does not count."""
    copy = tmp_path / "copy.gguf"
    shutil.copyfile(tiny_gguf, copy)
    os.utime(copy, (1, 1))
    answer = looked(Look(copy, "auto", "auto"))
    assert checked("node", answer, copy, GGUFFile.open(tiny_gguf).digest()) is answer


@pytest.mark.parametrize("address", ["", "ray://10.0.0.1:10001", "local", "10.0.0.1", "10.0.0.1:0", "10.0.0.1:99999"])
def test_an_address_that_is_none(address: str) -> None:
    """Refused without asking Ray, which would start a cluster of its own for some of these."""
    with pytest.raises(UserError, match="neither auto nor HOST:PORT"), Cluster(address, None):
        pass


def test_ray_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what to install."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError) as raised, Cluster("auto", None):
        pass
    assert raised.value.hint == "pip install 'orin-run[ray]'"
