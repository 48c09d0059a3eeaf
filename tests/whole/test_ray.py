"""A run shared by the nodes of a Ray cluster is the run on one machine, whatever becomes of a node."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.runs.run import Run
from tests.support.commands import orin_run, orin_run_begun, refused
from tests.support.ray_cluster import RayCluster, ray_cluster
from tests.support.waiting import until

TASK = ("eval", "exam", "--max-new-tokens", "4")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    with ray_cluster() as found:
        yield found


def answered(out: Path) -> int:
    path = out / "predictions.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def begun(cluster: RayCluster, model: Path, out: Path) -> subprocess.Popen[str]:
    """A run on the cluster that has answered something."""
    process = orin_run_begun(*TASK, "--limit", "120", "--model", model, "--out", out, "--ray", cluster.address)
    until(lambda: answered(out) > 0 or process.poll() is not None, 90)
    assert process.poll() is None, process.communicate()
    return process


def test_answers_are_those_of_one_machine(cluster: RayCluster, tiny_gguf: Path, tmp_path: Path) -> None:
    """Each item once, the same answer, every distinct token once; run.json and report.json name the nodes."""
    limited = (*TASK, "--limit", "30", "--model", tiny_gguf)
    done = orin_run(*limited, "--out", tmp_path / "one")
    assert done.returncode == 0, done.stderr
    done = orin_run(*limited, "--out", tmp_path / "several", "--ray", cluster.address)
    assert done.returncode == 0, done.stderr
    assert "2 replicas on 2 nodes of the Ray cluster" in done.stderr
    foreign = [line for line in done.stderr.splitlines() if "ray" in line.lower() and "replicas on" not in line]
    assert foreign == []
    one, several = Run.open(tmp_path / "one"), Run.open(tmp_path / "several")
    assert set(one.predictions) == set(several.predictions)
    for key, prediction in one.predictions.items():
        other = several.predictions[key]
        assert (prediction.prediction, prediction.text) == (other.prediction, other.text)
        assert prediction.tokens_sha256 == other.tokens_sha256
    before, after = (run.report["tasks"]["exam"] for run in (one, several))
    for key in ("accuracy", "items", "failed", "metrics", "groups"):
        assert before[key] == after[key], key
    assert before["tokens"]["sent"] == after["tokens"]["sent"]
    names = several.header["replicas"]
    assert all(name.startswith("node ") for name in names)
    assert len(set(names)) == 2
    assert [share["name"] for share in after["replicas"]] == names
    assert sum(share["items"] for share in after["replicas"]) == 30
    assert all(share["items"] for share in after["replicas"])
    until(lambda: not cluster.workers(), 5)


def test_a_node_that_is_lost_leaves_its_items_to_the_others(
    cluster: RayCluster, tiny_gguf: Path, tmp_path: Path
) -> None:
    """Every item is answered once; a line names the node, and nobody tries to go on there."""
    cluster.add_node()
    process = begun(cluster, tiny_gguf, tmp_path / "run")
    cluster.lose_node()
    _, said = process.communicate()
    assert process.returncode == 0, said
    run = Run.open(tmp_path / "run")
    assert len(run.predictions) == answered(tmp_path / "run") == 120
    warnings = [line for line in said.splitlines() if "is gone" in line]
    assert len(warnings) == 1, said
    assert warnings[0].startswith("warning: node ")
    assert "the others go on with what it leaves" in warnings[0]
    assert "half the memory" not in said
    shares = run.report["tasks"]["exam"]["replicas"]
    assert sorted(share["restarts"] for share in shares) == [0, 0, 1]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_ended_leaves_nothing_on_the_nodes(
    cluster: RayCluster, tiny_gguf: Path, tmp_path: Path, how: signal.Signals
) -> None:
    """Ctrl-C ends it as any other run; the nodes' processes end even where nobody could say so."""
    process = begun(cluster, tiny_gguf, tmp_path / "run")
    assert len(cluster.workers()) == 2
    os.kill(process.pid, how)
    _, said = process.communicate()
    if how == signal.SIGINT:
        assert process.returncode == 130, said
        assert "--resume" in said.splitlines()[-1]
        assert "Traceback" not in said
    until(lambda: not cluster.workers(), 30)


def test_an_address_without_a_cluster(tiny_gguf: Path, tmp_path: Path) -> None:
    """One line, and nothing is written."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        done = orin_run(*TASK, "--model", tiny_gguf, "--out", tmp_path / "run", "--ray", address)
    refused(done, f"no Ray cluster answers at {address}")
    assert not (tmp_path / "run").exists()
