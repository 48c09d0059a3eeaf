"""Whether a GGUF is what its conversion left: its header and its data against the manifest beside it.

The header is compared whenever a file is opened for use; that costs milliseconds. The data is compared by
``DataCheck``, on threads of its own, and what is known meanwhile is said in the words of ``Proof``. No protection
against somebody who writes file and manifest anew: both are believed together.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

from typing_extensions import TypedDict

from orin_runner.errors import UserError
from orin_runner.files import MAX_BYTES, open_regular
from orin_runner.model import gguf_keys
from orin_runner.model.gguf_digests import MANIFEST_FORMAT, constant_digest, manifest_path, metadata_digests
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.schema import Schema

REDO = "convert the checkpoint again"
FLOAT32_MAX = (2 - 2**-23) * 2.0**127
"""The largest number of that type."""
CHUNK = 4 << 20
"""Bytes read and hashed at a time; Python's lock is not held meanwhile."""
BESIDE_NICENESS = 10
"""Of threads that hash beside a run: each gets a tenth of what a thread of the run gets of the same core."""
FIRST_THREADS = 4
"""Threads that hash where a run waits for them: SHA-256 is slower than a disk."""


class Proof(str, Enum):
    """How far a file is known to be what its conversion left, in the words of ``run.json``; the weakest last."""

    VERIFIED = "verified"
    HEADER = "from the header only"
    NONE = "none"
    REFUTED = "refuted"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a file.

    Attributes:
        detail: why it is no more than that; None where all is verified.
    """

    proof: Proof
    detail: str | None = None

    @property
    def line(self) -> str:
        """The verdict in one line."""
        return f"proof: {self.proof.value}" + (f" ({self.detail})" if self.detail else "")

    @property
    def keys(self) -> dict[str, str | None]:
        """What ``run.json`` says under ``model``."""
        return {"proof": self.proof.value, "proof_detail": self.detail}

    @classmethod
    def of_run(cls, header: Mapping[str, Any]) -> Verdict:
        """The verdict in a ``run.json``.

        A reference works its checkpoint's digest out from the weights that it loads. Another run that says nothing is
        older than this, and believed its file.
        """
        model = header.get("model", {})
        if model.get("proof") in {proof.value for proof in Proof}:
            return cls(Proof(model["proof"]), model.get("proof_detail"))
        if header.get("engine") == "transformers":
            return cls(Proof.VERIFIED)
        known = model.get("checkpoint_sha256") is not None
        return cls(Proof.HEADER if known else Proof.NONE, "the run is older than proofs")

    def together(self, other: Verdict) -> Verdict:
        """The weaker of both."""
        return max(self, other, key=lambda verdict: list(Proof).index(verdict.proof))


@dataclass(frozen=True, slots=True)
class Expected:
    """Where a tensor's data lies, in bytes, and its digest by the manifest."""

    name: str
    offset: int
    n_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What there is to prove a file by.

    Attributes:
        path: the GGUF.
        verdict: what is known without its data.
        tensors: in the file's order; empty where nothing says what the data must be.
    """

    path: Path
    verdict: Verdict
    tensors: tuple[Expected, ...] = ()

    def unread(self, why: str) -> Evidence:
        """The same where the data that will be used cannot be read here."""
        return Evidence(self.path, Verdict(Proof.HEADER, why) if self.tensors else self.verdict)


class _Source(TypedDict):
    sha256: str


class _Tensor(TypedDict):
    name: str
    type: str
    shape: list[int]
    sha256: str


class _Added(TypedDict):
    name: str
    type: str
    shape: list[int]
    value: float | list[float]


class _Manifest(TypedDict):
    checkpoint: _Source
    metadata_sha256: dict[str, str]
    tensor_table_sha256: str
    tensors: list[_Tensor]
    added: list[_Added]


class _Format(TypedDict):
    format: int


FORMAT, MANIFEST = Schema(_Format), Schema(_Manifest)


def examine(file: GGUFFile) -> Evidence:
    """Compare a file's header with the manifest beside it.

    Raises:
        UserError: the manifest is another file's, or was changed; or a key or a tensor's place in the header is not
            what it says, and the first such is named.
        OSError: the manifest cannot be read.
    """
    if file.quantized:  # llama.cpp's quantization keeps all keys, the manifest's digest among them
        return Evidence(file.path, Verdict(Proof.NONE, "it is quantized: its values are not the checkpoint's"))
    path = manifest_path(file.path)
    content = _content(path)
    stamp = file.keys.manifest_sha256
    if stamp is None and content is None:
        return Evidence(file.path, Verdict(Proof.NONE, "it names no manifest: another converter made it"))
    if content is None:
        return Evidence(file.path, Verdict(Proof.HEADER, f"its manifest {path.name} is missing"))
    remove = f"{REDO}; without {path.name} the file is used unproven"
    if stamp is None:
        raise UserError(f"{file.path} names no manifest, and one lies beside it", remove)
    if hashlib.sha256(content).hexdigest() != stamp:
        raise UserError(f"{path} is not the manifest that {file.path} names: it is another file's, or changed", remove)
    try:
        made = FORMAT.parse(content)["format"]
        if made != MANIFEST_FORMAT:
            detail = f"its manifest is of format {made}, not {MANIFEST_FORMAT}: convert again"
            return Evidence(file.path, Verdict(Proof.HEADER, detail))
        manifest = MANIFEST.parse(content)
    except ValueError as error:
        raise UserError(f"{path} is no manifest: {error}", remove) from error
    differing = next(_differences(file, manifest), None)
    if differing is not None:
        raise UserError(f"{file.path} is not what its manifest says: {differing}", REDO)
    digests = {record["name"]: record["sha256"] for record in manifest["tensors"]}
    digests |= {record["name"]: constant_digest(record["shape"], record["value"]) for record in manifest["added"]}
    tensors = tuple(Expected(t.name, t.offset, t.n_bytes, digests[t.name]) for t in file.header.tensors)
    return Evidence(file.path, Verdict(Proof.HEADER, "the data was not compared with the manifest"), tensors)


def _content(path: Path) -> bytes | None:
    try:
        with open_regular(path) as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path} is no manifest: it is larger than {MAX_BYTES >> 20} MiB", REDO)
    return content


def _differences(file: GGUFFile, manifest: _Manifest) -> Iterator[str]:
    """What in the header is not as the manifest says, keys first."""
    found, said = metadata_digests(file.header), manifest["metadata_sha256"]
    for key in {**found, **said}:
        if found.get(key) != said.get(key):
            yield f"the key {key} " + ("has another value" if key in said else "is not in it")
    if file.checkpoint_sha256 != manifest["checkpoint"]["sha256"]:
        yield f"the key {gguf_keys.CHECKPOINT_SHA256} has another value"
    records = {r["name"]: (r["type"], tuple(reversed(r["shape"]))) for r in (*manifest["tensors"], *manifest["added"])}
    tensors = {tensor.name: (tensor.type, tensor.shape) for tensor in file.header.tensors}
    for name in {**tensors, **records}:
        if tensors.get(name) != records.get(name):
            yield f"the tensor {name} has another name, type or shape"
    for record in manifest["added"]:
        value, n = record["value"], math.prod(record["shape"])
        values = value if isinstance(value, list) else [value] * n
        if len(values) != n or not all(abs(each) <= FLOAT32_MAX for each in values):
            yield f"the tensor {record['name']} has not the values of its shape and type"
    if file.header.table_sha256 != manifest["tensor_table_sha256"]:
        yield "the tensor table is another"


class DataCheck:
    """Compares a file's tensor data with the digests of its manifest, on threads of its own.

    Args:
        evidence: what the data must be.
        keep_cached: leave what was read in the page cache, from where others load it. Where memory is unified the
            file's pages would crowd out the weights.

    Raises:
        OSError: by ``start`` and ``verdict``: the file cannot be opened or read.
    """

    def __init__(self, evidence: Evidence, *, keep_cached: bool = True) -> None:
        self._evidence, self._keep_cached = evidence, keep_cached
        self._file: int | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._lock = threading.Lock()
        self._wrong = len(evidence.tensors)  # the number of the first tensor known to differ; behind it none is read
        self._left: set[Future[None]] = set()

    def start(self, n_threads: int = 1, *, niceness: int = 0) -> None:
        """Begin to read, once; nothing happens where nothing says what the data must be."""
        if self._pool is not None or not self._evidence.tensors:
            return
        self._file = os.open(self._evidence.path, os.O_RDONLY | os.O_CLOEXEC)
        self._pool = ThreadPoolExecutor(n_threads, "proof", initializer=_be_nice, initargs=(niceness,))
        self._left = {self._pool.submit(self._compare, number) for number in range(len(self._evidence.tensors))}

    def verdict(self, *, wait: bool = False) -> Verdict:
        """What is known now; with ``wait``, once all data has been read that was begun to be read."""
        if self._pool is None:
            return self._evidence.verdict
        if wait or self._wrong < len(self._evidence.tensors):  # what stands before a wrong tensor may be wrong, too
            wait_for(self._left)
        for done in [one for one in self._left if one.done()]:
            done.result()
            self._left.remove(done)
        if self._wrong < len(self._evidence.tensors):
            name = self._evidence.tensors[self._wrong].name
            return Verdict(Proof.REFUTED, f"the data of tensor {name} is not what the manifest says")
        return self._evidence.verdict if self._left else Verdict(Proof.VERIFIED)

    def close(self) -> None:
        """End the threads, whatever they have read; what they have found is not known any more."""
        if self._pool is not None and self._file is not None:
            self._wrong = -1
            self._pool.shutdown(cancel_futures=True)
            os.close(self._file)
            self._pool = None

    def __enter__(self) -> DataCheck:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _compare(self, number: int) -> None:
        assert self._file is not None
        tensor = self._evidence.tensors[number]
        digest, buffer = hashlib.sha256(), memoryview(bytearray(min(CHUNK, tensor.n_bytes)))
        at, end = tensor.offset, tensor.offset + tensor.n_bytes
        while at < end and number < self._wrong:
            n = os.preadv(self._file, [buffer[: end - at]], at)
            if n == 0:
                break  # the file has become shorter
            digest.update(buffer[:n])
            if not self._keep_cached:
                os.posix_fadvise(self._file, at, n, os.POSIX_FADV_DONTNEED)
            at += n
        with self._lock:
            if number < self._wrong and digest.hexdigest() != tensor.sha256:
                self._wrong = number


def _be_nice(niceness: int) -> None:
    with suppress(OSError):  # some containers do not allow it; the check is then one thread among others
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
