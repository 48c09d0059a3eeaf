"""One decode call: its tokens, the sequence ids on each of them, and the cache operations around it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from orin_runner.requests import Tokens

Int32 = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Copy:
    """Before the decode: sequence ``dst`` (empty) gets positions 0 to ``end - 1`` of ``src``."""

    src: int
    dst: int
    end: int


@dataclass(frozen=True, slots=True)
class Cut:
    """After the decode: sequence ``seq`` loses every position from ``start`` on."""

    seq: int
    start: int


@dataclass(frozen=True, slots=True)
class Batch:
    """What one call of ``llama_decode`` computes.

    Attributes:
        tokens: int32 ``[n]``.
        positions: int32 ``[n]``.
        seq_ids: int32 ``[pairs]``, the ids of token 0, then of token 1, and so on; a token's first id is the sequence
            whose prefix its query sees.
        seq_starts: int64 ``[n + 1]``, where each token's ids begin in ``seq_ids``.
        outputs: int8 ``[n]``, 1 where the next-token logits are wanted.
        copies: cache operations before the decode.
        cuts: cache operations after it.
        extends: (sequence, first position) of every sequence that gets tokens: each must hold exactly that many
            positions before the decode, or a prefix has been lost.
    """

    tokens: Int32
    positions: Int32
    seq_ids: Int32
    seq_starts: npt.NDArray[np.int64]
    outputs: npt.NDArray[np.int8]
    copies: tuple[Copy, ...]
    cuts: tuple[Cut, ...]
    extends: tuple[tuple[int, int], ...]

    @property
    def n_outputs(self) -> int:
        """Logit rows the decode yields, in token order."""
        return int(np.count_nonzero(self.outputs))


@dataclass(slots=True)
class BatchBuilder:
    """Collects the parts of a batch; ``build`` turns them into arrays without touching single tokens in Python."""

    n_tokens: int = 0
    n_pairs: int = 0
    copies: list[Copy] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    extends: dict[int, int] = field(default_factory=dict)
    _tokens: list[Tokens] = field(default_factory=list)
    _positions: list[Int32] = field(default_factory=list)
    _spans: list[tuple[int, int, int]] = field(default_factory=list)  # (offset, length, sequence id)
    _flags: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def add(self, tokens: Tokens, position: int, seq: int) -> int:
        """Append ``tokens`` at ``position`` and following of ``seq``; returns the offset of the first in the batch."""
        offset = self.n_tokens
        self._tokens.append(tokens)
        self._positions.append(np.arange(position, position + len(tokens), dtype=np.int32))
        self.n_tokens += len(tokens)
        self.share(offset, len(tokens), position, seq)
        return offset

    def share(self, offset: int, n: int, position: int, seq: int) -> None:
        """Put ``seq`` on ``n`` tokens of the batch as well, the first of which stands at ``position``."""
        self._spans.append((offset, n, seq))
        self.n_pairs += n
        self.extends.setdefault(seq, position)

    def flag(self, offsets: npt.NDArray[np.int64]) -> None:
        """Ask for the next-token logits of the tokens at ``offsets``."""
        self._flags.append(offsets)

    def build(self) -> Batch:
        """The finished batch."""
        spans = np.array(self._spans, dtype=np.int64).reshape(-1, 3)
        lengths = spans[:, 1]
        ends = np.cumsum(lengths)
        # Token offset of every (token, id) pair, span after span.
        pair_offset = np.repeat(spans[:, 0] - (ends - lengths), lengths) + np.arange(self.n_pairs)
        pair_seq = np.repeat(spans[:, 2], lengths).astype(np.int32)
        # A stable sort keeps the owner, which is added first, in front.
        order = np.argsort(pair_offset, kind="stable")
        counts = np.bincount(pair_offset, minlength=self.n_tokens)
        outputs = np.zeros(self.n_tokens, dtype=np.int8)
        for offsets in self._flags:
            outputs[offsets] = 1
        return Batch(
            tokens=np.concatenate(self._tokens).astype(np.int32, copy=False),
            positions=np.concatenate(self._positions),
            seq_ids=pair_seq[order],
            seq_starts=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            outputs=outputs,
            copies=tuple(self.copies),
            cuts=tuple(self.cuts),
            extends=tuple(self.extends.items()),
        )
