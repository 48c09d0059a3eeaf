"""One product and one copy through ggml: that they are computed, and how much they are said to be."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from orin_runner.errors import RunError
from orin_runner.model.llama_ceilings import QUEUED, Ggml


@pytest.fixture
def ggml() -> Iterator[Ggml]:
    with closing(Ggml(1)) as opened:
        yield opened


class Watched(Ggml):
    """Keeps what was allocated and computed, to look at it from outside."""

    def _computed(self, context: Any, result: Any, amount: float) -> Any:
        self.result = result
        return super()._computed(context, result, amount)

    def values(self, n: int) -> np.ndarray[Any, Any]:
        """The first ``n`` values of the result."""
        found = np.zeros(n, dtype=np.float32)
        get = self._lib.ggml_backend_tensor_get
        get.argtypes, get.restype = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t], None
        get(self.result, found.ctypes.data, 0, found.nbytes)
        return found


@pytest.mark.parametrize(
    ("kind", "error"), [("F32", 1e-4), ("F16", 0.02), ("BF16", 0.1), ("Q8_0", 0.2), ("IQ2_XXS", 9)]
)
def test_a_product_of_every_kind_of_weights(kind: str, error: float) -> None:
    """It is that of the random values that NumPy multiplies, as well as the type holds them; 2 FLOP a value."""
    n_in, n_out, columns = 256, 32, 7
    rng = np.random.default_rng(1)
    weights = rng.standard_normal((n_out, n_in), dtype=np.float32)
    values = rng.standard_normal((columns, n_in), dtype=np.float32)
    with closing(Watched(2)) as watched, watched.product(kind, n_in, n_out, columns) as work:
        work.compute()
        product = watched.values(columns * n_out).reshape(columns, n_out)
        calls = QUEUED if watched.gpu else 1
    assert work.amount == calls * 2 * n_in * n_out * columns
    assert np.abs(product - values @ weights.T).max() < error * np.sqrt(n_in) / 4
    assert np.abs(product).max() > 1


def test_a_copy_counts_what_it_reads_and_writes(ggml: Ggml) -> None:
    with ggml.copy(1 << 20) as work:
        work.compute()
    assert work.amount == (QUEUED if ggml.gpu else 1) * 2 * (1 << 20)


def test_the_device_has_a_name(ggml: Ggml) -> None:
    assert ggml.device


def test_what_cannot_be(ggml: Ggml) -> None:
    """An unknown type, and more than there is memory."""
    with pytest.raises(RunError, match="know no type F99"), ggml.product("F99", 256, 32, 7):
        pass
    with pytest.raises(RunError, match="has no memory for it"), ggml.copy(1 << 60):
        pass
    with ggml.copy(1 << 20) as work:  # and the device goes on
        work.compute()
