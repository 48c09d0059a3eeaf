"""What lies below a folder, before and after."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

LARGE = 64 << 20
"""Bytes from which on a file's length and time stand for its content."""
Snapshot = dict[str, tuple[object, ...]]


def snapshot(root: Path) -> Snapshot:
    """By path below ``root``: kind and mode, and of files and links what is in them. Nothing special is opened."""
    found: Snapshot = {}
    folders = [os.fsencode(root)]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except PermissionError:
            continue
        for entry in entries:
            path = entry.path
            state = entry.stat(follow_symlinks=False)
            name = os.fsdecode(os.path.relpath(path, os.fsencode(root)))
            found[name] = (stat.S_IFMT(state.st_mode), stat.S_IMODE(state.st_mode), *_content(path, state))
            if stat.S_ISDIR(state.st_mode):
                folders.append(path)
    return found


def _content(path: bytes, state: os.stat_result) -> tuple[object, ...]:
    if stat.S_ISLNK(state.st_mode):
        return (os.readlink(path),)  # noqa: PTH115 - as below
    if not stat.S_ISREG(state.st_mode):
        return ()
    if state.st_size >= LARGE or not os.access(path, os.R_OK):
        return (state.st_size, state.st_mtime_ns)
    with open(path, "rb") as file:  # noqa: PTH123 - a name of any bytes
        return (hashlib.sha256(file.read()).hexdigest(),)


def changes(root: Path, before: Snapshot, after: Snapshot) -> tuple[str, ...]:
    """The paths that were made, changed or removed."""
    words = {
        **{name: f"{root / name} was made" for name in after.keys() - before.keys()},
        **{name: f"{root / name} was removed" for name in before.keys() - after.keys()},
        **{name: f"{root / name} was changed" for name in after.keys() & before.keys() if after[name] != before[name]},
    }
    return tuple(words[name] for name in sorted(words))
