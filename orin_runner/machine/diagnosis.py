"""What a check looks at, and what it says.

``Machine`` holds the facts, each read once. What a check says is a ``Check``: a fact, a verdict, and the one command
that mends it. The checks themselves are listed in ``checks``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.jetson_board import Board
from orin_runner.machine.memory_plan import MemoryPlan
from orin_runner.machine.nvml import Nvml
from orin_runner.machine.tree import Tree
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama_library import Device, Mismatch


class Verdict(Enum):
    """What a fact means for a run."""

    OK = "ok"
    SLOWER = "slower"
    """By more than 10 %."""
    FAILS = "fails"
    UNKNOWN = "unknown"
    """It may cost something, or could not be read."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of a diagnosis.

    Attributes:
        name: of what was looked at.
        fact: what is so.
        verdict: what that means.
        command: the one that mends it, or says more where nothing is known; None where all is well.
    """

    name: str
    fact: str
    verdict: Verdict = Verdict.OK
    command: str | None = None

    @property
    def is_bad(self) -> bool:
        """Whether a run will fail, or be slower by more than 10 %."""
        return self.verdict in {Verdict.SLOWER, Verdict.FAILS}


@dataclass(frozen=True, slots=True)
class VisibleGpu:
    """A GPU that CUDA would show, as its driver has it; ``capability`` is the compute capability, such as (9, 0)."""

    id: str
    name: str
    capability: tuple[int, int] | None = None
    throttled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Library:
    """llama.cpp as it is installed: version of its bindings, whether it was built with CUDA, what does not fit."""

    version: str
    cuda: bool
    mismatch: Mismatch | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What llama.cpp finds when it opens the devices, in a process of its own.

    Attributes:
        architectures: compute capabilities that its CUDA code was compiled for, 87 for 8.7.
        devices: that it would compute on.
        gpu_layers, n_layers: layers of the model that it would put on GPUs, and all; None without a model.
        failure: what it said of errors, or what it died of; None where all went well.
    """

    architectures: tuple[int, ...] = ()
    devices: tuple[Device, ...] = ()
    gpu_layers: int | None = None
    n_layers: int | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """All that checks look at.

    Attributes:
        tree: files of the machine.
        board: where it is a Jetson.
        memory: of the host.
        library: llama.cpp.
        gpus: with memory of their own, that CUDA would show.
        environment: variables.
        file: the model, None where none is named.
        seen: what llama.cpp finds; None where nobody has looked.
        plan: for one request; None where nobody has planned.
        plan_failure: why there is no plan.
    """

    tree: Tree
    board: Board | None
    memory: HostMemory
    library: Library
    gpus: tuple[VisibleGpu, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    file: GGUFFile | None = None
    seen: Seen | None = None
    plan: MemoryPlan | None = None
    plan_failure: str | None = None

    @classmethod
    def read(cls, tree: Tree, file: GGUFFile | None = None, nvml: Any = None) -> Machine:
        """What can be read in an instant, without opening a GPU.

        Of another machine's tree, llama.cpp and the variables are those of this process, and there are no GPUs beside a
        Jetson's own.

        Args:
            tree: files of the machine.
            file: the model.
            nvml: NVML's binding; None for the real one.
        """
        board = Board.read(tree)
        # A Jetson's NVML knows neither memory nor throttling.
        gpus = _gpus(nvml) if board is None and tree.is_here else ()
        here = () if tree.is_here else (tree.path("/proc"), None, tree.path("/sys/fs/cgroup"))
        library = Library(llama_library.version(), llama_library.has_cuda(), llama_library.mismatch())
        return cls(tree, board, HostMemory(*here), library, gpus, dict(os.environ), file)

    @property
    def has_gpu(self) -> bool:
        """Whether there is one that CUDA would show, as far as is known."""
        seen = self.seen is not None and any(device.is_gpu for device in self.seen.devices)
        return seen or self.board is not None or bool(self.gpus)

    def costs(self, size: int) -> Verdict:
        """What it means that something else holds so many bytes: a plan that does not fit would fit without it."""
        in_the_way = self.plan is not None and -size <= self.plan.remaining < 0
        return Verdict.FAILS if in_the_way else Verdict.UNKNOWN

    @property
    def capabilities(self) -> dict[str, tuple[int, int]]:
        """Compute capability by the GPU's name, as far as it is known."""
        if self.board is not None:
            return {} if self.board.capability is None else {"the board's GPU": self.board.capability}
        return {gpu.name: gpu.capability for gpu in self.gpus if gpu.capability is not None}


def _gpus(library: Any) -> tuple[VisibleGpu, ...]:
    nvml = Nvml(library)
    try:
        return tuple(
            VisibleGpu(gpu.id, gpu.name, gpu.capability(), gpu.read(()).throttled or ())
            for gpu in nvml.visible()
            if gpu.free() is not None
        )
    finally:
        nvml.close()
