"""How fast a model answered tasks on a device: what runs have measured, kept from one command to the next.

``$XDG_STATE_HOME/orin-run/speeds.json`` has one entry for each model, device, version of llama.cpp's bindings and task:
the last. Nothing depends on it but the seconds that ``orin-run plan`` expects.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.kept import Kept
from orin_runner.schema import bounded

SHORTEST_S = 1.0
"""Seconds below which a run says nothing of a rate: it is over before anything is warm."""
CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of a task.

    Attributes:
        model: identity of the file (``GGUFFile.digest``).
        device: as ``device_name`` has it.
        library: version of llama.cpp's bindings.
        task: its name.
        tokens_per_s: tokens computed, texts included, a second of inference.
        steps: tokens that a text takes in decode steps, on average; None where nothing is generated.
        run: the run's folder.
        at: local time of its end, ISO 8601.
    """

    model: str
    device: str
    library: str
    task: str
    tokens_per_s: float
    steps: float | None
    run: str
    at: str

    @property
    def sound(self) -> bool:
        """Whether its numbers can be calculated with."""
        return self.tokens_per_s > 0 and (self.steps or 0.0) >= 0 and bounded([self.tokens_per_s, self.steps])


KEPT = Kept(
    "speeds.json",
    list[Speed],
    key=lambda each: (each.model, each.device, each.library, each.task),
    sound=lambda each: each.sound,
)


def device_name(name: str, *, cuda: bool, replicas: int) -> str:
    """What tells devices apart: the GPU's name, or the processor's with its threads, and the number of replicas."""
    if not cuda:
        lines = CPU_INFO.read_text(encoding="utf-8").splitlines() if CPU_INFO.exists() else []
        models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        name = f"{next(models, name)}, {cpu_threads()} threads"
    return name if replicas == 1 else f"{replicas} x {name}"


def read_speeds() -> list[Speed]:
    """All that is known, the newest last."""
    return KEPT.read()


def keep_speeds(found: Iterable[Speed]) -> None:
    """Remember what was measured, in place of what was known of the same.

    Raises:
        UserError, OSError: the file cannot be written.
    """
    KEPT.keep(found)


def speed_of(known: Iterable[Speed], task: str, *, texts: bool) -> Speed | None:
    """The speed to expect of a task: its own, else the last of a task that generates or scores as it does."""
    alike = [speed for speed in known if (speed.steps is not None) == texts]
    own = [speed for speed in alike if speed.task == task]
    return next(reversed(own or alike), None)
