"""What a device reaches through ggml alone: one matrix product of a model's shape, and a copy within its memory.

The library is the one that llama.cpp computes with, and so are its kernels: the product is ``ggml_mul_mat``, for which
ggml's CUDA backend calls cuBLAS or a kernel of its own, the copy is ``ggml_cpy``. Nothing of a model is loaded.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import _ggml

from orin_runner.errors import RunError
from orin_runner.model.gguf_header import FLOATS

GRAPH_BYTES = 1 << 20
"""For the names of a few tensors and one graph, of which ggml's own overhead is some 100 KiB."""
NUMBERS = {name: number for number, (name, _, _) in FLOATS.items()}
"""``enum ggml_type``; the bindings lack BF16."""
CPU, GPUS = 0, (1, 2)
"""``enum ggml_backend_dev_type``; the others compute single products for a CPU."""
QUEUED = 8
"""Graphs that are sent before their end is waited for: a GPU does not stand still between two."""


class _Params(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


_P, _I, _N, _S = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p
SIGNATURES: dict[str, tuple[Any, ...]] = {  # the result, then the arguments, as ggml.h and ggml-backend.h have them
    "ggml_init": (_P, _Params),
    "ggml_free": (None, _P),
    "ggml_new_tensor_1d": (_P, _P, ctypes.c_int, _I),
    "ggml_new_tensor_2d": (_P, _P, ctypes.c_int, _I, _I),
    "ggml_nbytes": (_N, _P),
    "ggml_mul_mat": (_P, _P, _P, _P),
    "ggml_cpy": (_P, _P, _P, _P),
    "ggml_new_graph": (_P, _P),
    "ggml_build_forward_expand": (None, _P, _P),
    "ggml_quantize_requires_imatrix": (ctypes.c_bool, ctypes.c_int),
    "ggml_quantize_chunk": (_N, ctypes.c_int, _P, _P, _I, _I, _I, _P),
    "ggml_backend_dev_count": (_N,),
    "ggml_backend_dev_get": (_P, _N),
    "ggml_backend_dev_type": (ctypes.c_int, _P),
    "ggml_backend_dev_description": (_S, _P),
    "ggml_backend_dev_init": (_P, _P, _S),
    "ggml_backend_dev_backend_reg": (_P, _P),
    "ggml_backend_reg_get_proc_address": (_P, _P, _S),
    "ggml_backend_free": (None, _P),
    "ggml_backend_alloc_ctx_tensors": (_P, _P, _P),
    "ggml_backend_buffer_clear": (None, _P, ctypes.c_uint8),
    "ggml_backend_buffer_free": (None, _P),
    "ggml_backend_tensor_set": (None, _P, _P, _N, _N),
    "ggml_backend_graph_compute_async": (ctypes.c_int, _P, _P),
    "ggml_backend_synchronize": (None, _P),
}


@dataclass(frozen=True, slots=True)
class Work:
    """A graph on a device, ready to be computed again and again.

    Attributes:
        amount: FLOP or bytes of one call of ``compute``.
        compute: computes it several times over, and returns when the device is done.
    """

    amount: float
    compute: Callable[[], None]


class Ggml:
    """ggml on the device that a model would be computed on: the first GPU that it finds, else the CPU.

    Args:
        n_threads: of a CPU.

    Raises:
        RunError: ggml finds no device, or it cannot be opened.
    """

    def __init__(self, n_threads: int) -> None:
        self._lib = _library()
        lib = self._lib
        found = [lib.ggml_backend_dev_get(i) for i in range(lib.ggml_backend_dev_count())]
        kinds = [(lib.ggml_backend_dev_type(handle), handle) for handle in found]
        usable = sorted((kind not in GPUS, i, handle) for i, (kind, handle) in enumerate(kinds) if kind in (CPU, *GPUS))
        if not usable:
            raise RunError("ggml finds no device")
        on_host, _, device = usable[0]
        self.gpu = not on_host
        self.device = lib.ggml_backend_dev_description(device).decode()
        self._backend = lib.ggml_backend_dev_init(device, None)
        if not self._backend:
            raise RunError(f"ggml cannot open {self.device}")
        set_threads = lib.ggml_backend_reg_get_proc_address(
            lib.ggml_backend_dev_backend_reg(device), b"ggml_backend_set_n_threads"
        )
        if set_threads:
            ctypes.CFUNCTYPE(None, _P, ctypes.c_int)(set_threads)(self._backend, n_threads)

    def close(self) -> None:
        """Leave the device."""
        self._lib.ggml_backend_free(self._backend)

    @contextmanager
    def product(self, kind: str, n_in: int, n_out: int, columns: int) -> Iterator[Work]:
        """The product of a matrix of weights ``[n_in, n_out]`` of type ``kind`` with ``columns`` columns in F32.

        All values are random: of zeros a GPU needs less power, and keeps a higher clock.

        Raises:
            RunError: the device has no memory for it, or the bindings are older than the type.
        """
        number, lib = NUMBERS.get(kind, getattr(llama_cpp, f"GGML_TYPE_{kind}", None)), self._lib
        if number is None:
            raise RunError(f"these bindings know no type {kind}")
        with self._context() as context:
            weights = lib.ggml_new_tensor_2d(context, number, n_in, n_out)
            values = lib.ggml_new_tensor_2d(context, NUMBERS["F32"], n_in, columns)
            product = lib.ggml_mul_mat(context, weights, values)
            with self._computed(context, product, 2.0 * n_in * n_out * columns) as work:
                rng = np.random.default_rng(1)
                self._set(weights, self._rows(number, rng.standard_normal((n_out, n_in), dtype=np.float32)))
                self._set(values, rng.standard_normal((columns, n_in), dtype=np.float32))
                yield work

    @contextmanager
    def copy(self, n_bytes: int) -> Iterator[Work]:
        """A copy of ``n_bytes``; its amount is what is read and what is written.

        Raises:
            RunError: the device has no memory for it.
        """
        lib, n = self._lib, n_bytes // 4
        with self._context() as context:
            source, target = (lib.ggml_new_tensor_1d(context, NUMBERS["F32"], n) for _ in range(2))
            with self._computed(context, lib.ggml_cpy(context, source, target), 2.0 * 4 * n) as work:
                yield work

    @contextmanager
    def _context(self) -> Iterator[Any]:
        context = self._lib.ggml_init(_Params(GRAPH_BYTES, None, True))
        try:
            yield context
        finally:
            self._lib.ggml_free(context)

    @contextmanager
    def _computed(self, context: Any, result: Any, amount: float) -> Iterator[Work]:
        lib, backend = self._lib, self._backend
        with ExitStack() as stack:
            graph = lib.ggml_new_graph(context)
            lib.ggml_build_forward_expand(graph, result)
            buffer = lib.ggml_backend_alloc_ctx_tensors(context, backend)
            if not buffer:
                raise RunError(f"{self.device} has no memory for it")
            stack.callback(lib.ggml_backend_buffer_free, buffer)
            lib.ggml_backend_buffer_clear(buffer, 0)  # a page that nobody has written has no memory of its own
            calls = QUEUED if self.gpu else 1

            def compute() -> None:
                for _ in range(calls):
                    if status := lib.ggml_backend_graph_compute_async(backend, graph):
                        raise RunError(f"ggml_backend_graph_compute returned {status}")
                lib.ggml_backend_synchronize(backend)

            yield Work(calls * amount, compute)

    def _set(self, tensor: Any, values: np.ndarray[Any, Any]) -> None:
        assert self._lib.ggml_nbytes(tensor) == values.nbytes
        self._lib.ggml_backend_tensor_set(tensor, values.ctypes.data, 0, values.nbytes)

    def _rows(self, number: int, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """``values`` as rows of that type."""
        n_rows, n_row = values.shape
        found = np.zeros(values.nbytes, dtype=np.uint8)
        importance = np.ones(n_row, dtype=np.float32)
        pointer = importance.ctypes.data if self._lib.ggml_quantize_requires_imatrix(number) else None
        n = self._lib.ggml_quantize_chunk(number, values.ctypes.data, found.ctypes.data, 0, n_rows, n_row, pointer)
        return found[:n]


def _library() -> Any:
    lib = _ggml.libggml
    for name, (result, *arguments) in SIGNATURES.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    return lib
