"""Checks of a Jetson board: its system, power mode, clocks and desktop. Each is for boards alone."""

from __future__ import annotations

import math

from orin_runner.console import listed
from orin_runner.machine.diagnosis import Check, Machine, Verdict
from orin_runner.machine.jetson_board import RELEASE, Board
from orin_runner.machine.power_modes import CONF, STATUS, PowerMode

BAD_RELEASES = frozenset({"36.4.7"})
"""Of L4T, where large allocations fail with ``NvMapMemAllocInternalTagged ... error 12``."""
UPGRADE = (
    "sudo sed -i 's/r36\\.4/r36.5/' /etc/apt/sources.list.d/nvidia-l4t-apt-source.list && sudo apt update && "
    "sudo apt full-upgrade"
)
NOTABLE = 0.9
"""Share of the rate below which something is slower."""
DESKTOP_BYTES = 800 * 10**6
"""What a desktop takes, roughly."""
HEADLESS = "sudo systemctl isolate multi-user.target"


def module(machine: Machine) -> Check | None:
    """Which board this is."""
    board = machine.board
    if board is None:
        return None
    if board.model is None:
        return Check("module", "its device tree does not say", Verdict.UNKNOWN, "cat /proc/device-tree/model")
    return Check("module", f"{board.model}{f' ({board.module})' if board.module else ''}")


def release(machine: Machine) -> Check | None:
    """L4T's version."""
    board = machine.board
    if board is None:
        return None
    if board.l4t is None:
        return Check("L4T", f"{RELEASE} does not say its version", Verdict.UNKNOWN, f"cat {RELEASE}")
    if board.l4t in BAD_RELEASES:
        fact = f"{board.l4t}: large allocations fail (NvMapMemAllocInternalTagged, error 12)"
        return Check("L4T", fact, Verdict.FAILS, UPGRADE)
    return Check("L4T", board.l4t)


def cuda(machine: Machine) -> Check | None:
    """The toolkit that llama.cpp would be built with."""
    if machine.board is None:
        return None
    if machine.board.cuda is None:
        fact = "no toolkit in /usr/local/cuda, which a build of llama.cpp needs"
        return Check("CUDA", fact, Verdict.UNKNOWN, "sudo apt install nvidia-jetpack")
    return Check("CUDA", f"{machine.board.cuda} in /usr/local/cuda")


def power_mode(machine: Machine) -> Check | None:
    """The mode that is set, against the fastest that this board has."""
    board = machine.board
    if board is None:
        return None
    modes = board.modes
    current, fastest = modes.current, modes.fastest
    if current is None or fastest is None:
        missing = STATUS if fastest else CONF
        return Check("power mode", f"{missing} does not say it", Verdict.UNKNOWN, "sudo nvpmodel -q")
    fact = f"{current.name} (mode {current.id}): {_limits(current)}"
    more_gated = current.gated > fastest.gated
    if current is fastest or not (more_gated or _hz(current, board) < NOTABLE * _hz(fastest, board)):
        return Check("power mode", fact)
    better = f"; {fastest.name} has {_limits(fastest)}"
    return Check("power mode", fact + better, Verdict.SLOWER, _set(fastest))


def gpu_clock(machine: Machine) -> Check | None:
    """What the GPU's clock may become, against what the chip can."""
    board = machine.board
    if board is None:
        return None
    if board.clock is None:
        return Check("GPU clock", "not found in sysfs", Verdict.UNKNOWN, "sudo jetson_clocks --show")
    most, chip = board.clock.most, board.clock.chip
    fact = f"at most {most / 1e6:g} of {chip / 1e6:g} MHz"
    if most >= NOTABLE * chip:
        return Check("GPU clock", fact)
    current, fastest = board.modes.current, board.modes.fastest
    capped = fastest is not None and current is not None and _hz(fastest, board) > _hz(current, board)
    command = _set(fastest) if fastest and capped else "sudo jetson_clocks"
    return Check("GPU clock", fact, Verdict.SLOWER, command)


def locked_clocks(machine: Machine) -> Check | None:
    """Whether ``jetson_clocks`` has locked the GPU's clock; what one that rises with load costs is not known."""
    if machine.board is None or machine.board.clock is None:
        return None
    clock = machine.board.clock
    if clock.least >= clock.most:
        return Check("jetson_clocks", f"the GPU's clock is locked at {clock.most / 1e6:g} MHz")
    fact = f"the GPU's clock goes down to {clock.least / 1e6:g} MHz and rises with load"
    return Check("jetson_clocks", fact, Verdict.UNKNOWN, "sudo jetson_clocks")


def sm_mask(machine: Machine) -> Check | None:
    """Whether SMs are switched off that the fastest mode has on: a TPC is at least an eighth of an Orin's SMs."""
    board = machine.board
    if board is None or board.gated is None:
        return None
    fastest = board.modes.fastest
    if fastest is None or board.gated <= fastest.gated:
        return Check("SM mask", f"{2 * board.gated} SMs switched off" if board.gated else "no SM is switched off")
    fact = f"{2 * (board.gated - fastest.gated)} SMs are switched off that {fastest.name} has on"
    return Check("SM mask", fact, Verdict.SLOWER, _set(fastest))


def throttling(machine: Machine) -> Check | None:
    """Whether it is too hot, or has been short of current."""
    board = machine.board
    if board is None:
        return None
    if board.throttling:
        fact = f"too hot now: {listed(list(board.throttling))}"
        return Check("throttling", fact, Verdict.SLOWER, "sudo jetson_clocks --fan")
    if board.alarms:
        fact = f"{board.alarms} over-current alarms since the board was booted, each of which lowers the clocks"
        return Check("throttling", fact, Verdict.UNKNOWN, "grep . /sys/class/hwmon/hwmon*/oc*_event_cnt")
    return Check("throttling", "none now")


def desktop(machine: Machine) -> Check | None:
    """Whether a desktop runs, in the memory that the GPU shares. It fails a run that would fit without it."""
    if machine.board is None:
        return None
    names = machine.board.desktop
    if not names:
        return Check("desktop", "none runs")
    fact = f"{listed(list(names))}: a desktop takes some {DESKTOP_BYTES / 1e6:.0f} MB"
    return Check("desktop", fact, machine.costs(DESKTOP_BYTES), HEADLESS)


def _hz(mode: PowerMode, board: Board) -> float:
    """Most of the GPU's clock in a mode."""
    return min(mode.gpu_hz, board.clock.chip if board.clock else math.inf)


def _limits(mode: PowerMode) -> str:
    clock = "no limit of the GPU's clock" if math.isinf(mode.gpu_hz) else f"GPU at most {mode.gpu_hz / 1e6:g} MHz"
    return f"{clock}, {mode.gated} TPCs off" if mode.gated else clock


def _set(mode: PowerMode) -> str:
    return f"sudo nvpmodel -m {mode.id}"
