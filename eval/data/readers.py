"""Rows of public data sets: from files in their published layout, or from the hub at a pinned revision.

The only module that imports ``datasets`` and ``pyarrow``, and only when a hub load or a parquet file is asked for.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from eval.data.text_file import AGAIN, MAX_LINE, bound, text_lines, too_large
from orin_runner.errors import UserError, first_line
from orin_runner.files import open_regular, parse_json

DATA = "--data names the folder that holds the data sets' folders"
"""Or one of these folders itself."""
PARQUET_ROWS = 64
"""Unpacked at a time: one long text may stand for many rows of a packed file."""
Row = TypeVar("Row")


def find_file(data: Path, *names: str, also: str = "") -> Path:
    """The first of ``names`` under ``data`` that exists, plain or with ``.gz`` behind it.

    Args:
        also: other forms the rows may have, for the message.

    Raises:
        UserError: none does; all of them are named. Or ``data`` is no folder.
    """
    found = first_file(data, *names)
    if found is None:
        if not data.is_dir():
            raise UserError(f"{data} is no folder" if data.exists() else f"{data} does not exist", DATA)
        others = [*names[1:], *([also] if also else [])]
        more = f", which may also hold {', '.join(others)}" if others else ""
        raise UserError(f"{data / names[0]} does not exist", DATA + more)
    return found


def first_file(data: Path, *names: str) -> Path | None:
    """The first of ``names`` under ``data`` that exists, plain or with ``.gz`` behind it; None where there is none.

    What has such a name and is no file, or cannot be read, is named when it is opened.
    """
    paths = (root / f"{name}{end}" for root in roots(data, names) for name in names for end in ("", ".gz"))
    return next((path for path in paths if os.path.lexists(path)), None)


def roots(data: Path, names: Iterable[str]) -> list[Path]:
    """Folders that ``names`` may start from: ``data``, and the one above where ``data`` is the first part of a name."""
    own = data.absolute()
    return [data, *([own.parent] if own.name in {Path(name).parts[0] for name in names} else [])]


def read_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) for every row of a parquet file, a JSON list, or JSON lines.

    Raises:
        UserError: the file is none of these, or has no row.
    """
    if path.suffix == ".parquet":
        yield from ((f"{path}, row {i}", row) for i, row in read_parquet(path))
    elif ".json" in path.suffixes:
        yield from ((f"{path}, entry {i}", row) for i, row in read_json_list(path))
    else:
        yield from ((f"{path}, line {i}", row) for i, row in read_jsonl(path))


def read_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) for every entry of a JSON list, or of JSON lines in a file with that name.

    Raises:
        UserError: the file is not a JSON list of objects, or an empty one.
    """
    first = next((line.lstrip() for line in text_lines(path) if line.strip()), "")
    if first.startswith("{"):  # Dataset.to_json("x.json") writes lines
        yield from read_jsonl(path)
        return
    rows = read_json_value(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a list of JSON objects", AGAIN)
    yield from with_rows(path, enumerate(rows, start=1))


def read_json_value(path: Path) -> Any:
    """The JSON value that a file holds, gzipped or not.

    Raises:
        UserError: it is no strict JSON (``orin_runner.files.parse_json``).
    """
    try:
        return parse_json("".join(text_lines(path)))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}", AGAIN) from error


def read_labels(path: Path, n: int) -> list[str]:
    """The ``n`` labels of a ``.lst`` file, one a line.

    Raises:
        UserError: there are more or fewer.
    """
    labels = "".join(text_lines(path)).split()
    if len(labels) != n:
        raise UserError(f"{path} has {len(labels)} labels for {n} rows", AGAIN)
    return labels


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every non-empty line of a JSON-lines file, gzipped or not.

    Raises:
        UserError: a line is no object of strict JSON (``orin_runner.files.parse_json``), or there is none.
    """
    yield from with_rows(path, _objects(path))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text_lines(path), start=1):
        if not line.strip():
            continue
        if len(line) > MAX_LINE:
            raise UserError(f"{path}, line {number}: is longer than {MAX_LINE >> 20} MiB: that is no question", AGAIN)
        try:
            row = parse_json(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error})", AGAIN) from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object", AGAIN)
        yield number, row


def with_rows(path: Path, rows: Iterable[Row]) -> Iterator[Row]:
    """``rows`` of ``path``.

    Raises:
        UserError: there is none.
    """
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise UserError(f"{path} has no rows", AGAIN)


def read_csv(path: Path, n_columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number of the row's end, fields) for every row of a header-less CSV file; empty lines are left out.

    Raises:
        UserError: a row has another number of fields, and the line number is named; or there is none.
    """
    yield from with_rows(path, _fields(path, n_columns))


def _fields(path: Path, n_columns: int) -> Iterator[tuple[int, list[str]]]:
    for line, row in csv_rows(path):
        if row and len(row) != n_columns:
            raise UserError(f"{path}, line {line}: {len(row)} fields instead of {n_columns}", AGAIN)
        if row:
            yield line, row


def csv_rows(path: Path, *, strict: bool = False) -> Iterator[tuple[int, list[str]]]:
    """(line number of the row's end, fields) for every row, empty ones too; ``strict`` is that of ``csv.reader``.

    Raises:
        UserError: a row cannot be read, and the line number is named.
    """
    rows = csv.reader(text_lines(path), strict=strict)
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise UserError(f"{path}, line {rows.line_num + 1}: cannot be read ({error})", AGAIN) from error
        if row is None:
            return
        yield rows.line_num, row


def read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 0, row) for every row of a parquet file.

    Raises:
        UserError: ``pyarrow`` is not installed, or the file is damaged, has no row or unpacks to more than ``bound``.
    """
    yield from with_rows(path, _parquet_rows(path))


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow as pa  # noqa: PLC0415 - heavy, and the device may run from other files without it
        from pyarrow import parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(f"{path} needs the package pyarrow", "pip install 'orin-run[data]'") from error
    number = unpacked = 0
    with open_regular(path) as content:
        most = bound(content)
        try:
            with parquet.ParquetFile(content) as file:
                for batch in file.iter_batches(PARQUET_ROWS):
                    unpacked += batch.nbytes
                    if unpacked > most:
                        raise too_large(path, most)
                    for row in batch.to_pylist():
                        yield number, row
                        number += 1
        except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:  # times, time zones
            raise UserError(f"{path} is not a whole parquet file: {first_line(error)}", AGAIN) from error


def read_hub(repository: str, revision: str, config: str | None, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) for every row of a data set on the Hugging Face hub.

    Args:
        repository: such as ``cais/mmlu``.
        revision: commit hash, so that the rows cannot change under a result.
        config: sub-set, if the data set has several.
        split: such as ``test``.

    Raises:
        UserError: ``datasets`` is not installed, or the hub cannot be reached and nothing is cached.
    """
    try:
        import datasets  # noqa: PLC0415 - heavy, and the device may run from files without it
    except ModuleNotFoundError as error:
        raise UserError(
            "the package datasets is not installed", "pip install 'orin-run[data]', or --data DIR"
        ) from error
    try:
        rows = datasets.load_dataset(repository, config, split=split, revision=revision)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError; an unknown revision a ValueError
        raise UserError(
            f"cannot load {repository} from the hub: {first_line(error)}", "name local files with --data DIR"
        ) from error
    part = f"{config}, {split}" if config else split
    yield from ((f"{repository}, {part}, row {i}", dict(row)) for i, row in enumerate(rows))
