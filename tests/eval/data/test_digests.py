"""Files that are not the published ones are told."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from eval.data import digests
from tests.support.choice_rows import write


def test_files_that_are_not_the_published_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line for a changed file, none for the published one, gzipped or not; what is not there is no change."""
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2's of "abc"
    monkeypatch.setattr(digests, "PUBLISHED", {"t": {"t/a": digest, "t/b": digest, "t/c": digest, "t/d": digest}})
    write(tmp_path, {"t/a": "abc", "t/b": "abd"})
    (tmp_path / "t" / "c.gz").write_bytes(gzip.compress(b"abc"))
    lines = digests.changed_files("t", tmp_path)
    assert len(lines) == 1
    assert "t/b is not the published file" in lines[0]
    assert digests.changed_files("t", tmp_path / "t") == lines  # --data names the data set's own folder
    write(tmp_path, {"t_1.1/d": "abd"})  # as an archive unpacks
    assert len(digests.changed_files("t", tmp_path, ["t_1.1"])) == 2
    assert digests.changed_files("t", None) == digests.changed_files("exam", tmp_path) == []
