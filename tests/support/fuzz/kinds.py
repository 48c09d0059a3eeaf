"""Things that may lie where a file is expected."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path
from random import Random

SPARSE = 2 << 30
"""Bytes: more than a text may have, and less than a process may map."""
KINDS = (
    "fifo folder full_folder loop dangling to_zero to_null to_random to_folder to_itself_above unreadable empty sparse "
    "socket device proc newline swapped_name link_chain gone"
).split()


def put(path: Path, random: Random, kind: str | None = None) -> str:
    """Put something else in the place of the file ``path``; what it is."""
    kind = kind or random.choice(KINDS)
    content = path.read_bytes() if path.is_file() else b""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    targets = {
        "loop": path.name,
        "dangling": "nowhere/at/all",
        "to_zero": "/dev/zero",
        "to_null": "/dev/null",
        "to_random": "/dev/urandom",
        "to_folder": "..",
        "to_itself_above": f"../{path.parent.name}/{path.name}/x",
        "proc": random.choice(("/proc/self/mem", "/proc/self/environ", "/proc/version", "/proc/self/fd/0")),
    }
    if kind in targets:
        path.symlink_to(targets[kind])
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in {"folder", "full_folder"}:
        path.mkdir()
        if kind == "full_folder":
            (path / path.name).write_bytes(content)
    elif kind == "socket":
        _socket(path)
    elif kind == "device":
        _device(path)
    elif kind == "link_chain":
        steps = [path.with_name(f"{path.name}.{i}") for i in range(45)]
        steps[-1].write_bytes(content)
        for step, following in zip([path, *steps[:-1]], steps, strict=True):
            step.symlink_to(following.name)
    elif kind == "swapped_name":
        path.with_name(path.name.upper() if path.name.upper() != path.name else path.name + " ").write_bytes(content)
    elif kind != "gone":
        path.write_bytes({"unreadable": content, "newline": b"\n"}.get(kind, b""))
        if kind == "unreadable":
            path.chmod(random.choice((0o000, 0o222)))
        elif kind == "sparse":
            os.truncate(path, SPARSE)
    return kind


def _socket(path: Path) -> None:
    """Bound below its folder, since a socket's name has at most 107 bytes."""
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path.name[:100])
    finally:
        os.fchdir(here)
        os.close(here)


def _device(path: Path) -> None:
    """One that always says it is full; a pipe where no device may be made."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    except PermissionError:
        os.mkfifo(path)
