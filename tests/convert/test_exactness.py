"""Which values survive which type: every bfloat16 pattern, and the errors that are reported."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convert.exactness import compare, from_float32, loss, recode, to_float32

ALL = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16)
FINITE = ALL[(ALL & 0x7F80) != 0x7F80]


def test_every_bfloat16_pattern_widens_and_narrows_as_torch_does() -> None:
    """All 65,536 patterns, NaN payloads included."""
    values = to_float32(ALL, "BF16")
    expected = torch.from_numpy(ALL.view(np.int16)).view(torch.bfloat16).float().numpy()
    assert np.array_equal(values.view(np.uint32), expected.view(np.uint32))
    quiet = (ALL & 0x7F80) != 0x7F80
    assert np.array_equal(from_float32(values, "BF16")[quiet], ALL[quiet])


def test_8704_of_65280_finite_bfloat16_patterns_survive_float16() -> None:
    """Those between 2^-17 and 65,504 in magnitude, their exact subnormals, and both zeros."""
    found = loss([FINITE], "BF16", "F16")
    assert len(FINITE) == 65280
    assert len(FINITE) - found.changed == 8704
    values = np.abs(to_float32(FINITE, "BF16"))
    fits = (values >= 2.0**-17) & (values <= 65504)
    assert loss([FINITE[fits]], "BF16", "F16").changed == 0


def test_losses_are_counted_with_their_largest_error() -> None:
    """2^-30 vanishes, 2^-24 + 2^-31 loses a bit, 1e30 becomes infinite, 1.5 survives."""
    values = np.array([2.0**-30, 2.0**-24 * 1.0078125, 1e30, 1.5, -1.5], dtype=np.float32)
    bits = from_float32(values, "BF16")
    found = loss([bits[:2], bits[3:]], "BF16", "F16")
    assert found.changed == 2
    assert found.largest_error == pytest.approx(2.0**-30, rel=0.01)
    assert loss([bits], "BF16", "F16").changed == 3
    assert loss([bits[2:3]], "BF16", "F16").largest_error == np.inf


def test_float16_checkpoints_lose_bits_in_bfloat16() -> None:
    """1 + 2^-10 has more mantissa than bfloat16 holds."""
    bits = np.array([1 + 2.0**-10, 1.0], dtype=np.float16).view(np.uint16)
    found = loss([bits], "F16", "BF16")
    assert (found.changed, found.largest_error) == (1, 2.0**-10)


@pytest.mark.parametrize(("source", "torch_type"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_rounding_is_to_nearest_even(source: str, torch_type: torch.dtype) -> None:
    """As torch rounds, over the whole range of float32."""
    values = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(torch_type).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(from_float32(values, source), expected)


def test_recode_and_compare_work_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunking must not lose or repeat values at the seams."""
    monkeypatch.setattr("convert.exactness.CHUNK_VALUES", 7)
    bits = FINITE[:5000].reshape(50, 100)
    wide = recode(bits, "BF16", "F32")
    assert compare(wide, "F32", bits, "BF16").changed == 0
    wide[49, 99] ^= 1
    assert compare(wide, "F32", bits, "BF16").changed == 1
