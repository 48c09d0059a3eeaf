"""The process in which one piece of code runs that a model has written. It is a program, run by ``code_run.py``.

Nothing of it is imported but a constant.

It reads a JSON object from its input, gives up what it does not need, and lets the kernel take what it must not have:
a filter (seccomp) allows those system calls alone with which a program computes and reads files. No socket, no file to
write, none to remove or rename, no other process, no thread, no signal to anybody: all these fail with EPERM. It ends
with the status that it was told where the code has run to its end, with ``NOT_SHUT_OFF`` before any code has run where
the kernel has no such filter, and with another one, or by a signal, where the code has failed.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import struct
import sys

NOT_SHUT_OFF = 99
FAILED = 1
NAMES = "read readv pread64 write writev close lseek fstat newfstatat statx faccessat faccessat2 readlinkat getcwd "
NAMES += "getdents64 mmap munmap mprotect mremap madvise brk rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack "
NAMES += "restart_syscall futex sched_yield sched_getaffinity nanosleep clock_nanosleep clock_gettime clock_getres "
NAMES += "gettimeofday times getrusage pselect6 ppoll getrandom getpid gettid getppid getuid geteuid getgid getegid "
NAMES += "uname sysinfo set_tid_address set_robust_list rseq exit exit_group openat"
X86_64 = "0 19 17 1 20 3 8 5 262 332 269 439 267 79 217 9 11 10 25 28 12 13 14 15 131 219 202 24 204 35 230 228 229 96 "
X86_64 += "100 98 270 271 318 39 186 110 102 107 104 108 63 99 218 273 334 60 231 257"
AARCH64 = (
    "63 65 67 64 66 57 62 80 79 291 48 439 78 17 61 222 215 226 216 233 214 134 135 139 132 128 98 124 123 101 115 "
)
AARCH64 += "113 114 169 153 165 72 73 278 172 178 173 174 175 176 177 160 179 96 99 293 93 94 56"
OLDER = "4 6 21 89 201 23 7 158"
"""Of x86_64: stat, lstat, access, readlink, time, select, poll, arch_prctl."""
CALLS = {"x86_64": (0xC000003E, X86_64, OLDER), "aarch64": (0xC00000B7, AARCH64, "")}
"""By processor: its AUDIT_ARCH (``linux/audit.h``), the numbers of ``NAMES``, and those of its own older calls.

Numbers: ``asm/unistd_64.h`` and ``asm-generic/unistd.h`` of Linux.
"""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, SECCOMP_MODE_FILTER = 1, 22, 38, 2
LOAD, JUMP_EQUAL, JUMP_SET, RETURN = 0x20, 0x15, 0x45, 0x06
"""``linux/bpf_common.h``: of a 32-bit word, compared with a constant."""
ALLOW, DENY, KILL = 0x7FFF0000, 0x00050001, 0x80000000
"""``linux/seccomp.h``: go on, fail with EPERM, end the process."""
CALL, ARCHITECTURE, THIRD_ARGUMENT = 0, 4, 32
"""Where these stand in ``struct seccomp_data``, little-endian."""


def main() -> None:
    """Run the code; this does not return."""
    setup = json.loads(sys.stdin.readline())
    _limit(setup["seconds"], setup["memory"])
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.closerange(3, 256)
    if not _shut_off():
        os._exit(NOT_SHUT_OFF)
    try:
        exec(compile(setup["code"], "<code>", "exec"), {})  # noqa: S102 - what this process is for
    except BaseException:  # noqa: BLE001 - the code may raise anything
        os._exit(FAILED)
    os._exit(setup["status"])


def _limit(seconds: int, memory: int) -> None:
    """Let the kernel end this process after ``seconds`` of a CPU, and refuse more than ``memory`` bytes."""
    for kind, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        _, hard = resource.getrlimit(kind)
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (bound, bound))


def _shut_off() -> bool:
    """Install the filter; False where the kernel or the processor has none."""
    if os.uname().machine not in CALLS or sys.byteorder != "little":
        return False
    code = _filter(os.uname().machine)
    block = ctypes.create_string_buffer(code, len(code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code) // 8, ctypes.addressof(block))
    prctl = ctypes.CDLL(None).prctl
    nothing = ctypes.c_ulong(0)
    prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))  # what waits must not outlive who waits for it
    alone = prctl(PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), nothing, nothing, nothing)
    filtered = prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), ctypes.byref(program), nothing, nothing)
    return bool(alone == 0 and filtered == 0)


def _filter(machine: str) -> bytes:
    """The filter as the kernel's BPF: openat for reading and the listed calls go on, others fail."""
    architecture, numbers, older = CALLS[machine]
    *simple, openat = numbers.split()
    allowed = [int(number) for number in [*simple, *older.split()]]
    n = len(allowed)
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, CALL),
        (JUMP_EQUAL, n + 1, 0, int(openat)),
        *((JUMP_EQUAL, n - i + 2, 0, number) for i, number in enumerate(allowed)),
        (RETURN, 0, 0, DENY),
        (LOAD, 0, 0, THIRD_ARGUMENT),
        (JUMP_SET, 1, 0, WRITING),
        (RETURN, 0, 0, ALLOW),
        (RETURN, 0, 0, DENY),
    ]
    return b"".join(struct.pack("<HBBI", *step) for step in steps)


if __name__ == "__main__":
    main()
