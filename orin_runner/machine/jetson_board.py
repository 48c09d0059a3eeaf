"""A Jetson board as its files say it: module, L4T, power modes, clocks, throttling, desktop.

Nothing needs root. Paths and formats are NVIDIA's (Jetson Linux developer guide) and the kernel's
(``sysfs-class-devfreq``, ``sysfs-class-thermal``). This has not been tried on a device.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from orin_runner.files import parse_json
from orin_runner.machine.power_modes import PowerModes, gated_by
from orin_runner.machine.tree import Tree, whole_number

RELEASE = "/etc/nv_tegra_release"
CAPABILITIES = {"tegra194": (7, 2), "tegra234": (8, 7), "tegra264": (11, 0)}
"""CUDA compute capability by the chip of Xavier, Orin and Thor boards."""
GPU_CLOCKS = (
    "/sys/devices/platform/17000000.gpu/devfreq_dev",  # JetPack 6
    "/sys/devices/17000000.ga10b/devfreq_dev",  # JetPack 5
)
"""Where nvpmodel does not say it, the folder of the GPU's clock."""
DESKTOP = frozenset({"Xorg", "Xwayland", "gnome-shell", "weston", "sway", "kwin_x11", "kwin_wayland"})
"""Processes that draw a desktop; the kernel keeps 15 characters of a name."""


@dataclass(frozen=True, slots=True)
class GpuClock:
    """The GPU's clock in Hz: what it may be at least and at most now, and what the chip can."""

    least: int
    most: int
    chip: int


@dataclass(frozen=True, slots=True)
class Board:
    """What a board says of itself; None where a file is missing.

    Attributes:
        model: as the device tree has it.
        module: its number, such as p3701-0004.
        capability: CUDA compute capability of its GPU.
        l4t: such as 36.4.7.
        cuda: version of the toolkit in ``/usr/local/cuda``.
        modes: its power modes.
        clock: of the GPU.
        gated: TPCs that are switched off now.
        throttling: names of what slows it down now, because it is too hot.
        alarms: over-current alarms since it was booted.
        desktop: processes that draw one.
    """

    model: str | None
    module: str | None
    capability: tuple[int, int] | None
    l4t: str | None
    cuda: str | None
    modes: PowerModes
    clock: GpuClock | None
    gated: int | None
    throttling: tuple[str, ...]
    alarms: int
    desktop: tuple[str, ...]

    @classmethod
    def read(cls, tree: Tree) -> Board | None:
        """The board whose files these are; None where they are not a Jetson's."""
        compatible = (tree.text("/proc/device-tree/compatible") or "").split("\0")
        chip = next((name.partition(",")[2] for name in compatible if name.startswith("nvidia,tegra")), None)
        release = tree.text(RELEASE)
        if release is None and chip is None:
            return None
        l4t = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", release or "")
        module = re.findall(r"p\d{4}-\d{4}", " ".join(compatible))
        modes = PowerModes.read(tree)
        mask = tree.number(modes.files.get(("TPC_POWER_GATING", "TPC_PG_MASK"), "/"))
        alarms = [tree.number(name) or 0 for name in tree.matching("/sys/class/hwmon/hwmon*/oc*_event_cnt")]
        return cls(
            model=tree.text("/proc/device-tree/model"),
            module=module[-1] if module else None,
            capability=CAPABILITIES.get(chip or ""),
            l4t=f"{l4t[1]}.{l4t[2]}" if l4t else None,
            cuda=_cuda(tree),
            modes=modes,
            clock=_clock(tree, modes),
            gated=None if mask is None else gated_by(mask),
            throttling=tuple(_throttling(tree)),
            alarms=sum(alarms),
            desktop=tuple(sorted(DESKTOP & {tree.text(name) or "" for name in tree.matching("/proc/[0-9]*/comm")})),
        )


def _cuda(tree: Tree) -> str | None:
    """The version in ``{"cuda": {"name": "CUDA SDK", "version": "12.6.11"}, ...}``."""
    try:
        return str(parse_json(tree.text("/usr/local/cuda/version.json") or "")["cuda"]["version"])
    except (ValueError, KeyError, TypeError):
        return None


def _clock(tree: Tree, modes: PowerModes) -> GpuClock | None:
    named = [path.rpartition("/")[0] for (of, _), path in modes.files.items() if of == "GPU"]
    for folder in dict.fromkeys((*named, *GPU_CLOCKS)):
        chip = [whole_number(word) or 0 for word in (tree.text(f"{folder}/available_frequencies") or "").split()]
        least, most = tree.number(f"{folder}/min_freq"), tree.number(f"{folder}/max_freq")
        if chip and least is not None and most is not None:
            return GpuClock(least, most, max(chip))
    return None


def _throttling(tree: Tree) -> Iterator[str]:
    """Cooling devices at work that are no fans: L4T has one for each clock that it lowers (``gpu-throttle-alert``)."""
    for name in tree.matching("/sys/class/thermal/cooling_device*/cur_state"):
        kind = tree.text(name.replace("cur_state", "type")) or ""
        if "fan" not in kind and (tree.number(name) or 0) > 0:
            yield kind
