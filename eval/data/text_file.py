"""Lines of a text file, gzipped or not, as far as it may be read: no pipe, and no more than it may unpack to."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orin_runner.errors import UserError
from orin_runner.files import MAX_BYTES, naming, open_regular

AGAIN = "mend it, or download it again"
"""About a file of a data set, or of the user's own."""
ENCODED = "save it as UTF-8, or download it again"
FREE_BYTES = 64 << 20
"""That any packed file may have, whatever its own size."""
MAX_RATIO = 100
"""Of unpacked to packed bytes beyond ``FREE_BYTES``: text packs to a third or a tenth, gzip reaches a thousandth."""

MAX_LINE = 16 << 20
"""Bytes of a row; the longest published one has a thousandth of that."""
MAX_LINES = 1 << 21
"""Of a file; the longest published one has a twentieth of that. Files of line ends alone are read for minutes."""


def bound(file: BinaryIO) -> int:
    """Bytes that a packed file may unpack to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * os.fstat(file.fileno()).st_size))


def too_large(path: Path, most: int) -> UserError:
    """What is said of a file that has more than ``most`` bytes, unpacked."""
    return UserError(f"{path} has more than {most >> 20} MiB, unpacked: that is no data set", AGAIN)


def text_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file, gzipped or not, with their ends; a byte order mark is left out.

    Raises:
        UserError: as ``lines_of``, or a line is not UTF-8 or has a NUL byte, as a power cut leaves them.
    """
    for number, line in enumerate(lines_of(path), start=1):
        yield _decoded(line, number, path)


def _decoded(line: bytes, number: int, path: Path) -> str:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}, line {number}: not UTF-8 ({error.reason})", ENCODED) from error
    if "\0" in text:
        raise UserError(f"{path}, line {number}: has NUL bytes", AGAIN)
    return text


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzipped or not.

    Raises:
        UserError: it is no regular file, its gzip is damaged, or it has more bytes or lines than a data set.
    """
    try:
        with open_regular(path) as file, naming(path):
            packed = path.suffix == ".gz"
            most = bound(file) if packed else MAX_BYTES
            if not packed and os.fstat(file.fileno()).st_size > most:
                raise too_large(path, most)
            lines = gzip.GzipFile(fileobj=file) if packed else file
            left, n_lines = most, 0
            while line := lines.readline(left + 1):
                left, n_lines = left - len(line), n_lines + 1
                if left < 0:
                    raise too_large(path, most)
                if n_lines > MAX_LINES:
                    raise UserError(f"{path} has more than {MAX_LINES:,} lines: that is no data set", AGAIN)
                yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}", AGAIN) from error
