"""What a worker died of, read from what it left; and what follows from that."""

from __future__ import annotations

import signal

import pytest

from orin_runner.workers.death import Death, LastWords, last_words
from orin_runner.workers.verdict import (
    MAX_BLAMED_IN_A_ROW,
    MAX_DEATHS_WITHOUT_PROGRESS,
    Verdict,
    Verdicts,
    WorkerDiedError,
)

CUDA = """CUDA error: out of memory
  current device: 0, in function alloc at /tmp/build/ggml/src/ggml-cuda/ggml-cuda.cu:512
  cuMemCreate(&handle, reserve_size, &prop, 0)
/tmp/build/ggml/src/ggml-cuda/ggml-cuda.cu:103: CUDA error
"""
TERMINATE = """terminate called after throwing an instance of 'std::out_of_range'
  what():  vector::_M_range_check: __n (which is 0) >= this->size() (which is 0)
"""
FAULT = """Fatal Python error: Segmentation fault

Thread 0x00007f11 (most recent call first):
  File "/usr/lib/python3.11/threading.py", line 320 in wait

Current thread 0x00007f12 (most recent call first):
  File "/home/me/orin_runner/model/llama.py", line 331 in submit
  File "/home/me/orin_runner/engine/executor.py", line 71 in submit

Extension modules: numpy.core (total: 1)
"""


def test_nothing_goes_on_where_a_node_is_gone() -> None:
    """Whatever it has answered before: no other worker can be started there, with half the memory or without."""
    for progress in (True, False):
        with pytest.raises(WorkerDiedError, match="the node is gone, with 3 left"):
            Verdicts().on(Death("lost", "the node is gone", final=True), 3, "with 3 left", progress=progress)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("", None),
        ("\n  \n", None),
        ("/b/ggml/src/ggml.c:12: GGML_ASSERT(n > 0) failed\n", "ggml.c:12: GGML_ASSERT(n > 0) failed"),
        ("/b/ggml.c:12: GGML_ASSERT(n > 0) failed\n" + "#0 main\n" * 3, "ggml.c:12: GGML_ASSERT(n > 0) failed"),
        (CUDA, "CUDA error: out of memory"),
        (TERMINATE, "what():  vector::_M_range_check: __n (which is 0) >= this->size() (which is 0)"),
        (
            "free(): invalid pointer\nFatal Python error: Aborted\n\n" + FAULT.partition("\n\n")[2],
            "free(): invalid pointer",
        ),
        (FAULT, "Segmentation fault in submit (llama.py:331)"),
        ("Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n", None),
        ("Fatal Python error: Bus error\n", "Bus error"),
        ("x" * 1000, "x" * 300),
    ],
)
def test_the_line_that_says_why(output: str, words: str | None) -> None:
    """An assert, a C++ exception, a fault, the C library; not where it was, not what follows."""
    assert last_words(output) == words


def test_what_was_killed_says_nothing() -> None:
    """Its last line is about something else, whatever it says."""
    assert Death.of(-signal.SIGKILL, None, "GGML_ASSERT(x) failed") == Death("SIGKILL", None)
    assert str(Death.of(-signal.SIGABRT, None, "GGML_ASSERT(x) failed")) == "SIGABRT: GGML_ASSERT(x) failed"
    assert str(Death.of(1, "KeyError: 'x' (a.py:3)", "Traceback ...")) == "KeyError: 'x' (a.py:3)"
    assert str(Death.of(3, None, "")) == "exit status 3"


def test_an_exception_in_a_line_with_its_place() -> None:
    """That of the innermost call, and whatever lines the message has."""
    with pytest.raises(ValueError, match="two") as caught:
        raise ValueError("one\n two")
    line = caught.tb.tb_lineno
    assert LastWords.on(caught.value) == LastWords(f"ValueError: one two (test_verdict.py:{line})")


@pytest.mark.parametrize(
    "words",
    [
        None,
        "CUDA error: out of memory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 1.00 MiB on device 0: cudaMalloc failed: out of memory",
        "ggml_aligned_malloc: insufficient memory (attempted to allocate 9.00 MB)",
        "graph_reserve: failed to allocate compute buffers",
        "what():  std::bad_alloc",
        "cuBLAS error: CUBLAS_STATUS_ALLOC_FAILED",
        "MemoryError (tree.py:3)",
        "OSError: [Errno 12] Cannot allocate memory (llama.py:9)",
        "NvMapMemAllocInternalTagged: 1075072515 error 12",
    ],
)
def test_a_lack_of_memory_in_its_many_words(words: str | None) -> None:
    """Half the memory each time, and no request is blamed, up to a bound."""
    verdicts = Verdicts()
    for _ in range(MAX_DEATHS_WITHOUT_PROGRESS - 1):
        assert verdicts.on(Death("SIGABRT", words), 1, "x", progress=False) is Verdict.HALVE_MEMORY
    with pytest.raises(WorkerDiedError, match="died 4 times in a row without an answer"):
        verdicts.on(Death("SIGABRT", words), 1, "x", progress=False)


def on(verdicts: Verdicts, words: str, n_left: int, *, progress: bool = False) -> Verdict:
    return verdicts.on(Death("SIGABRT", words), n_left, "then", progress=progress)


def test_the_same_again_divides_and_another_does_not() -> None:
    """Numbers and addresses do not make another."""
    verdicts = Verdicts()
    assert on(verdicts, "a.c:1: assert at 0x7f00", 8) is Verdict.AGAIN
    assert on(verdicts, "b.c:1: assert at 0x7f00", 8) is Verdict.AGAIN
    assert on(verdicts, "a.c:2: assert at 0xabcd", 8, progress=True) is Verdict.DIVIDE
    assert on(verdicts, "a.c:1: assert at 0x7f00", 1) is Verdict.BLAME
    assert on(verdicts, "a.c:1: assert at 0x7f00", 0) is Verdict.AGAIN


def test_words_that_are_always_others_come_to_an_end() -> None:
    """After as many deaths in a row as for memory the requests are divided all the same."""
    verdicts = Verdicts()
    found = [on(verdicts, word, 8) for word in "abcd"]
    assert found == [Verdict.AGAIN] * 3 + [Verdict.DIVIDE]


def test_answers_between_two_that_failed() -> None:
    """Only requests in a row end a run."""
    verdicts = Verdicts()
    on(verdicts, "x", 8)
    for i in range(3 * MAX_BLAMED_IN_A_ROW):
        assert on(verdicts, "x", 1, progress=i % 2 == 0) is Verdict.BLAME
    for _ in range(MAX_BLAMED_IN_A_ROW - 3):
        on(verdicts, "x", 1)
    with pytest.raises(WorkerDiedError, match=f"died of {MAX_BLAMED_IN_A_ROW} requests in a row"):
        on(verdicts, "x", 1)
