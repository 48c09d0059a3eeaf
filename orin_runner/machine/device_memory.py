"""The memory that a plan is made for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """One of several GPUs: its name as shown, and the bytes that the run may take of it."""

    name: str
    available: int


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """What a plan is made for.

    Attributes:
        name: as shown.
        available: bytes that the run may take; of all GPUs where there are several.
        unified: one memory for device and host.
        cuda: computing with CUDA.
        present: it is this machine's, so that llama.cpp can simulate.
        note: where ``available`` comes from.
        gpus: the GPUs that the layers are divided over, in ggml's order; empty where there is one device.
    """

    name: str
    available: int
    unified: bool
    cuda: bool
    present: bool
    note: str
    gpus: tuple[GpuMemory, ...] = ()
