"""What llama.cpp finds on this machine, in a process of its own: it opens the GPU, and may abort there."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from orin_runner.machine.diagnosis import Seen
from orin_runner.model import llama, llama_library, llama_log
from orin_runner.workers.death import LastWords
from orin_runner.workers.process import WorkerProcess

PATIENCE_S = 10.0
"""Seconds that the process has to end by itself."""


def look(connection: Connection, model: Path | None) -> None:
    """Send what is ``Seen``; with a model also where its layers would be, of which nothing is read or allocated."""
    devices = tuple(llama_library.devices())
    gpu_layers = n_layers = None
    said = llama_log.LOG.find(r"failed to initialize CUDA.*|no CUDA-capable device.*|CUDA error.*")
    if model is not None:
        with llama.Model(model, simulated=True) as found:
            gpu_layers, n_layers = found.gpu_layers, found.n_layers
    connection.send(
        Seen(llama_library.architectures(), devices, gpu_layers, n_layers, said[0][0].strip() if said else None)
    )


def seen_from(model: Path | None) -> Seen:
    """What such a process finds; its ``failure`` is what it died of, where it did."""
    process = WorkerProcess(look)
    said = None
    try:
        process.connection.send(model)
        found = process.connection.recv()
        if isinstance(found, Seen):
            return found
        said = found.text if isinstance(found, LastWords) else None
    except (EOFError, OSError):
        pass
    finally:
        death = process.death(said, PATIENCE_S)
        process.close(PATIENCE_S)
    return Seen(failure=str(death))
