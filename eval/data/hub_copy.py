"""Where a split lies in a copy of one of the hub's repositories, as ``hf download --local-dir`` makes it.

Knows names of folders and files, not what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from eval.data.readers import find_file, first_file, roots
from orin_runner.errors import UserError

SHARD = re.compile(r"-(\d+)-of-(\d+)\b")
FORMS = ("{}.parquet", "{}-*-of-*.parquet", "{}/*.parquet", "{}.jsonl", "{}.jsonl.gz", "{}.json", "{}.json.gz")
"""One file, shards, the hub's own conversion to parquet, and what ``datasets`` exports."""


def published_or_copied(data: Path, names: Sequence[str], folders: Sequence[str], split: str, hub: str) -> list[Path]:
    """The published file, else the files of a split in a copy of the hub's repository.

    Args:
        data: ``--data``.
        names: of the published file under ``data``.
        folders: where under ``data`` the split may lie in a copy.
        split: the hub's name.
        hub: what a copy is called, for the message.

    Raises:
        UserError: there is neither; both are named.
    """
    found = first_file(data, *names)
    paths = [found] if found else split_files(data, folders, split)
    return paths or [find_file(data, *names, also=f"a copy of {hub} from the hub, with its files of {split}")]


def split_folders(folders: Iterable[str], config: str | None) -> list[str]:
    """Where the files of a configuration may lie.

    Args:
        folders: names a copy of the repository may have.
        config: the configuration; its files may also lie where those of a repository without any do.
    """
    places = (*([config] if config else []), "data", "plain_text", "default", "")
    return [f"{folder}/{place}" for folder in folders for place in places]


def split_files(data: Path, folders: Sequence[str], split: str) -> list[Path]:
    """The files of a split in the first of ``folders`` under ``data`` that has any, in their order.

    Raises:
        UserError: shards are missing.
    """
    for folder in (root / name for root in roots(data, folders) for name in folders):
        for form in FORMS:
            found = sorted(folder.glob(form.format(split)))
            if found:
                _check_shards(found)
                return found
    return []


def _check_shards(paths: list[Path]) -> None:
    shards = [match.groups() for path in paths if (match := SHARD.search(path.name))]
    if not shards:
        return
    width, n = len(shards[0][0]), shards[0][1]
    if len(shards) != len(paths) or shards != [(f"{i:0{width}}", n) for i in range(int(n))]:
        raise UserError(
            f"{paths[0].parent} does not hold all parts of {paths[0].name}, and nothing else", "download it again"
        )
