"""Measuring in a process of its own: what is answered, and what becomes of a process that dies."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from orin_runner.engine.bench import Pace
from orin_runner.errors import RunError, UserError
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.shape import Shape
from orin_runner.machine.tuned import name_of
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.bench import Bench, BenchJob, Ceilings, Measure, Measured, NoCeilings, Ready, largest_matrix
from orin_runner.workers.messages import Refused

QUICK = Pace(1, 0.0)
SHAPE = Shape(1, 256, 256)
MEASURE = Measure("scores", SHAPE, 1)


def job(path: Path) -> BenchJob:
    return BenchJob(path, None, cpu_threads(), QUICK)


def test_rates_of_all_kinds(tiny_gguf: Path) -> None:
    """Of the shape that was asked for, or of the one that a plan chooses; each with a warm-up."""
    with Bench(job(tiny_gguf)) as bench:
        assert bench.ready is None
        rows = [bench.measure(each) for each in (MEASURE, Measure("texts", None, 1), Measure("steps", None, 8))]
        two = bench.measure(replace(MEASURE, shape=Shape(2, 256, 256), n=2))
        assert bench.ready is not None
        assert bench.ready.device == name_of(present_device())
    assert [row.failure for row in (*rows, two)] == [None] * 4
    assert all(row.rate is not None and row.rate.mean > 0 and row.rate.warm_up > 0 for row in (*rows, two))
    assert all(row.rate is not None and len(row.rate.samples) == 1 for row in rows)
    assert rows[0].shape == SHAPE
    assert rows[1].shape is not None
    assert two.shape == Shape(2, 256, 256)


def test_ceilings_of_the_models_own_product(tiny_gguf: Path) -> None:
    """The largest matrix of a layer, in its type, before the model is loaded; the model goes on behind them."""
    with Bench(job(tiny_gguf)) as bench:
        found = bench.ceilings()
        assert bench.ready is None
        assert bench.measure(MEASURE).rate is not None
    assert isinstance(found, Ceilings)
    tensor = largest_matrix(GGUFFile.open(tiny_gguf))
    assert (found.tensor, found.kind, (found.n_in, found.n_out)) == (tensor.name, tensor.type, tensor.shape)
    assert "blk." in tensor.name
    assert found.product.mean > 0
    assert found.copy.mean > 0


def test_a_shape_that_does_not_fit_says_so(tiny_gguf: Path) -> None:
    """And by how much; a smaller one is measured all the same."""
    with Bench(replace(job(tiny_gguf), device_bytes=420 * MIB)) as bench:
        large = bench.measure(Measure("scores", Shape(8, 2048, 2048), 8))
        small = bench.measure(MEASURE)
    assert large.rate is None
    assert large.failure is not None
    assert large.failure.startswith("does not fit: ")
    assert large.shape == Shape(8, 2048, 2048)
    assert small.rate is not None


def test_what_does_not_fit_is_not_loaded(tiny_gguf: Path) -> None:
    """The weights are read when there is a plan that fits."""
    with Bench(replace(job(tiny_gguf), device_bytes=64 * MIB)) as bench:
        rows = [bench.measure(each) for each in (MEASURE, Measure("steps", None, 8))]
        assert bench.ready is None
    assert all(str(row.failure).startswith("does not fit: ") for row in rows)


def test_what_is_no_model(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    with Bench(job(broken)) as bench, pytest.raises(UserError, match="broken"):
        bench.measure(MEASURE)


def serve_mortal(connection: Connection, _first: BenchJob) -> None:
    """Dies of two contexts and of ceilings, and lives otherwise."""
    connection.send(Ready("test", own_memory=False))
    while True:
        asked = connection.recv()
        if not isinstance(asked, Measure) or asked.shape == Shape(2, 256, 256):
            os.kill(os.getpid(), signal.SIGKILL)
        connection.send(Measured(asked, asked.shape, None, "lives"))


def serve_dying(_connection: Connection, _first: BenchJob) -> None:
    """Dies of whatever it loads."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_dies_is_an_answer(tmp_path: Path) -> None:
    """Of the shape that it died of; another one goes on with the others."""
    with Bench(job(tmp_path), serve=serve_mortal) as bench:
        assert isinstance(bench.ceilings(), NoCeilings)
        rows = [bench.measure(replace(MEASURE, shape=shape)) for shape in (SHAPE, Shape(2, 256, 256), SHAPE)]
    assert rows[0].failure == rows[2].failure == "lives"
    assert "SIGKILL" in str(rows[1].failure)
    assert rows[1].asked.shape == Shape(2, 256, 256)


def serve_once(connection: Connection, first: BenchJob) -> None:
    """Dies of its first question; the next process finds that it cannot load the model, the one after it dies of it."""
    n = len(list(first.model.iterdir()))
    (first.model / str(n)).touch()
    connection.recv()
    if n == 0:
        connection.send(Ready("test", own_memory=False))
    elif n == 1:
        connection.send(Refused("no memory is left", "close other programs"))
        return
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_model_that_cannot_be_loaded_again_costs_one_row(tmp_path: Path) -> None:
    """What was measured before is not lost."""
    with Bench(job(tmp_path), serve=serve_once) as bench:
        rows = [bench.measure(MEASURE) for _ in range(4)]
    assert rows[1].failure == "no memory is left"
    assert all("the engine died of it" in str(rows[k].failure) for k in (0, 2, 3))


def test_a_process_that_dies_while_it_loads(tmp_path: Path) -> None:
    with Bench(job(tmp_path), serve=serve_dying) as bench, pytest.raises(RunError, match="while it was loading"):
        bench.measure(MEASURE)
