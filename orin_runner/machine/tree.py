"""Files of this machine, or of another one recorded below a folder, by the paths that they have there.

Links stay within the folder: ``/etc/nvpmodel.conf`` of a recorded board is a link to a file of that board.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

MOST_LINKS = 40
"""On one path; as the kernel has it."""


class Tree:
    """The files below ``root``.

    Args:
        root: ``/`` for this machine.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    @property
    def is_here(self) -> bool:
        """Whether it is this machine's."""
        return self.root.resolve() == Path("/")

    def path(self, name: str) -> Path:
        """Where ``name`` lies, an absolute path of that machine."""
        at, left, links = self.root, list(reversed(PurePosixPath(name).parts)), 0
        while left:
            part = left.pop()
            if part == "/":
                at = self.root
            elif part == "..":
                at = at if at == self.root else at.parent
            elif (at / part).is_symlink() and links < MOST_LINKS:
                links += 1
                left += reversed((at / part).readlink().parts)
            else:
                at /= part
        return at

    def text(self, name: str) -> str | None:
        """What a file says, without white space and NUL around it; None where it cannot be read."""
        path = self.path(name)
        try:
            return path.read_bytes().decode("utf-8", "replace").strip(" \t\n\0") if path.is_file() else None
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """A whole number, decimal or with 0x; None where there is none."""
        return whole_number(self.text(name))

    def matching(self, pattern: str) -> list[str]:
        """The paths that match ``pattern``, in order; the folder in front of its first ``*`` may be a link."""
        fixed, star, rest = pattern.partition("*")
        folder, _, name = fixed.rpartition("/")
        base = self.path(folder)
        return sorted(f"{folder}/{found.relative_to(base)}" for found in base.glob(name + star + rest))


def whole_number(text: str | None) -> int | None:
    """``text`` as a number, decimal or with 0x in front; None where it is none."""
    try:
        return None if text is None else int(text, 16 if text.lower().startswith("0x") else 10)
    except ValueError:
        return None
