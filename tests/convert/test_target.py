"""A conversion destroys nothing that is not its own: what may lie under its names, and what becomes of it."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from convert.target import check_target, written
from orin_runner.errors import UserError
from tests.support.checkpoints import phi3

NAMES = ("m.gguf", "m.gguf.manifest.json", "m.gguf.partial", "m.gguf.manifest.json.partial")
"""Every name that a conversion to ``m.gguf`` writes."""
STARTS = (b"GGUF", b'{\n "format"')


def content(folder: Path) -> dict[str, tuple[int, int, bytes]]:
    """What lies in a folder: mode, inode and, of files, bytes."""
    return {
        path.name: (path.lstat().st_mode, path.lstat().st_ino, path.read_bytes() if path.is_file() else b"")
        for path in sorted(folder.iterdir())
    }


def foreign(path: Path) -> None:
    path.write_bytes(b"a thesis")


def empty(path: Path) -> None:
    path.touch()


def folder(path: Path) -> None:
    path.mkdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def link_to_a_file(path: Path) -> None:
    (path.parent / "precious").write_bytes(b"a thesis")
    path.symlink_to("precious")


def link_to_a_gguf(path: Path) -> None:
    (path.parent / "precious").write_bytes(STARTS["manifest" in path.name] + b" and more")
    path.symlink_to("precious")


def link_to_nothing(path: Path) -> None:
    path.symlink_to("missing")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/null")


def link_to_a_fifo(path: Path) -> None:
    os.mkfifo(path.parent / "pipe")
    path.symlink_to("pipe")


def link_to_a_folder(path: Path) -> None:
    path.symlink_to(path.parent, target_is_directory=True)


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def hard_link_of_a_shard(path: Path) -> None:
    (path.parent / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    path.hardlink_to(path.parent / "model.safetensors")


THINGS = (
    foreign,
    folder,
    fifo,
    listening,
    link_to_a_file,
    link_to_a_gguf,
    link_to_nothing,
    link_to_a_device,
    link_to_a_fifo,
    link_to_a_folder,
    loop,
    hard_link_of_a_shard,
)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", THINGS)
def test_what_is_not_the_converters_is_refused(
    tmp_path: Path, make: Callable[[Path], None], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under each of its names, with and without --force; everything lies there afterwards as before."""
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    make(tmp_path / name)
    before = content(tmp_path)
    for force in (False, True):
        with pytest.raises(UserError, match=f"{name} (is|was) "):
            check_target(tmp_path / "m.gguf", force=force)
        with pytest.raises(UserError, match=f"{name} (is|was) "), written(tmp_path / "m.gguf", force=force):
            pytest.fail("it may be written")
        assert content(tmp_path) == before


@pytest.mark.parametrize("name", NAMES[:2])
def test_an_empty_file_is_somebodys(tmp_path: Path, name: str) -> None:
    """Only a killed conversion leaves one, and under a name that ends in .partial."""
    empty(tmp_path / name)
    with pytest.raises(UserError, match="was not written by a conversion"):
        check_target(tmp_path / "m.gguf", force=True)


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
def test_a_folder_without_a_name_is_refused(name: str) -> None:
    for force in (False, True):
        with pytest.raises(UserError, match="is a folder"):
            check_target(Path(name), force=force)


def test_a_device_is_refused(tmp_path: Path) -> None:
    """A terminal of the test's own."""
    master, slave = os.openpty()
    try:
        with pytest.raises(UserError, match="is not a regular file"):
            check_target(Path(os.ttyname(slave)), force=True)
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize("name", NAMES[:2])
def test_an_earlier_conversion_is_replaced_with_force_alone(tmp_path: Path, name: str) -> None:
    """The GGUF, and a manifest whose GGUF is gone."""
    (tmp_path / name).write_bytes(STARTS["manifest" in name] + b" and more")
    before = content(tmp_path)
    with pytest.raises(UserError, match=f"{name} exists; --force"), written(tmp_path / "m.gguf", force=False):
        pytest.fail("it may be written")
    assert content(tmp_path) == before
    with written(tmp_path / "m.gguf", force=True) as (gguf, manifest):
        gguf.write_bytes(b"GGUF new")
        manifest.write_bytes(STARTS[1] + b"new")
    assert (tmp_path / "m.gguf").read_bytes() == b"GGUF new"
    assert (tmp_path / "m.gguf.manifest.json").read_bytes() == STARTS[1] + b"new"
    assert len(content(tmp_path)) == 2


@pytest.mark.parametrize("left", [b"", b"GGUF half"])
def test_what_a_killed_conversion_left_is_removed(tmp_path: Path, left: bytes) -> None:
    """Without --force; a name that somebody else has for the same bytes keeps them."""
    (tmp_path / "m.gguf.partial").write_bytes(left)
    (tmp_path / "m.gguf.manifest.json.partial").touch()
    (tmp_path / "mine").hardlink_to(tmp_path / "m.gguf.partial")
    with written(tmp_path / "m.gguf", force=False) as (gguf, manifest):
        assert (gguf.read_bytes(), manifest.read_bytes()) == (b"", b"")
        gguf.write_bytes(b"GGUF new")
    assert (tmp_path / "m.gguf").read_bytes() == b"GGUF new"
    assert (tmp_path / "mine").read_bytes() == left


def test_two_conversions_do_not_write_one_file(tmp_path: Path) -> None:
    """The second is refused and takes nothing from the first."""
    out = tmp_path / "m.gguf"
    with written(out, force=False) as (gguf, _):
        gguf.write_bytes(b"GGUF first")
        with pytest.raises(UserError, match="another conversion is writing"), written(out, force=True):
            pytest.fail("it may be written")
    assert out.read_bytes() == b"GGUF first"


def test_what_appears_meanwhile_stays(tmp_path: Path) -> None:
    """A conversion takes minutes; the names are looked at again before the files get them."""
    out = tmp_path / "m.gguf"
    with pytest.raises(UserError, match=r"m.gguf was not written"), written(out, force=True):
        foreign(out)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("m.gguf", b"a thesis")]


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.model", "../m/tokenizer.json", "."])
def test_no_file_of_the_checkpoint_is_replaced(tmp_path: Path, tiny: Path, name: str) -> None:
    """OUT inside the checkpoint; a new name there may be written, and replaced as anywhere."""
    directory = phi3(tmp_path / "m", tiny, layers=1, hidden=64)
    before = content(directory)
    for force in (False, True):
        with pytest.raises(UserError, match="is a folder" if name == "." else "was not written by a conversion"):
            convert(Checkpoint.open(directory), directory / name, Options(force=force))
    assert content(directory) == before
    for force in (False, True):
        convert(Checkpoint.open(directory), directory / "m.gguf", Options(force=force))
    assert {name: found for name, found in content(directory).items() if name in before} == before
    assert len(content(directory)) == len(before) + 2
