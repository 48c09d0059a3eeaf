"""The worker: answers leave it as they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from multiprocessing import Pipe
from typing import cast

import numpy as np
import pytest

from orin_runner.engine.engine import Engine
from orin_runner.requests import Generated, Request, Result
from orin_runner.runner import OnProgress, Progress, RunStats
from orin_runner.workers.messages import Questions
from orin_runner.workers.packed_requests import pack
from orin_runner.workers.worker import answer


class DiesWhileDecoding:
    """An engine that ends a text in each of two batches and no more."""

    stats = RunStats()

    def run(
        self, _requests: Sequence[Request], on_progress: OnProgress, *, goes_on: bool, n_engines: int
    ) -> Iterator[tuple[int, Result]]:
        on_progress(Progress(10, 20, 30))
        for i in range(2):
            yield i, Generated(np.zeros(1, np.int32), True, 1.0, -1.0, 1, 0)
            on_progress(Progress(11 + i, 20, 30))
        raise MemoryError


def test_texts_are_handed_over_as_they_end() -> None:
    """Decoding may take hours: what has ended by then is kept."""
    ours, theirs = Pipe()
    with pytest.raises(MemoryError):
        answer(theirs, cast("Engine", DiesWhileDecoding()), Questions(pack([])))
    theirs.close()
    # The prompts' batch, and each text's; a text held back would be the end of the pipe here.
    assert [[i for i, _ in ours.recv().results] for _ in range(3)] == [[], [0], [1]]
