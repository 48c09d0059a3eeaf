"""A Ray cluster of two nodes on this machine, in a process of its own: Ray never enters that of the tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from tests.support.paths import ROOT

MARK = "ORIN_RUN_TEST_CLUSTER"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


class RayCluster:
    """Its address, and whether anything runs on its nodes."""

    def __init__(self, process: subprocess.Popen[str], mark: str) -> None:
        self._process, self._mark = process, mark
        self.address = self._said()

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line

    def _do(self, what: str) -> None:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        assert self._said() == what

    def add_node(self) -> None:
        """One node more."""
        self._do("add")

    def lose_node(self) -> None:
        """The node that was added last is lost, as when its power fails."""
        self._do("lose")

    def workers(self) -> list[int]:
        """Processes of ours on its nodes."""
        return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if self._is_ours(folder)]

    def _is_ours(self, process: Path) -> bool:
        try:
            if f"{MARK}={self._mark}".encode() not in (process / "environ").read_bytes().split(b"\0"):
                return False
            return b"orin_runner.workers.process" in (process / "cmdline").read_bytes()
        except OSError:  # it has ended meanwhile
            return False


@contextmanager
def ray_cluster() -> Iterator[RayCluster]:
    """Two nodes of one CPU each, which end with the process of the tests."""
    mark = uuid4().hex
    environment = {**os.environ, MARK: mark, "RAY_USAGE_STATS_ENABLED": "0"}
    command = [sys.executable, "-m", "tests.support.ray_cluster"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment
    ) as process:
        yield RayCluster(process, mark)


def main() -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    nodes = [cluster.add_node(**NODE)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        what = line.strip()
        if what == "add":
            nodes.append(cluster.add_node(**NODE))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            cluster.wait_for_nodes()  # until Ray has noticed: a run that begins before is refused
        print(what, flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main()
