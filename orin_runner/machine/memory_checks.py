"""Checks of memory and of how the model comes into it."""

from __future__ import annotations

import errno
import mmap
import os
import shlex
from pathlib import Path

from orin_runner.machine.diagnosis import Check, Machine, Verdict
from orin_runner.machine.memory_formula import MIB

ZRAM = "/dev/zram"
BIGGEST = "ps -eo rss,pid,args --sort=-rss | head"
"""Says which processes hold the most memory."""
BLOCK = 4096
"""Bytes of a direct read, and what its place in the file and in memory is a multiple of."""


def available(machine: Machine) -> Check:
    """What the machine has, against what a run of the model takes."""
    size, source = machine.memory.available()
    have, plan = f"{size / MIB:,.0f} MiB ({source})", machine.plan
    if machine.plan_failure is not None:
        return Check("memory", f"{have}; no plan can be made: {machine.plan_failure}", Verdict.FAILS, BIGGEST)
    if plan is None:
        command = "orin-run doctor --model FILE.gguf" if machine.file is None else None
        return Check("memory", have, Verdict.OK if machine.file else Verdict.UNKNOWN, command)
    where = "" if plan.device.unified else f" of {plan.device.name}"
    fact = (
        f"{plan.total / MIB:,.0f} of {plan.device.available / MIB:,.0f} MiB{where} ({plan.device.note}) "
        f"for one request of {plan.longest:,} tokens"
    )
    if plan.fits:
        return Check("memory", fact)
    command = (
        "nvidia-smi" if not plan.device.unified else BIGGEST if machine.memory.limit() is None else _raise(machine)
    )
    return Check("memory", f"{fact}: {plan.advice}", Verdict.FAILS, command)


def container_limit(machine: Machine) -> Check | None:
    """A container's, service's or batch job's limit below what is free."""
    limit = machine.memory.limit()
    if limit is None:
        return None
    fields, plan = machine.memory.fields(), machine.plan
    fact = f"{limit / MIB:,.0f} MiB, where MemAvailable is {fields['MemAvailable'] / MIB:,.0f} MiB"
    if plan is not None and (plan.fits or not plan.device.unified):
        return Check("memory limit", fact)
    return Check("memory limit", fact, Verdict.UNKNOWN if plan is None else Verdict.FAILS, _raise(machine))


def huge_pages(machine: Machine) -> Check | None:
    """Huge pages that are set aside, where the run is in the host's memory. It fails one that would fit without them.

    Where there are some, llama.cpp takes the free ones for all free memory of an integrated GPU
    (``ggml_backend_cuda_get_available_uma_memory``); the plan does not.
    """
    fields = machine.memory.fields()
    total = fields.get("HugePages_Total", 0)
    if machine.gpus or not (total or machine.board):
        return None
    if not total:
        return Check("HugeTLB", "no huge pages are set aside")
    size = total * fields.get("Hugepagesize", 0)
    fact = f"{total:,} huge pages are set aside: {size / MIB:,.0f} MiB that a run cannot use"
    return Check("HugeTLB", fact, machine.costs(size), "sudo sysctl vm.nr_hugepages=0")


def page_cache(machine: Machine) -> Check | None:
    """On a Jetson, whether files take what the model needs. The kernel gives such pages up, but NvMap may not wait."""
    if machine.board is None:
        return None
    fields, plan = machine.memory.fields(), machine.plan
    cached, free = fields.get("Cached", 0), fields.get("MemFree", 0)
    fact = f"{cached / MIB:,.0f} MiB of files are cached, {free / MIB:,.0f} MiB are free"
    if plan is None or not plan.fits or plan.total <= free:
        return Check("page cache", fact)
    fact = f"{fact}, {plan.total / MIB:,.0f} MiB are needed"
    return Check("page cache", fact, Verdict.UNKNOWN, "sudo sysctl vm.drop_caches=3")


def swap(machine: Machine) -> Check | None:
    """Where pages go that are swapped out: to zram, which takes the same memory, or to a disk."""
    lines = (machine.tree.text("/proc/swaps") or "").splitlines()[1:]  # behind the heading
    found = [parts for line in lines if len(parts := line.split()) >= 4 and parts[2].isdecimal()]
    if not found:
        return Check("swap", "none") if machine.board is not None else None
    used = sum(int(parts[3]) for parts in found if parts[3].isdecimal()) / 1024
    names = ", ".join(f"{parts[0]} {int(parts[2]) / 1024:,.0f} MiB" for parts in found)
    fact = f"{names}; {used:,.0f} MiB in use"
    if machine.board is not None and any(parts[0].startswith(ZRAM) for parts in found):
        fact = f"{fact}; zram holds its pages in the memory that the weights need"
        return Check("swap", fact, Verdict.UNKNOWN, "sudo systemctl disable --now nvzramconfig")
    return Check("swap", fact)


def direct_io(machine: Machine) -> Check | None:
    """On a Jetson, whether the weights can be read around the page cache."""
    if machine.board is None or machine.file is None:
        return None
    path = machine.file.path
    reason = direct_read_error(path)
    if reason is None:
        return Check("direct I/O", f"{path} can be read without the page cache")
    fact = f"{path} cannot be read without the page cache ({reason}): its weights stand there, too, while they load"
    command = f"cp {shlex.quote(str(path))} FOLDER"
    return Check("direct I/O", f"{fact}; a folder on ext4 would do", Verdict.UNKNOWN, command)


def _raise(machine: Machine) -> str:
    """Raises a container's limit to all of the machine's memory."""
    size = f"{machine.memory.fields().get('MemTotal', 0) // MIB}m"
    return f"docker update --memory {size} --memory-swap {size} CONTAINER"


def direct_read_error(path: Path) -> str | None:
    """Why a file's first bytes cannot be read with ``O_DIRECT``; None where they can."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
        try:
            with mmap.mmap(-1, BLOCK) as buffer:  # a page, so it begins where it must
                os.preadv(descriptor, [buffer], 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.EOPNOTSUPP}:
            raise
        return str(error.strerror)
    return None
