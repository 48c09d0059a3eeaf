"""Apply a patch of this folder to the unpacked source of llama-cpp-python: python patches/apply.py PATCH SOURCE.

The patch is what `git diff --full-index` prints in llama.cpp's tree. Each file must be the one that the patch was made
for and must become the one that it names (git's hashes of both stand in the patch), so that another version is refused.
Nothing is written before every file has been checked. Exit status 2 and one line if anything does not fit.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

NO_FILE = "0" * 40
HEAD = re.compile(r"index (?P<before>[0-9a-f]{40})\.\.(?P<after>[0-9a-f]{40})")
HUNK = re.compile(r"@@ -(?P<start>\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")


class MisfitError(Exception):
    """The patch and the source do not belong together; the message is for the user."""


def blob(data: bytes) -> str:
    """Git's hash of a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def changed(before: list[str], lines: list[str]) -> list[str]:
    """The lines of a file after the hunks in `lines` (what follows a file's `+++` line)."""
    after: list[str] = []
    taken = 0
    for line in lines:
        if hunk := HUNK.match(line):
            start = max(int(hunk["start"]) - 1, 0)
            after += before[taken:start]
            taken = start
        elif line.startswith("+"):
            after.append(line[1:])
        elif line[:1] in {" ", "-"}:
            if before[taken : taken + 1] != [line[1:]]:
                raise MisfitError(f"line {taken + 1} is not the one in the patch")
            after += [line[1:]] if line.startswith(" ") else []
            taken += 1
    return after + before[taken:]


def sections(patch: str) -> Iterator[tuple[str, str, str, list[str]]]:
    """Of every file its name, git's hashes before and after, and the lines of its hunks. Raises `MisfitError`."""
    for section in re.split(r"(?m)^diff --git .*\n", patch)[1:]:
        head, kept, body = section.partition("\n+++ b/")
        if not kept:
            raise MisfitError("it removes a file or changes a binary one")
        name, *lines = body.splitlines(keepends=True)
        hashes = HEAD.search(head)
        if hashes is None:
            raise MisfitError(f"{name.strip()}: no full hashes in the patch")
        yield name.strip(), hashes["before"], hashes["after"], lines


def added(patch: str) -> dict[str, str]:
    """The files that are new, by their names in llama.cpp's tree."""
    return {name: "".join(changed([], lines)) for name, before, _, lines in sections(patch) if before == NO_FILE}


def results(patch: str, tree: Path) -> dict[Path, bytes]:
    """Every file that the patch changes or adds, with its content afterwards. Raises `MisfitError`."""
    found = {}
    for name, expected, named, lines in sections(patch):
        path = tree / name
        before = path.read_bytes() if path.is_file() else None
        if (NO_FILE if before is None else blob(before)) != expected:
            raise MisfitError(f"{name} is not the file that the patch was made for")
        after = "".join(changed((before or b"").decode().splitlines(keepends=True), lines)).encode()
        if blob(after) != named:
            raise MisfitError(f"{name} does not become the file that the patch names")
        found[path] = after
    return found


def main(arguments: list[str]) -> int:
    """0, or 2 after one line on standard error."""
    if len(arguments) != 2:
        print("usage: python patches/apply.py PATCH SOURCE", file=sys.stderr)
        return 2
    patch, source = map(Path, arguments)
    try:
        files = results(patch.read_text(encoding="utf-8"), source / "vendor" / "llama.cpp")
        if not files:
            raise MisfitError("it changes no file")
    except (OSError, UnicodeDecodeError, MisfitError) as problem:
        print(f"{patch.name} does not fit {source.name}: {problem}; PATCHES=no compiles it as it is", file=sys.stderr)
        return 2
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
