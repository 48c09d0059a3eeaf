"""Files of a machine that were copied below a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from orin_runner.machine.tree import Tree, whole_number


def test_links_stay_within_the_folder(tmp_path: Path) -> None:
    """An absolute link, one upward beyond the root, and one in the middle of a path, as on the machine itself."""
    root = tmp_path / "board"
    (root / "etc" / "nvpmodel").mkdir(parents=True)
    (root / "etc" / "nvpmodel" / "real.conf").write_text("the board's\n")
    (tmp_path / "real.conf").write_text("not the board's\n")
    (root / "etc" / "nvpmodel.conf").symlink_to("/etc/nvpmodel/real.conf")
    (root / "etc" / "up").symlink_to("../../../etc/nvpmodel/real.conf")
    (root / "usr").symlink_to("/etc/nvpmodel")
    tree = Tree(root)
    for name in ("/etc/nvpmodel.conf", "/etc/up", "/usr/real.conf", "/../etc/nvpmodel/real.conf"):
        assert tree.text(name) == "the board's", name
    assert tree.matching("/usr/r*.conf") == ["/usr/real.conf"]


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    """A missing file, a folder, a link to itself: nothing is raised."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "itself").symlink_to("/itself")
    tree = Tree(tmp_path)
    assert [tree.text(name) for name in ("/missing", "/folder", "/itself", "/itself/below")] == [None] * 4
    assert tree.matching("/missing/*") == []


@pytest.mark.parametrize(
    ("text", "number"), [("7", 7), ("0x7", 7), ("0002", 2), ("-1", -1), ("", None), ("auto", None), (None, None)]
)
def test_numbers_of_sysfs(text: str | None, number: int | None) -> None:
    assert whole_number(text) == number


def test_this_machine_is_the_root(tmp_path: Path) -> None:
    (tmp_path / "here").symlink_to("/")
    assert Tree().is_here
    assert Tree(tmp_path / "here").is_here
    assert not Tree(tmp_path).is_here
