"""Requests packed for another process come out as they went in."""

from __future__ import annotations

import pickle

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from orin_runner.requests import GenerateRequest, Request, ScoreRequest, Tokens
from orin_runner.workers.packed_requests import pack, unpack

tokens = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(lambda ids: np.array(ids, dtype=np.int32))
scores = st.builds(
    ScoreRequest, tokens, st.lists(tokens, max_size=4).map(tuple), st.lists(st.integers(1, 4), max_size=3).map(tuple)
)
texts = st.builds(
    GenerateRequest,
    tokens,
    st.frozensets(st.integers(0, 9)),
    st.integers(1, 9),
    st.lists(tokens, max_size=3).map(tuple),
    st.lists(st.text(max_size=3), max_size=2).map(tuple),
)


def _plain(request: Request) -> tuple[object, ...]:
    """Everything a request has, in values that compare."""

    def ids(arrays: tuple[Tokens, ...]) -> list[list[int]]:
        assert all(array.dtype == np.int32 for array in arrays)
        return [array.tolist() for array in arrays]

    if isinstance(request, ScoreRequest):
        return ("score", ids((request.prompt,)), ids(request.continuations), request.scored)
    bounds = (request.stop, request.max_new_tokens, request.until)
    return ("generate", ids((request.prompt,)), ids(request.candidates), bounds)


@given(st.lists(st.one_of(scores, texts), max_size=8))
def test_requests_come_out_as_they_went_in(requests: list[Request]) -> None:
    passed = pickle.loads(pickle.dumps(pack(requests)))  # noqa: S301 - our own
    assert [_plain(request) for request in unpack(passed)] == [_plain(request) for request in requests]
