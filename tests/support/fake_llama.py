"""A stand-in for ``orin_runner.model.llama.Context`` that keeps llama.cpp's rules; its logits are hashes.

Cells, tags, slot search, the sliding window's reuse of cells and its purge follow ``llama-kv-cache.cpp``; the batch
checks follow ``llama-batch.cpp``. A row of "logits" is drawn from a generator seeded by the tokens the query can see,
so a wrong sequence id, position or lost prefix changes the answer, as it would in the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch

PIECES = [b"", b" ", b"\n", "é".encode()[:1], "é".encode()[1:], *(bytes([97 + i % 3]) * (1 + i % 2) for i in range(27))]
"""What each token is in a text: nothing, white space, the halves of a letter, and one or two of a, b, c."""


def row(visible: Sequence[tuple[int, int]], n_vocab: int) -> npt.NDArray[np.float32]:
    """The logits after ``visible``, (position, token) pairs in any order."""
    seed = hashlib.sha256(np.array(sorted(visible), dtype=np.int64).tobytes()).digest()[:8]
    return np.random.default_rng(int.from_bytes(seed, "little")).normal(size=n_vocab).astype(np.float32) * 3


def reference(tokens: Sequence[int], n_vocab: int, window: int = 0) -> npt.NDArray[np.float32]:
    """The logits after ``tokens`` computed as one sequence with a sliding window of ``window`` (0: none)."""
    pairs = list(enumerate(tokens))
    return row(pairs[-window:] if window else pairs, n_vocab)


class FakeContext:
    """Keeps cells as llama.cpp does.

    Args:
        n_cells, n_seq, n_batch, n_ubatch, n_outputs: limits whose violation raises (llama.cpp would abort or refuse).
        window: sliding window, 0 for none.
        jitter: largest change of a logit that depends on the batch it is computed in, as rounding does.
    """

    def __init__(
        self,
        n_cells: int,
        n_seq: int = 256,
        n_batch: int = 2048,
        n_ubatch: int = 512,
        n_outputs: int = 256,
        window: int = 0,
        n_vocab: int = 32,
        jitter: float = 0.0,
    ) -> None:
        self.n_cells, self.n_seq, self.n_batch, self.n_ubatch = n_cells, n_seq, n_batch, n_ubatch
        self.n_outputs, self.n_swa, self.n_vocab, self.jitter = n_outputs, window, n_vocab, jitter
        self.position = np.full(n_cells, -1)
        self.token = np.zeros(n_cells, dtype=np.int64)
        self.tags: list[set[int]] = [set() for _ in range(n_cells)]
        self.rows: list[npt.NDArray[np.float32]] = []
        self.computed = 0
        self.decodes = 0

    def clear(self) -> None:
        self.position[:] = -1
        self.tags = [set() for _ in range(self.n_cells)]

    def copy(self, src: int, dst: int, end: int) -> None:
        for cell, tags in enumerate(self.tags):
            if src in tags and self.position[cell] < end:
                tags.add(dst)

    def cut(self, seq: int, start: int) -> None:
        for cell, tags in enumerate(self.tags):
            if seq in tags and self.position[cell] >= start:
                tags.discard(seq)
                if not tags:
                    self.position[cell] = -1

    def span(self, seq: int) -> tuple[int, int]:
        positions = [int(self.position[cell]) for cell, tags in enumerate(self.tags) if seq in tags]
        return (min(positions), max(positions)) if positions else (-1, -1)

    def used(self) -> int:
        return sum(bool(tags) for tags in self.tags)

    def submit(self, batch: Batch) -> None:
        n = len(batch.tokens)
        ids = [batch.seq_ids[batch.seq_starts[i] : batch.seq_starts[i + 1]].tolist() for i in range(n)]
        assert 0 < n <= self.n_batch, "n_tokens > n_batch aborts the process"
        assert batch.n_outputs <= self.n_outputs, "more outputs than n_outputs_max abort the process"
        self._check(batch, ids)
        self.rows = []
        for first in range(0, n, self.n_ubatch):
            part = range(first, min(first + self.n_ubatch, n))
            cells = self._find_slot(len(part))
            self._apply(cells, part, batch, ids)
            for i in part:
                if batch.outputs[i]:
                    logits = row(self._visible(ids[i][0], int(batch.positions[i])), self.n_vocab)
                    self.rows.append(logits + self._rounding(n, i))
        self.computed += n
        self.decodes += 1

    def synchronize(self) -> None:
        pass

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        if n == 0:
            return np.empty((0, self.n_vocab), dtype=np.float32)
        assert n == len(self.rows)
        return np.array(self.rows, dtype=np.float32).reshape(n, self.n_vocab)

    def state(self, seq: int) -> bytes:
        held = [(int(self.position[c]), int(self.token[c])) for c, tags in enumerate(self.tags) if seq in tags]
        last = max(position for position, _ in held)
        return json.dumps([h for h in held if not self.n_swa or last + 1 - h[0] < self.n_swa]).encode()

    def set_state(self, seq: int, payload: bytes) -> bool:
        held = json.loads(payload)
        assert self.span(seq) == (-1, -1), "a state goes into an empty sequence"
        free = [cell for cell, tags in enumerate(self.tags) if not tags][: len(held)]
        for cell, (position, token) in zip(free, held, strict=True):
            self.position[cell], self.token[cell], self.tags[cell] = position, token, {seq}
        return True

    def piece(self, token: int) -> bytes:
        return PIECES[token]

    def _rounding(self, n_tokens: int, i: int) -> npt.NDArray[np.float32]:
        if not self.jitter:
            return np.zeros(self.n_vocab, dtype=np.float32)
        rng = np.random.default_rng([n_tokens, i])
        return rng.uniform(-self.jitter, self.jitter, self.n_vocab).astype(np.float32)

    def _visible(self, seq: int, position: int) -> list[tuple[int, int]]:
        return [
            (int(self.position[cell]), int(self.token[cell]))
            for cell, tags in enumerate(self.tags)
            if seq in tags
            and self.position[cell] <= position
            and not (self.n_swa and position - self.position[cell] >= self.n_swa)
        ]

    def _check(self, batch: Batch, ids: list[list[int]]) -> None:
        positions: dict[int, list[int]] = {}
        for i, seqs in enumerate(ids):
            assert seqs, "a token without a sequence"
            assert len(set(seqs)) == len(seqs)
            for seq in seqs:
                assert 0 <= seq < self.n_seq, "sequence id out of range"
                positions.setdefault(seq, []).append(int(batch.positions[i]))
        for seq, values in positions.items():
            last = self.span(seq)[1]
            assert last < 0 or values[0] == last + 1, f"sequence {seq} continues at {values[0]} after {last}"
            assert values == list(range(values[0], values[0] + len(values))), f"sequence {seq} has gaps"
        for seqs in ids:
            for seq in seqs[1:]:
                assert self.span(seq) == self.span(seqs[0]), "coupled sequences have diverged"

    def _find_slot(self, n: int) -> list[int]:
        found = []
        for cell, tags in enumerate(self.tags):
            usable = not tags
            if len(tags) == 1 and self.n_swa:
                (seq,) = tags
                usable = self.span(seq)[1] + 1 - self.position[cell] >= self.n_swa
            if usable:
                found.append(cell)
                if len(found) == n:
                    return found
        raise AssertionError("no slot: llama_decode would return 1")

    def _apply(self, cells: list[int], part: range, batch: Batch, ids: list[list[int]]) -> None:
        overwritten: dict[int, int] = {}
        for cell, i in zip(cells, part, strict=True):
            for seq in self.tags[cell]:
                overwritten[seq] = max(overwritten.get(seq, -1), int(self.position[cell]))
            self.position[cell] = batch.positions[i]
            self.token[cell] = batch.tokens[i]
            self.tags[cell] = set(ids[i])
        for seq, last in overwritten.items():
            for cell, tags in enumerate(self.tags):
                if seq in tags and self.position[cell] <= last:
                    tags.discard(seq)
                    if not tags:
                        self.position[cell] = -1
