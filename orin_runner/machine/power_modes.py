"""The power modes of a Jetson, from nvpmodel's own files.

``/etc/nvpmodel.conf`` says what they are about (a ``PARAM`` names files of sysfs), then what each mode sets:

    < PARAM TYPE=FILE NAME=TPC_POWER_GATING >
    TPC_PG_MASK /sys/devices/platform/17000000.gpu/tpc_pg_mask
    < POWER_MODEL ID=2 NAME=MODE_30W >
    TPC_POWER_GATING TPC_PG_MASK 7
    GPU MAX_FREQ 612000000
    < PM_CONFIG DEFAULT=2 >

A frequency of -1 is no limit. ``/var/lib/nvpmodel/status`` has the mode that is set, as ``pmode:0002``. Which number a
mode has depends on the board: on an Orin Nano 0 is not the fastest.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from orin_runner.machine.tree import Tree, whole_number

CONF = "/etc/nvpmodel.conf"
STATUS = "/var/lib/nvpmodel/status"
HEADING = re.compile(r"<\s*(\w+)\s+(.*?)\s*>")


@dataclass(frozen=True, slots=True)
class PowerMode:
    """One of them.

    Attributes:
        id, name: as nvpmodel has them.
        gpu_hz: most of the GPU's clock; infinite without a limit.
        gated: TPCs (pairs of SMs) that are switched off; those that a module never had may count.
    """

    id: int
    name: str
    gpu_hz: float = math.inf
    gated: int = 0


@dataclass(frozen=True, slots=True)
class PowerModes:
    """What nvpmodel knows.

    Attributes:
        modes: all of them.
        current: the one that is set; None where that is not known.
        files: by the name of a parameter and its argument, the file of sysfs that it sets.
    """

    modes: tuple[PowerMode, ...] = ()
    current: PowerMode | None = None
    files: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def fastest(self) -> PowerMode | None:
        """The mode with the most SMs, and of these the highest clock of the GPU."""
        return min(self.modes, key=lambda mode: (mode.gated, -mode.gpu_hz), default=None)

    @classmethod
    def read(cls, tree: Tree) -> PowerModes:
        """Those of a board; none where it has no nvpmodel."""
        files: dict[tuple[str, str], str] = {}
        modes: dict[int, dict[str, str]] = {}
        names: dict[int, str] = {}
        kind, of = "", ""
        for line in (tree.text(CONF) or "").splitlines():
            if heading := HEADING.match(line.strip()):
                kind, words = heading[1], dict(word.split("=", 1) for word in heading[2].split() if "=" in word)
                of = words.get("ID" if kind == "POWER_MODEL" else "NAME", "")
                if kind == "POWER_MODEL" and of.isdecimal():
                    modes[int(of)], names[int(of)] = {}, words.get("NAME", of)
                continue
            parts = line.split("#")[0].split()
            if kind == "PARAM" and len(parts) == 2:
                files[of, parts[0]] = parts[1]
            elif kind == "POWER_MODEL" and of.isdecimal() and len(parts) == 3:
                modes[int(of)][" ".join(parts[:2])] = parts[2]
        found = {number: _mode(number, names[number], settings) for number, settings in modes.items()}
        status = re.search(r"pmode:(\d+)", tree.text(STATUS) or "")
        return cls(tuple(found.values()), found.get(int(status[1])) if status else None, files)


def _mode(number: int, name: str, settings: dict[str, str]) -> PowerMode:
    hz = whole_number(settings.get("GPU MAX_FREQ"))
    mask = whole_number(settings.get("TPC_POWER_GATING TPC_PG_MASK"))
    return PowerMode(number, name, math.inf if hz is None or hz < 0 else hz, gated_by(mask or 0))


def gated_by(mask: int) -> int:
    """How many TPCs a mask switches off."""
    return mask.bit_count()
