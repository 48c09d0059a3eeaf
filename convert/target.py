"""The files that a conversion writes: which of them may be there already, and what becomes of them.

They are OUT and its manifest, and while the conversion goes on each under the same name with ``.partial``. A file is
replaced only if it begins as the converter's own file of that name does; any other thing that lies there is refused and
left as it is, whatever it is: a device, a FIFO, a link, a file of the checkpoint.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orin_runner.errors import UserError
from orin_runner.files import make_folder
from orin_runner.model.gguf_digests import manifest_path

GGUF_START = b"GGUF"
MANIFEST_START = b'{\n "format"'
"""First bytes of the files: GGUF's magic, and ``Manifest.to_json``'s first key."""

OTHER_NAME = "name another OUT.gguf"


def check_target(out: Path, *, force: bool) -> None:
    """Refuse an ``out`` that a conversion must not write to; nothing is changed.

    Args:
        out: the GGUF to be.
        force: whether an earlier GGUF and an earlier manifest are replaced.

    Raises:
        UserError: what lies under one of the names is not to be replaced.
        OSError: it cannot be looked at.
    """
    for path, start in _files(out).items():
        if _is_ours(path, start) and not force:
            raise UserError(f"{path} exists", "--force replaces it")
        _is_ours(_partial(path), start, b"")


@contextmanager
def written(out: Path, *, force: bool) -> Iterator[tuple[Path, Path]]:
    """Where to write the GGUF and its manifest; both get their own names at the end, and vanish after an exception.

    What a killed conversion has left under these names is removed.

    Args:
        out, force: as for ``check_target``.

    Yields:
        The paths of two empty files, which no other conversion writes.

    Raises:
        UserError: as ``check_target``; or another conversion is writing ``out``.
        OSError: the files cannot be written.
    """
    check_target(out, force=force)
    make_folder(out.parent)
    held: dict[Path, int] = {}
    try:
        for path, start in _files(out).items():
            held[path] = _create(_partial(path), start)
        gguf, manifest = map(_partial, held)
        yield gguf, manifest
        check_target(out, force=force)  # hours may have passed
        # The GGUF holds its manifest's digest: a kill between the two leaves a pair whose digests tell them apart.
        for path in held:
            _partial(path).replace(path)
    except BaseException:
        for path in held:
            _partial(path).unlink(missing_ok=True)
        raise
    finally:
        for descriptor in held.values():
            os.close(descriptor)


def _files(out: Path) -> dict[Path, bytes]:
    """The names of a finished conversion, and how the files begin."""
    if not out.name:
        raise _is_a_folder(out)  # "." or "/"; "" is "." here
    return {out: GGUF_START, manifest_path(out): MANIFEST_START}


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _is_ours(path: Path, *starts: bytes) -> bool:
    """Whether ``path`` is a regular file that begins with one of ``starts``; the empty one stands for an empty file.

    Returns:
        False where there is nothing of that name.

    Raises:
        UserError: something else lies there.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    if stat.S_ISLNK(found.st_mode):
        raise UserError(f"{path} is a symbolic link", "name the file itself")
    if stat.S_ISDIR(found.st_mode):
        raise _is_a_folder(path)
    if not stat.S_ISREG(found.st_mode):
        raise UserError(f"{path} is not a regular file", OTHER_NAME)
    with path.open("rb") as file:
        if file.read(max(map(len, starts))) not in starts:
            raise UserError(f"{path} was not written by a conversion and is not replaced", OTHER_NAME)
    return True


def _is_a_folder(path: Path) -> UserError:
    return UserError(f"{path} is a folder", "name the file to write, such as model.gguf")


def _create(path: Path, start: bytes) -> int:
    """Make ``path`` an empty file and lock it. Returns the descriptor that holds the lock."""
    busy = UserError(f"another conversion is writing {path}", f"wait for it, or {OTHER_NAME}")
    if _is_ours(path, start, b""):
        with path.open("rb") as stale:
            try:
                fcntl.flock(stale, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise busy from error
            path.unlink()
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise busy from error
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor
