"""Rows of public data sets: from files in their published layout, or from the hub at a pinned revision.

The only module that imports ``datasets``, and only when a hub load is asked for.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orin_runner.errors import UserError


def need_file(*candidates: Path) -> Path:
    """The first of ``candidates`` that exists.

    Raises:
        UserError: none does.
    """
    for path in candidates:
        if path.exists():
            return path
    raise UserError(f"{candidates[0]} does not exist", "--data names the folder that holds the data sets' folders")


def find_file(data: Path, *names: str) -> Path:
    """The first of ``names`` under ``data`` that exists, plain or with ``.gz`` behind it.

    Raises:
        UserError: none does.
    """
    return need_file(*(data / f"{name}{end}" for name in names for end in ("", ".gz")))


def read_json_list(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) for every entry of a JSON list.

    Raises:
        UserError: the file is not a JSON list of objects.
    """
    try:
        rows = json.loads(b"".join(lines_of(path)))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON: {error}", "download it again") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path} is not a list of JSON objects")
    yield from enumerate(rows, start=1)


def read_labels(path: Path, n: int) -> list[str]:
    """The ``n`` labels of a ``.lst`` file, one a line.

    Raises:
        UserError: there are more or fewer.
    """
    labels = b"".join(lines_of(path)).decode("utf-8", "replace").split()
    if len(labels) != n:
        raise UserError(f"{path} has {len(labels)} labels for {n} rows")
    return labels


def read_jsonl(path: Path, *required: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) for every non-empty line of a JSON-lines file, gzipped or not.

    Raises:
        UserError: a line is not a JSON object or lacks one of the ``required`` keys; the line number is named.
    """
    for number, line in enumerate(lines_of(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
        except UnicodeDecodeError as error:
            raise UserError(f"{path}, line {number}: not UTF-8 ({error.reason})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object")
        for key in required:
            if key not in row:
                raise UserError(f"{path}, line {number}: no {key!r}")
        yield number, row


def lines_of(path: Path) -> Iterator[bytes]:
    """The lines of a file, gzipped or not.

    Raises:
        UserError: the gzip is damaged.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as lines:
            yield from lines
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not a whole gzip file: {error}", "download it again") from error


def read_csv(path: Path, n_columns: int) -> Iterator[tuple[int, list[str]]]:
    """(line number of the row's end, fields) for every row of a header-less CSV file.

    Raises:
        UserError: a row has another number of fields; the line number is named.
    """
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        while True:
            try:
                row = next(rows, None)
            except (csv.Error, UnicodeDecodeError) as error:
                raise UserError(f"{path}, line {rows.line_num + 1}: cannot be read ({error})") from error
            if row is None:
                return
            if len(row) != n_columns:
                raise UserError(f"{path}, line {rows.line_num}: {len(row)} fields instead of {n_columns}")
            yield rows.line_num, row


def read_hub(repository: str, revision: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Rows of a data set on the Hugging Face hub.

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
    except ImportError as error:
        raise UserError(
            "the package datasets is not installed", "pip install 'orin-run[data]', or --data DIR"
        ) from error
    try:
        rows = datasets.load_dataset(repository, config, split=split, revision=revision)
    except (OSError, ValueError) as error:  # ConnectionError is an OSError; an unknown revision a ValueError
        reason = str(error).splitlines()[0]
        raise UserError(
            f"cannot load {repository} from the hub: {reason}", "name local files with --data DIR"
        ) from error
    yield from (dict(row) for row in rows)
