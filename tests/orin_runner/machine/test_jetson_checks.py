"""Checks of a Jetson, on trees in the documented formats; none was recorded on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orin_runner.machine.checks import diagnose, quick_warning
from orin_runner.machine.diagnosis import Check, Library, Machine, Verdict
from orin_runner.machine.jetson_board import Board
from orin_runner.machine.jetson_checks import HEADLESS, UPGRADE
from orin_runner.machine.tree import Tree
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from tests.support.jetson_tree import CLOCK, CONF, GPU, jetson_tree, nvpmodel_conf
from tests.support.machines import said, short_plan
from tests.support.shapes import PHI3_MEDIUM, header_only

MAKE = Callable[..., Machine]


@pytest.fixture
def board(tmp_path: Path) -> MAKE:
    """A board's tree, with a library that was built with CUDA."""

    def make(**changes: object) -> Machine:
        machine = Machine.read(Tree(jetson_tree(tmp_path / "board", **changes)))  # type: ignore[arg-type]
        return replace(machine, library=Library("0.3.36", cuda=True), environment={})

    return make


def test_nothing_is_wrong_in_maxn(board: MAKE) -> None:
    """MAXN, locked clocks, no desktop: each line is ok but for memory, which no model was named for."""
    checks = {check.name: check for check in diagnose(board())}
    assert {name for name, check in checks.items() if check.verdict is not Verdict.OK} == {"memory"}
    assert checks["power mode"].fact == "MAXN (mode 0): no limit of the GPU's clock"
    assert checks["GPU clock"].fact == "at most 930.75 of 930.75 MHz"
    assert checks["module"].fact == "NVIDIA Jetson AGX Orin Developer Kit (p3701-0004)"
    assert checks["CUDA"].fact == "12.2.20230823 in /usr/local/cuda"
    assert all(check.command is None for check in checks.values() if check.verdict is Verdict.OK)


def test_the_default_mode_is_slower(board: MAKE) -> None:
    """Clock, mode and SMs each say so, and each names the mode that mends it."""
    machine = board(mode=2, locked=False)
    assert said(machine, "power mode") == Check(
        "power mode",
        "MODE_30W (mode 2): GPU at most 612 MHz, 3 TPCs off; MAXN has no limit of the GPU's clock",
        Verdict.SLOWER,
        "sudo nvpmodel -m 0",
    )
    for name, fact in (
        ("GPU clock", "at most 612 of 930.75 MHz"),
        ("SM mask", "6 SMs are switched off that MAXN has on"),
    ):
        assert said(machine, name) == Check(name, fact, Verdict.SLOWER, "sudo nvpmodel -m 0")
    assert said(machine, "jetson_clocks").verdict is Verdict.UNKNOWN
    assert said(machine, "jetson_clocks").command == "sudo jetson_clocks"


def test_40_watts_are_slower_by_the_clock_alone(board: MAKE) -> None:
    """816 of 930.75 MHz are 88 %, with all SMs on."""
    machine = board(mode=3)
    assert said(machine, "power mode").verdict is Verdict.SLOWER
    assert said(machine, "SM mask").verdict is Verdict.OK


def test_fewer_sms_at_the_same_clock_are_slower(board: MAKE) -> None:
    """A mode that switches a TPC off and limits nothing else."""
    conf = nvpmodel_conf().replace("GPU MAX_FREQ 816000000", "GPU MAX_FREQ -1")
    third = conf.index("NAME=MODE_40W")
    conf = conf[:third] + conf[third:].replace("TPC_PG_MASK 0", "TPC_PG_MASK 1")
    machine = board(mode=3, files={CONF[1:]: conf, f"{CLOCK[1:]}/max_freq": "930750000\n"})
    assert said(machine, "power mode").verdict is Verdict.SLOWER
    assert said(machine, "GPU clock").verdict is Verdict.OK


def test_modes_are_what_the_boards_own_file_says(board: MAKE) -> None:
    """As on an Orin Nano: 0 is not the fastest, modes have other names, and a mask counts TPCs that nobody has."""
    conf = (
        f"< PARAM TYPE=FILE NAME=TPC_POWER_GATING >\nTPC_PG_MASK {GPU}/tpc_pg_mask\n"
        "< POWER_MODEL ID=0 NAME=15W >\nTPC_POWER_GATING TPC_PG_MASK 0xf0\nGPU MAX_FREQ 625000000\n"
        "< POWER_MODEL ID=2 NAME=MAXN_SUPER >\nTPC_POWER_GATING TPC_PG_MASK 240\nGPU MAX_FREQ -1\n"
    )
    files = {CONF[1:]: conf, f"{GPU[1:]}/tpc_pg_mask": "240\n"}
    machine = board(files=files | {"var/lib/nvpmodel/status": "pmode:0000 fmode:quiet\n"})
    assert said(machine, "power mode").fact.startswith("15W (mode 0): GPU at most 625 MHz")
    assert said(machine, "power mode").command == "sudo nvpmodel -m 2"
    assert said(machine, "SM mask") == Check("SM mask", "8 SMs switched off")


def test_a_mode_that_changes_nothing_is_ok(board: MAKE) -> None:
    """A limit above what the chip can is none."""
    conf = nvpmodel_conf().replace("GPU MAX_FREQ 816000000", "GPU MAX_FREQ 930750000")
    machine = board(mode=3, files={CONF[1:]: conf, f"{CLOCK[1:]}/max_freq": "930750000\n"})
    assert said(machine, "power mode").verdict is Verdict.OK


def test_a_clock_that_somebody_else_has_lowered(board: MAKE) -> None:
    """In MAXN another mode would not help."""
    machine = board(files={f"{CLOCK[1:]}/max_freq": "306000000\n"})
    assert said(machine, "GPU clock").command == "sudo jetson_clocks"
    assert said(machine, "GPU clock").verdict is Verdict.SLOWER


def test_jetpack_5_has_its_clock_elsewhere(board: MAKE, tmp_path: Path) -> None:
    """nvpmodel's file says where; without one the two known folders are looked at."""
    clock = "/sys/devices/17000000.ga10b/devfreq/17000000.ga10b"
    machine = board(mode=2, l4t="35.4.1", files={CONF[1:]: nvpmodel_conf(clock)})
    folder = tmp_path / "board" / CLOCK[1:]
    new = tmp_path / "board" / clock[1:]
    new.parent.mkdir(parents=True)
    folder.rename(new)
    found = Board.read(machine.tree)
    assert found is not None
    assert found.clock is not None
    assert found.clock.most == 612_000_000
    assert found.l4t == "35.4.1"
    (tmp_path / "board" / CONF[1:]).unlink()
    new.rename(new.parent.parent / "devfreq_dev")
    found = Board.read(machine.tree)
    assert found is not None
    assert found.clock is not None


def test_l4t_36_4_7(board: MAKE) -> None:
    fact = "36.4.7: large allocations fail (NvMapMemAllocInternalTagged, error 12)"
    assert said(board(l4t="36.4.7"), "L4T") == Check("L4T", fact, Verdict.FAILS, UPGRADE)


@pytest.mark.parametrize("release", ["36.4.4", "36.5.0", "35.6.1", "36.4.70"])
def test_other_releases_are_ok(board: MAKE, release: str) -> None:
    assert said(board(l4t=release), "L4T") == Check("L4T", release)


def test_what_a_board_does_not_say_is_unknown(board: MAKE, tmp_path: Path) -> None:
    """As in a container: a line each, with a command that says more, and nothing fails."""
    machine = board()
    for name in ("etc/nvpmodel.conf", "var/lib/nvpmodel/status", "usr/local/cuda", f"{CLOCK[1:]}/max_freq"):
        (tmp_path / "board" / name).unlink()
    (tmp_path / "board" / "etc" / "nv_tegra_release").write_text("# something else\n")
    (tmp_path / "board" / "proc" / "device-tree" / "model").unlink()
    machine = replace(machine, board=Board.read(machine.tree))
    found = {check.name: check for check in diagnose(machine)}
    for name in ("power mode", "GPU clock", "CUDA", "L4T", "module"):
        assert found[name].verdict is Verdict.UNKNOWN, name
        assert found[name].command, name


def test_a_desktop(board: MAKE, tmp_path: Path) -> None:
    """It fails a run that would fit without it, and else costs nobody knows what."""
    file = GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM))
    machine = board(files={"proc/2211/comm": "Xorg\n", "proc/2305/comm": "gnome-shell\n"})
    lines = {}
    for missing in (None, -10, 700, 900):
        plan = None if missing is None else short_plan(file, missing)
        lines[missing] = said(replace(machine, plan=plan), "desktop")
        assert lines[missing].command == HEADLESS
        assert lines[missing].fact == "Xorg and gnome-shell: a desktop takes some 800 MB"
    verdicts = {missing: line.verdict for missing, line in lines.items()}
    assert verdicts == {None: Verdict.UNKNOWN, -10: Verdict.UNKNOWN, 700: Verdict.FAILS, 900: Verdict.UNKNOWN}


def test_throttling(board: MAKE, tmp_path: Path) -> None:
    """A cooling device at work that is no fan; alarms of too much current have been counted since the start."""
    machine = board(files={"sys/class/hwmon/hwmon2/oc1_event_cnt": "3\n"})
    assert said(machine, "throttling").verdict is Verdict.UNKNOWN
    assert said(machine, "throttling").fact.startswith("3 over-current alarms")
    (tmp_path / "board" / "sys/class/thermal/cooling_device1/cur_state").write_text("1\n")
    machine = replace(machine, board=Board.read(machine.tree))
    assert said(machine, "throttling") == Check(
        "throttling", "too hot now: gpu-throttle-alert", Verdict.SLOWER, "sudo jetson_clocks --fan"
    )


def test_a_machine_that_is_no_jetson_has_none_of_these_lines(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    names = {check.name for check in diagnose(Machine.read(Tree(tmp_path)))}
    assert names == {"device", "library", "versions", "memory"}


def test_what_a_run_warns_of_in_one_line(tmp_path: Path, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bad lines' names and verdicts; nothing where nothing is bad."""
    monkeypatch.setattr(llama_library, "has_cuda", lambda: False)
    file = GGUFFile.open(tiny_gguf)
    root = jetson_tree(tmp_path / "board", mode=2, l4t="36.4.7")
    warning = quick_warning(file, root)
    assert warning is not None
    assert warning.startswith(
        "L4T (fails), library (slower), power mode (slower), GPU clock (slower), SM mask (slower)"
    )
    assert "orin-run doctor" in warning
    (tmp_path / "none" / "proc").mkdir(parents=True)
    (tmp_path / "none" / "proc" / "meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
    assert quick_warning(file, tmp_path / "none") is None
