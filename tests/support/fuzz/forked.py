"""A command line in a forked process: no import to wait for, and limits on time, memory and the length of files."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.watch import changes, snapshot

MEMORY = 4 << 30
"""Bytes of address space, of which the imported libraries take one GiB, and a worker another."""
FILE = 1 << 29
"""Bytes of a file that is written."""
OUTPUT = 1 << 20
"""Bytes that are looked at."""
OUTLIVES_S = 3.0
"""How long a process of a command that has ended may take to end; docs/architecture.md has one second."""
PR_SET_CHILD_SUBREAPER, PR_CAPBSET_DROP, CAPABILITY_VERSION = 36, 24, 0x20080522
ROOTS = (1, 2, 3)
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: with them nothing is unreadable to root."""


def run_case(case: Case, place: Place, programs: dict[str, Callable[[], object]]) -> Outcome:
    """Run the case's command and look at all that it has changed below ``place``.

    Args:
        programs: by the first word of ``argv``.
    """
    before = snapshot(place.root)
    out, err = place.root.with_suffix(".out"), place.root.with_suffix(".err")
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    sys.stdout.flush()
    began = time.monotonic()
    child = os.fork()
    if not child:
        _become(case, place, out, err, programs)
    status, hung = _wait(child, began + case.seconds)
    seconds = time.monotonic() - began
    outlived = _outlived()
    written = [path.read_bytes()[-OUTPUT:] for path in (out, err)]
    out.unlink()
    err.unlink()
    return Outcome(
        status=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        hung=hung,
        out=written[0].decode("utf-8", "replace"),
        err=written[1].decode("utf-8", "replace"),
        not_text=any(not _is_text(each) for each in written),
        outlived=outlived,
        changed=changes(place.root, before, snapshot(place.root)),
        seconds=seconds,
    )


def _is_text(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return len(content) == OUTPUT  # may begin within a character
    return True


def _become(case: Case, place: Place, out: Path, err: Path, programs: dict[str, Callable[[], object]]) -> None:
    """The forked process, which does not return."""
    status = 70
    try:
        os.setsid()
        weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # what is the parent's stays
        for number, path in ((1, out), (2, err)):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(descriptor, number)
            os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - as long as the process
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
        os.environ.update({**place.environment, **case.environment})
        os.chdir(place.work)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
        if os.geteuid() == 0:
            _without_roots_rights()
        sys.argv = list(case.argv)
        try:
            programs[case.argv[0]]()
            status = 0
        except SystemExit as end:
            status = 0 if end.code is None else end.code if isinstance(end.code, int) else 1
        except BaseException:  # noqa: BLE001 - as the interpreter would
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
            status = 1
        sys.stdout.flush()
        sys.stderr.flush()
        _finalize()
    except BaseException as error:  # noqa: BLE001 - it must not go on beside its parent
        os.write(2, f"not begun: {error!r}\n".encode())
    finally:
        os._exit(status)


def _finalize() -> None:
    """What an interpreter does at its end and ``os._exit`` does not: close what is still open."""
    weakref.finalize._exitfunc()  # type: ignore[attr-defined]


def _without_roots_rights() -> None:
    """Give up the rights by which root reads and writes whatever it likes."""
    libc = ctypes.CDLL(None)
    for right in ROOTS:
        libc.prctl(PR_CAPBSET_DROP, right, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    data = (ctypes.c_uint32 * 6)()
    if libc.capget(header, data) == 0:
        for right in ROOTS:
            for part in range(3):
                data[part] &= ~(1 << right)
        libc.capset(header, data)


def _wait(child: int, until: float) -> tuple[int, bool]:
    """Its status, and whether it had to be ended."""
    pause = 0.001
    while True:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return status, False
        if time.monotonic() > until:
            _kill_group(child)
            return os.waitpid(child, 0)[1], True
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _kill_group(leader: int) -> None:
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(leader, signal.SIGKILL)


def _children() -> Sequence[int]:
    """Processes of ended commands, which this one has inherited, and its other children."""
    return [int(each) for each in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def _outlived() -> tuple[int, ...]:
    """Wait a moment for the processes that a command has left; those that are still there are ended."""
    until = time.monotonic() + OUTLIVES_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return ()
        if time.monotonic() > until:
            break
        time.sleep(0.01)
    left = tuple(_children())
    for each in left:
        os.kill(each, signal.SIGKILL)
        os.waitpid(each, 0)
    return left
