"""Where the replicas of a model run: which GPUs each of them has, or which CPUs.

The parent process must not open a GPU, so all that is known here of GPUs is what their driver says (``nvml``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from orin_runner.console import listed
from orin_runner.errors import UserError
from orin_runner.machine.memory_formula import MIB
from orin_runner.machine.nvml import VISIBLE, Nvml

BESIDE_WEIGHTS = 2048 * MIB
"""Device memory that a model needs beside its weights at least: cache, buffers, what CUDA takes."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that this process may use.

    Attributes:
        id: as ``CUDA_VISIBLE_DEVICES`` takes it, with PCI order.
        name: as its driver calls it.
        free: bytes that nobody uses.
    """

    id: str
    name: str
    free: int


@dataclass(frozen=True, slots=True)
class Seat:
    """What one replica runs on.

    Attributes:
        name: as shown.
        gpus: ids of its GPUs; empty for the CPU, or for whatever llama.cpp finds.
        cpus: CPUs that it may run on; empty for all.
        share: of the memory that all seats share, its part: 1 where it has its own.
    """

    name: str
    gpus: tuple[str, ...] = ()
    cpus: tuple[int, ...] = ()
    share: float = 1.0

    @property
    def environment(self) -> dict[str, str]:
        """Variables that pin a process to it."""
        return {VISIBLE: ",".join(self.gpus), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if self.gpus else {}


def visible_gpus(library: Any = None) -> list[Gpu]:
    """The NVIDIA GPUs that CUDA would show this process, in its order.

    Those without memory of their own, as a Jetson's, are left out; without the driver's library there are none.

    Args:
        library: NVML's binding; None for the real one.
    """
    nvml = Nvml(library)
    try:
        return [Gpu(gpu.id, gpu.name, free) for gpu in nvml.visible() if (free := gpu.free()) is not None]
    finally:
        nvml.close()


def seats(
    gpus: Sequence[Gpu], weights: int, *, asked_gpus: str = "auto", asked_replicas: str = "auto", cuda: bool = True
) -> tuple[list[Seat], str]:
    """One seat for each replica, and why so many, in one line.

    Args:
        gpus: that there are.
        weights: bytes of the model.
        asked_gpus: ``auto`` for all; a number of them; or ids, separated by commas (``0,`` is the id 0).
        asked_replicas: ``auto`` for as many as the GPUs hold, on CPUs one; or a number.
        cuda: llama.cpp was built for them.

    Raises:
        UserError: there are not so many GPUs or CPUs, or these replicas do not fit them.
    """
    n_asked = None if asked_replicas == "auto" else _number("--replicas", asked_replicas)
    if not cuda or not gpus:
        if asked_gpus != "auto":
            why = "llama.cpp was built without CUDA" if gpus else "the NVIDIA driver shows no GPU"
            raise UserError(f"--gpus {asked_gpus}: {why}", "leave --gpus out")
        if cuda and n_asked not in (None, 1):
            raise UserError(
                f"--replicas {n_asked}: the NVIDIA driver shows no GPU for each of them", "leave --replicas out"
            )
        return _cpu_seats(n_asked or 1)
    chosen = _chosen(gpus, asked_gpus)
    size = _group_size(chosen, weights)
    most = max(1, len(chosen) // size)
    n = most if n_asked is None else n_asked
    if n > most:
        fit = f"each needs {size} of them" if size > 1 else "each needs one"
        raise UserError(
            f"{n} replicas do not fit {len(chosen)} GPU{'s' if len(chosen) > 1 else ''}: {fit}", f"--replicas {most}"
        )
    if n_asked is not None:
        size = len(chosen) // n
    groups = [chosen[k * size : (k + 1) * size] for k in range(n)]
    found = [Seat(_name("GPU", [gpu.id for gpu in group]), tuple(gpu.id for gpu in group)) for group in groups]
    if len(gpus) == 1:
        return found, ""
    left = len(chosen) - n * size
    gib = f"the model's {weights / 2**30:.1f} GiB"
    held = "fit one GPU" if size == 1 else f"are divided over {size} GPUs"
    idle = f"; {left} GPU{'s stay' if left > 1 else ' stays'} idle" if left else ""
    who = f"{n} replicas on {_name('GPU', [id_ for seat in found for id_ in seat.gpus])}" if n > 1 else found[0].name
    return found, f"{who}: {gib} {held}{idle}"


def _cpu_seats(n: int) -> tuple[list[Seat], str]:
    cpus = sorted(os.sched_getaffinity(0))
    if n == 1:
        return [Seat("this machine")], ""
    if n > len(cpus):
        raise UserError(f"{n} replicas need {n} CPUs, this process has {len(cpus)}", f"--replicas {len(cpus)}")
    # Neighbours: they share caches, and on most machines a memory controller.
    bounds = [len(cpus) * k // n for k in range(n + 1)]
    parts = [tuple(cpus[first:end]) for first, end in pairwise(bounds)]
    found = [Seat(_name("CPU", list(map(str, part))), cpus=part, share=1 / n) for part in parts]
    return found, f"{n} replicas on {len(cpus)} CPUs, each with its own copy of the model"


def _chosen(gpus: Sequence[Gpu], asked: str) -> list[Gpu]:
    if asked == "auto":
        return list(gpus)
    known: Mapping[str, Gpu] = {gpu.id: gpu for gpu in gpus}
    if "," not in asked:
        n = _number("--gpus", asked)
        if n > len(gpus):
            raise UserError(f"--gpus {n}: there are {len(gpus)}", f"--gpus {len(gpus)}, or auto")
        return list(gpus[:n])
    ids = [entry.strip() for entry in asked.split(",") if entry.strip()]
    missing = [entry for entry in ids if entry not in known]
    if missing or not ids or len(set(ids)) < len(ids):
        what = f"GPU {missing[0]} is not here" if missing else "an id occurs twice" if ids else "no id is named"
        raise UserError(f"--gpus {asked}: {what}", f"ids of {', '.join(known)}; a number of GPUs; or auto")
    return [known[entry] for entry in ids]


def _group_size(gpus: Sequence[Gpu], weights: int) -> int:
    """The fewest GPUs that hold the model; all of them where none of these do, for the plan to refuse."""
    least = min(gpu.free for gpu in gpus)
    return next(
        (n for n in range(1, len(gpus) + 1) if n * (least - BESIDE_WEIGHTS) >= weights),
        len(gpus),
    )


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise UserError(f"{option} {text} is neither auto nor a number of at least 1", f"{option} auto")
    return int(text)


def _name(kind: str, ids: Sequence[str]) -> str:
    if len(ids) == 1:
        return f"{kind} {ids[0]}"
    run = [str(k) for k in range(int(ids[0]), int(ids[0]) + len(ids))] if ids[0].isdigit() else []
    which = f"{ids[0]} to {ids[-1]}" if list(ids) == run and len(ids) > 2 else listed(ids)
    return f"{kind}s {which}"
