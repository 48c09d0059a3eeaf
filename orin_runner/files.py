"""Files that may be damaged, no files at all, or on a disk that is full; and JSON in its strict form."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from orin_runner.errors import UserError

STDOUT, STDERR = 1, 2
MAX_BYTES = 1 << 30
"""Of a text file that is read, unpacked; the largest published one has a twentieth of that."""


def open_regular(path: Path) -> BinaryIO:
    """``path`` opened for reading.

    Raises:
        UserError: it is no regular file: of a pipe or a device nobody knows when it ends.
        OSError: it cannot be opened; the file is named.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise UserError(f"{path} is {kind}, not a file", "name a file, or write its content into one")
    return path.open("rb")


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Makes the system's errors say ``path``; those of reading and writing an open file name none."""
    try:
        yield
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # numpy's: it does not say why a file took no more
            raise OSError(errno.EIO, str(error), str(path)) from error
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text, in the strict form of RFC 8259.

    Raises:
        ValueError: it is none. NaN, infinities, half surrogate pairs and bytes that are no UTF-8 are refused, as are
            numbers of more than 4,300 digits and what is nested more than 200 deep.
    """
    from pydantic_core import from_json  # noqa: PLC0415 - commands that read no JSON start without it

    return from_json(content, allow_inf_nan=False)


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """``value`` as strict JSON; half surrogate pairs, which have no UTF-8, become question marks.

    Args:
        value: what ``json`` knows to write.
        indent: spaces a level, None for one line.
        ascii_only: escape all other characters.

    Raises:
        ValueError: a number is not finite.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace").decode()
    return json.dumps(json.loads(text), indent=indent) if ascii_only else text


def need_utf8(path: Path) -> None:
    """Refuse a name that libraries cannot take which pass names on as text.

    Raises:
        UserError: it has bytes that are no UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path} is not a name in UTF-8", "rename it") from error


def read_bytes(path: Path) -> bytes:
    """What a file holds.

    Raises:
        UserError: it is no regular file, or too large for a text file.
    """
    with open_regular(path) as file, naming(path):
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is larger than {MAX_BYTES >> 20} MiB", "that is another file: name the right one")
    return content


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """A JSON object from a file.

    Args:
        path: the file.
        hint: what to do where it does not hold one.

    Raises:
        UserError: missing, too large, not strict JSON (``parse_json``), or not an object.
    """
    try:
        value = parse_json(read_bytes(path))
        json_text(value)  # a number beyond the range of a double has become infinite
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing", hint) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}", hint) from error
    if not isinstance(value, dict):
        raise UserError(f"{path} does not hold a JSON object", hint)
    return value


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are not there; of any number, which ``Path.mkdir`` is not good for.

    Raises:
        OSError: it cannot be made; it or one above it is named, and nothing is left of the others.
    """
    missing = [path]
    while not (path := path.parent).exists():
        missing.append(path)
    made: list[Path] = []
    try:
        for folder in reversed(missing):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                made.append(folder)
    except OSError:
        for folder in reversed(made):
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def state_folder() -> Path:
    """``$XDG_STATE_HOME/orin-run``, where what is remembered from one command to the next lies; it may not be there."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "orin-run"


@contextmanager
def silence() -> Iterator[None]:
    """Nothing gets to standard output or error, whoever writes it.

    Rust writes a traceback before a panic becomes an exception, and warnings with what stands in a file.
    """
    with ExitStack() as stack:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        stack.callback(os.close, nowhere)
        for number in (STDOUT, STDERR):
            try:
                kept = os.dup(number)
            except OSError:  # a service may have closed it
                continue
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, number)
            os.dup2(nowhere, number)
        yield


def leads_nowhere(path: Path) -> bool:
    """Whether ``path`` is a link at whose end no file can be made.

    It leads back to itself, over more links than the kernel follows, to a name that is too long, or into no folder.
    """
    try:
        path.stat()
    except OSError as error:
        missing = error.errno == errno.ENOENT
        return path.is_symlink() and not (missing and Path(os.path.realpath(path)).parent.is_dir())
    return False


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, also after a kill or a power cut, sees the old or the whole new one.

    The content, of a text its UTF-8, is written as ``PATH.partial``, synced and renamed. A link stays one, and its
    target is replaced.

    Raises:
        UserError: ``path`` is there and no regular file.
        OSError: it cannot be written; ``path`` is named.

    What had been written of the new one is removed, whatever ends the writing: a full disk or Ctrl-C.
    """
    target = Path(os.path.realpath(path))
    if leads_nowhere(path) or (target.exists() and not target.is_file()):
        raise UserError(f"{path} is no regular file, and is not replaced", "name another file")
    partial = target.with_name(target.name + ".partial")
    try:
        partial.unlink(missing_ok=True)  # a link or a pipe of that name is not written through
        with partial.open("xb") as file:
            file.write(content.encode("utf-8", "replace") if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
        _sync_folder(target.parent)
    except BaseException as error:
        if partial.is_file():
            partial.unlink()
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def _sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` outlast a power cut."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def append_bytes(file: BinaryIO, content: bytes) -> None:
    """Write all of ``content`` to an unbuffered file, which may take it in pieces."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest) :]


def whole_lines(content: bytes) -> bytes:
    """``content`` without what a kill has left of its last line: what follows the last line end."""
    return content[: content.rfind(b"\n") + 1]
