"""Which type holds a tensor: for powers of two, for tensors that are stacked, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from convert.exactness import compare, loss, recode, to_float32
from convert.safetensors_file import StoredTensor
from convert.tensor_type import Use, pick_type
from orin_runner.errors import UserError

ALL_F16 = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
FINITE_F16 = ALL_F16[(ALL_F16 & 0x7C00) != 0x7C00]


def tensor(folder: Path, name: str, values: np.ndarray, dtype: str) -> StoredTensor:
    path = folder / name
    path.write_bytes(values.tobytes())
    return StoredTensor(name, dtype, values.shape, path, 0)


def f16(*values: float) -> np.ndarray:
    return np.array([values], dtype=np.float16)


@pytest.mark.parametrize("exponent", [1, 8, 12])
def test_a_power_of_two_costs_no_bit_below_the_largest_float16(exponent: int) -> None:
    """Every finite pattern: those beyond 65,504 / 2^k become infinite and are counted, no other changes."""
    values = np.abs(to_float32(FINITE_F16, "F16"))
    too_large = int(np.count_nonzero(values * 2.0**exponent > 65504))
    found = loss([FINITE_F16], "F16", "F16", exponent=exponent)
    assert found.changed == too_large
    assert found.largest_error == np.inf
    wide = recode(FINITE_F16, "F16", "F32", exponent)
    assert np.array_equal(to_float32(wide, "F32"), to_float32(FINITE_F16, "F16") * np.float32(2.0**exponent))
    assert compare(wide, "F32", FINITE_F16, "F16", exponent).changed == 0
    assert compare(wide, "F32", FINITE_F16, "F16").changed > 60000


def test_errors_are_in_the_checkpoint_s_unit() -> None:
    """Of a value that a power of two takes to where bfloat16 has fewer digits, as anywhere."""
    found = loss([f16(1 + 2.0**-10).view(np.uint16)], "F16", "BF16", exponent=8)
    assert (found.changed, found.largest_error) == (1, 2.0**-10)


def test_stacked_tensors_get_one_type(tmp_path: Path) -> None:
    """The first that holds all of them exactly; of the omitted rows nothing is asked."""
    small = tensor(tmp_path, "q", f16(1.0, 2.0), "F16")
    large = tensor(tmp_path, "v", f16(1.0, 300.0), "F16")
    odd = tensor(tmp_path, "k", np.concatenate([f16(1 + 2.0**-10, 60000.0), f16(1.0, 2.0)]), "F16")
    assert pick_type([Use(small), Use(large)], "auto", allow_rounding=False) == ("F16", 0)
    assert pick_type([Use(small), Use(large, 8)], "auto", allow_rounding=False) == ("BF16", 0)
    assert pick_type([Use(small, 8), Use(odd, 8)], "auto", allow_rounding=False) == ("F32", 0)
    assert pick_type([Use(small, 8), Use(odd, 8, omitted=1)], "auto", allow_rounding=False) == ("F16", 0)
    assert pick_type([Use(odd), Use(odd)], "bf16", allow_rounding=True)[1] == 4


def test_what_would_become_infinite_is_refused(tmp_path: Path) -> None:
    """Even where rounding is allowed."""
    large = tensor(tmp_path, "v", f16(1.0, 300.0), "F16")
    with pytest.raises(UserError, match="tensor v has values that are too large for f16"):
        pick_type([Use(large, 8)], "f16", allow_rounding=True)
