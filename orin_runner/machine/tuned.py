"""Which shape of decode calls was the fastest for a model on a device: what ``orin-run bench`` has measured.

``$XDG_STATE_HOME/orin-run/tuned.json`` has one entry for each model, device, version of llama.cpp's bindings and kind
of work: the last.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from orin_runner.machine.device_memory import DeviceMemory
from orin_runner.machine.kept import Kept
from orin_runner.machine.shape import Shape
from orin_runner.machine.speeds import device_name
from orin_runner.schema import bounded

TunedWork = Literal["scores", "texts"]


@dataclass(frozen=True, slots=True)
class Tuned:
    """The fastest shape of those that were measured.

    Attributes:
        model: identity of the file (``GGUFFile.digest``).
        device: as ``speeds.device_name`` has it, for one replica.
        library: version of llama.cpp's bindings.
        work: what it is the fastest for.
        shape: the sizes.
        tokens_per_s: its rate.
        at: local time, ISO 8601.
        f32_gain: how many times as fast a product is there with weights in F32 instead of the file's type; None where
            it is not clearly faster.
    """

    model: str
    device: str
    library: str
    work: TunedWork
    shape: Shape
    tokens_per_s: float
    at: str
    f32_gain: float | None = None

    @property
    def sound(self) -> bool:
        """Whether a run can be planned with it."""
        numbers = [self.tokens_per_s, 1.0 if self.f32_gain is None else self.f32_gain]
        return self.shape.sound and min(numbers) > 0 and bounded(numbers)


KEPT = Kept(
    "tuned.json",
    list[Tuned],
    key=lambda each: (each.model, each.device, each.library, each.work),
    sound=lambda each: each.sound,
)


def name_of(device: DeviceMemory) -> str:
    """What tells this device from others, in ``Tuned.device``."""
    return device_name(device.name, cuda=device.cuda, replicas=1)


def tuned_for(model: str, library: str) -> tuple[Tuned, ...]:
    """What is known of a model with a library, on any device."""
    return tuple(each for each in KEPT.read() if (each.model, each.library) == (model, library))


def shape_on(device: DeviceMemory, known: Iterable[Tuned], *, texts: bool) -> Shape | None:
    """The fastest shape on ``device`` for scores or for texts; None where it was not measured there."""
    wanted = (name_of(device), "texts" if texts else "scores")
    return next((each.shape for each in known if (each.device, each.work) == wanted), None)


def f32_gain_on(device: DeviceMemory, known: Iterable[Tuned]) -> float | None:
    """``Tuned.f32_gain`` of what was last measured on ``device``; None where nothing was."""
    return next((each.f32_gain for each in reversed([*known]) if each.device == name_of(device)), None)
