"""Checks of memory, on trees and with plans for a 14 B model's shape."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orin_runner.machine import memory_checks
from orin_runner.machine.checks import diagnose
from orin_runner.machine.diagnosis import Check, Machine, Verdict, VisibleGpu
from orin_runner.machine.host_memory import CONTAINER, HostMemory
from orin_runner.machine.tree import Tree
from orin_runner.model.gguf_file import GGUFFile
from tests.support.jetson_tree import jetson_tree, meminfo
from tests.support.machines import said, short_plan
from tests.support.shapes import PHI3_MEDIUM, header_only

MAKE = Callable[..., Machine]
MIB = 1 << 20
SWAPS = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    """Phi-3-medium's shape."""
    return GGUFFile.open(header_only(tmp_path_factory.mktemp("medium") / "m.gguf", PHI3_MEDIUM))


@pytest.fixture
def board(tmp_path: Path) -> MAKE:
    def make(**changes: object) -> Machine:
        tree = Tree(jetson_tree(tmp_path / "board", **changes))  # type: ignore[arg-type]
        return replace(Machine.read(tree), environment={})

    return make


def names(machine: Machine) -> set[str]:
    return {check.name for check in diagnose(machine)}


class TestMemory:
    """What there is against what a plan takes."""

    def test_without_a_model(self, board: MAKE) -> None:
        check = said(board(), "memory")
        assert check.fact == "29,300 MiB (MemAvailable)"
        assert (check.verdict, check.command) == (Verdict.UNKNOWN, "orin-run doctor --model FILE.gguf")

    def test_a_model_without_a_plan_is_no_warning(self, board: MAKE, medium: GGUFFile) -> None:
        """As ``eval`` asks: the run itself plans."""
        assert said(replace(board(), file=medium), "memory").verdict is Verdict.OK

    def test_enough(self, board: MAKE, medium: GGUFFile) -> None:
        check = said(replace(board(), file=medium, plan=short_plan(medium, -1)), "memory")
        assert check.verdict is Verdict.OK
        assert check.command is None
        assert "for one request of 512 tokens" in check.fact

    def test_too_little(self, board: MAKE, medium: GGUFFile) -> None:
        check = said(replace(board(), file=medium, plan=short_plan(medium, 500)), "memory")
        assert "500 MiB more are needed" in check.fact or "would fit" in check.fact
        assert (check.verdict, check.command) == (Verdict.FAILS, "ps -eo rss,pid,args --sort=-rss | head")

    def test_no_plan_can_be_made(self, board: MAKE, medium: GGUFFile) -> None:
        check = said(replace(board(), file=medium, plan_failure="SIGABRT: CUDA error"), "memory")
        assert check.verdict is Verdict.FAILS
        assert "SIGABRT: CUDA error" in check.fact


class TestContainerLimit:
    """Control groups' limits, of both versions and of any depth."""

    UPDATE = "docker update --memory 30697m --memory-swap 30697m CONTAINER"

    @pytest.mark.parametrize("name", ["sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"])
    def test_a_limit(self, board: MAKE, medium: GGUFFile, name: str) -> None:
        """Below what is free: it fails a run that does not fit, and is no matter to one that does."""
        machine = board(files={name: f"{16 << 30}\n"})
        assert machine.memory.available() == (16 << 30, CONTAINER)
        lines = [
            said(replace(machine, plan=plan), "memory limit")
            for plan in (None, short_plan(medium, -1), short_plan(medium, 1))
        ]
        assert {line.fact for line in lines} == {"16,384 MiB, where MemAvailable is 29,300 MiB"}
        assert [line.verdict for line in lines] == [Verdict.UNKNOWN, Verdict.OK, Verdict.FAILS]
        assert [line.command for line in lines] == [self.UPDATE, None, self.UPDATE]
        assert said(replace(machine, plan=short_plan(medium, 1)), "memory").command == self.UPDATE

    @pytest.mark.parametrize("limit", ["max\n", f"{1 << 63}\n"])
    def test_no_limit(self, board: MAKE, limit: str) -> None:
        machine = board(files={"sys/fs/cgroup/memory.max": limit})
        assert machine.memory.limit() is None
        assert "memory limit" not in names(machine)

    @pytest.mark.parametrize(
        ("groups", "file"),
        [
            ("0::/system.slice/run.service\n", "system.slice/run.service/memory.max"),
            ("0::/system.slice/run.service\n", "system.slice/memory.max"),
            ("5:memory:/jobs/7\n0::/\n", "memory/jobs/7/memory.limit_in_bytes"),
            ("5:memory:/docker/that/is/hidden\n", "memory/memory.limit_in_bytes"),
        ],
    )
    def test_the_groups_of_a_process(self, tmp_path: Path, groups: str, file: str) -> None:
        """Its own, one above it, version 1, and a container that sees its own group as the root."""
        (tmp_path / "proc" / "7").mkdir(parents=True)
        (tmp_path / "proc" / "meminfo").write_text(meminfo())
        (tmp_path / "proc" / "7" / "cgroup").write_text(groups)
        path = tmp_path / "cgroup" / file
        path.parent.mkdir(parents=True)
        path.write_text(f"{1 << 30}\n")
        assert HostMemory(tmp_path / "proc", 7, tmp_path / "cgroup").limit() == 1 << 30


class TestPages:
    """Huge pages, cached files, swap."""

    def test_huge_pages(self, board: MAKE, medium: GGUFFile, tmp_path: Path) -> None:
        """They fail a run that would fit without them; beside GPUs with memory of their own they are no matter."""
        machine = board(memory={"HugePages_Total": 512})
        verdicts = {}
        for missing in (None, -1, 1000, 1100):
            plan = None if missing is None else short_plan(medium, missing)
            check = said(replace(machine, plan=plan), "HugeTLB")
            assert check.fact == "512 huge pages are set aside: 1,024 MiB that a run cannot use"
            assert check.command == "sudo sysctl vm.nr_hugepages=0"
            verdicts[missing] = check.verdict
        assert verdicts == {None: Verdict.UNKNOWN, -1: Verdict.UNKNOWN, 1000: Verdict.FAILS, 1100: Verdict.UNKNOWN}
        other = tmp_path / "server"
        (other / "proc").mkdir(parents=True)
        for pages, shown in ((512, True), (0, False)):
            (other / "proc" / "meminfo").write_text(meminfo(HugePages_Total=pages))
            assert ("HugeTLB" in names(Machine.read(Tree(other)))) is shown
        gpus = (VisibleGpu("0", "NVIDIA H100"),)
        (other / "proc" / "meminfo").write_text(meminfo(HugePages_Total=512))
        assert "HugeTLB" not in names(replace(Machine.read(Tree(other)), gpus=gpus))

    def test_page_cache(self, board: MAKE, medium: GGUFFile) -> None:
        """Where a plan fits what is available, but not what is free now."""
        plan = short_plan(medium, -1)
        total = -(-plan.total // MIB)
        machine = board(memory={"MemFree": total - 100, "Cached": 4000})
        check = said(replace(machine, plan=plan), "page cache")
        assert check.fact.startswith(f"4,000 MiB of files are cached, {total - 100:,} MiB are free")
        assert (check.verdict, check.command) == (Verdict.UNKNOWN, "sudo sysctl vm.drop_caches=3")
        assert said(machine, "page cache").verdict is Verdict.OK

    def test_zram(self, board: MAKE) -> None:
        machine = board(
            files={"proc/swaps": f"{SWAPS}/dev/zram0 partition 2000000 2048 5\n/dev/zram1 partition 2000000 0 5\n"}
        )
        check = said(machine, "swap")
        assert check.fact.startswith("/dev/zram0 1,953 MiB, /dev/zram1 1,953 MiB; 2 MiB in use; zram")
        assert (check.verdict, check.command) == (Verdict.UNKNOWN, "sudo systemctl disable --now nvzramconfig")

    @pytest.mark.parametrize(
        ("line", "fact"), [("", "none"), ("/swapfile file 16777212 0 -2\n", "/swapfile 16,384 MiB; 0 MiB in use")]
    )
    def test_swap_on_a_disk_or_none(self, board: MAKE, line: str, fact: str) -> None:
        assert said(board(files={"proc/swaps": SWAPS + line}), "swap") == Check("swap", fact)


class TestDirectIo:
    """Whether a file can be read around the page cache."""

    def test_a_file_system_that_refuses(self, board: MAKE, medium: GGUFFile, monkeypatch: pytest.MonkeyPatch) -> None:
        """Some refuse to open the file, some to read it."""
        machine = replace(board(), file=medium)

        def refuse(*_: object) -> int:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        for call in ("open", "preadv"):
            with monkeypatch.context() as patch:
                patch.setattr(memory_checks.os, call, refuse)
                check = memory_checks.direct_io(machine)
            assert check is not None
            assert check.verdict is Verdict.UNKNOWN
            assert str(check.command) == f"cp {medium.path} FOLDER"

    def test_other_errors_are_no_verdict(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError):
            memory_checks.direct_read_error(tmp_path / "missing")

    def test_this_file_system(self, board: MAKE, tmp_path: Path) -> None:
        """What the check says is what reading with ``O_DIRECT`` does; a file of a few bytes is read as well."""
        path = tmp_path / "short"
        path.write_bytes(b"GGUF")
        flags = os.O_RDONLY | os.O_DIRECT
        try:
            os.close(os.open(path, flags))
        except OSError:
            assert memory_checks.direct_read_error(path) is not None
        else:
            assert memory_checks.direct_read_error(path) is None
