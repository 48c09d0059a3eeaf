"""Prefix states on disk, kept between runs.

One file holds one state: what llama.cpp's ``llama_state_seq_get_data`` gives for a sequence of exactly the tokens in
its key. A file is one JSON line (the key's digest, the payload's length and sha256) and the payload; it is written
under a temporary name and renamed, so that a reader sees all of it or nothing. Whatever does not check out is removed
and computed again. The folder is bounded: the least recently used states go first. No error of the file system ends a
run: it goes on without the cache.

Knows files and bytes, not models.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from orin_runner.errors import os_error_line
from orin_runner.files import make_folder
from orin_runner.requests import Tokens

SUFFIX = ".state"


@dataclass(frozen=True, slots=True)
class PromptCacheOptions:
    """Where states are kept and what they belong to.

    Attributes:
        directory: the folder.
        max_bytes: all files together.
        identity: everything a state depends on beside its tokens: model digest, settings, versions, device.
    """

    directory: Path
    max_bytes: int
    identity: str


class PromptCache:
    """The states in one folder.

    Args:
        options: where and for what.
        on_note: called with a line when states can no longer be written.

    Attributes:
        restored_tokens, saved_states, refused_files: what happened so far.
        asked: calls of ``load`` and ``save``.
    """

    def __init__(self, options: PromptCacheOptions, on_note: Callable[[str], None] = lambda _: None) -> None:
        self._options = options
        self._on_note = on_note
        self._writable = True
        self._said_too_large = False
        self.restored_tokens = 0
        self.saved_states = 0
        self.refused_files = 0
        self.asked = 0
        try:
            make_folder(options.directory)
            if not os.access(options.directory, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, "it cannot be written", str(options.directory))
        except OSError as error:
            self._save_no_more(error)

    def _path(self, tokens: Tokens) -> tuple[Path, str]:
        digest = hashlib.sha256(self._options.identity.encode())
        digest.update(b"\0" + tokens.astype("<i4").tobytes())
        key = digest.hexdigest()
        return self._options.directory / (key + SUFFIX), key

    def load(self, tokens: Tokens) -> bytes | None:
        """The state after ``tokens``, or None where there is none that checks out."""
        self.asked += 1
        path, key = self._path(tokens)
        try:
            if not path.is_file():  # reading a pipe would never end
                return None
            payload = _payload(path, key)
        except OSError:  # what cannot be read is not there; that nothing can be written is said where it is tried
            return None
        if payload is None:
            self.forget(tokens)
        else:
            with suppress(OSError):  # in a folder that is read only, states are still good
                os.utime(path)
        return payload

    def forget(self, tokens: Tokens) -> None:
        """Remove the state after ``tokens``: it is of no use."""
        self.refused_files += 1
        with suppress(OSError):
            self._path(tokens)[0].unlink(missing_ok=True)

    def save(self, tokens: Tokens, payload: bytes) -> None:
        """Keep the state after ``tokens``; where that fails the run goes on without saving."""
        self.asked += 1
        if not self._writable:
            return
        if len(payload) > self._options.max_bytes:
            self._say_too_large(len(payload))
            return
        path, key = self._path(tokens)
        header = {"key": key, "bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}
        partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            self._make_room(len(payload))
            with partial.open("wb") as file:
                file.write(json.dumps(header).encode() + b"\n")
                file.write(payload)
            partial.replace(path)
        except OSError as error:
            self._save_no_more(error)
            with suppress(OSError):
                partial.unlink(missing_ok=True)
        else:
            self.saved_states += 1

    def _save_no_more(self, error: OSError) -> None:
        self._writable = False
        why = "the disk is full" if error.errno == errno.ENOSPC else os_error_line(error)
        self._on_note(f"the prompt cache in {self._options.directory} takes no more states, the run goes on: {why}")

    def _say_too_large(self, n_bytes: int) -> None:
        if not self._said_too_large:
            self._said_too_large = True
            bound = f"the {self._options.max_bytes:,} bytes that the prompt cache may have"
            self._on_note(f"a shared prefix of {n_bytes:,} bytes is not kept: it is larger than {bound}")

    def _make_room(self, n_bytes: int) -> None:
        files = []
        for path in self._options.directory.glob("*" + SUFFIX):
            with suppress(FileNotFoundError):  # another process has made room
                files.append((path.stat(), path))
        files.sort(key=lambda file: file[0].st_mtime)
        total = n_bytes + sum(stat.st_size for stat, _ in files)
        for stat, path in files:
            if total <= self._options.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= stat.st_size


def _payload(path: Path, key: str) -> bytes | None:
    """The state in a file, None where it is not the whole state of ``key``."""
    with path.open("rb") as file:
        try:
            header = json.loads(file.readline(4096))
        except (ValueError, RecursionError):
            return None
        size = path.stat().st_size - file.tell()
        if not isinstance(header, dict) or header.get("key") != key or header.get("bytes") != size:
            return None
        payload = file.read()
    return payload if header.get("sha256") == hashlib.sha256(payload).hexdigest() else None
