"""What a model should take by a device's limits, by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from orin_runner.machine.nvml import Nvml
from orin_runner.machine.roofline import (
    ATTENTION_SHARE,
    KERNEL_SHARE,
    ORIN_MODES,
    PRODUCT_SHARE,
    Limits,
    TokenCost,
    gpu_limits,
)
from orin_runner.model.gguf_file import GGUFFile
from tests.support.nvml import FakeNvml, gpu
from tests.support.shapes import PHI3_MEDIUM, header_only


def limits(found: Limits) -> tuple[float, float, float]:
    """In TFLOP/s and GB/s, without the shares."""
    return (
        found.products / PRODUCT_SHARE / 1e12,
        found.attention / ATTENTION_SHARE / 1e12,
        found.kernels / KERNEL_SHARE / 1e9,
    )


def test_an_h100_by_what_nvml_knows() -> None:
    """132 SMs x 4,096 FLOP x 1.98 GHz, and 5,120 bits x 2,619 MHz x 2; NVIDIA says 3.35 TB/s."""
    (found,) = Nvml(FakeNvml(gpu(0))).gpus
    known = gpu_limits(found)
    assert known is not None
    assert limits(known) == pytest.approx((1070.5, 1070.5, 3352.3), rel=1e-4)
    assert limits(known.times(4)) == pytest.approx((4282.1, 4282.1, 13409.3), rel=1e-4)


@pytest.mark.parametrize("change", [{"cores": None}, {"bus": None}, {"most": None}, {"capability": (3, 5)}])
def test_of_a_gpu_that_is_not_known_nothing_is_assumed(change: dict[str, object]) -> None:
    (found,) = Nvml(FakeNvml(gpu(0, **change))).gpus
    assert gpu_limits(found) is None


def test_an_orins_modes() -> None:
    """NVIDIA's module data sheet: 26.7 TFLOP/s dense at MAXN, 10.0 in the default mode; 204.8 GB/s."""
    modes = {mode.name: limits(mode)[0] for mode in ORIN_MODES["orin-32gb"]}
    assert modes == pytest.approx({"MAXN": 26.7, "40W": 23.4, "30W": 10.0, "15W": 5.0}, rel=5e-3)
    assert all(limits(mode)[2] == pytest.approx(204.8) for modes in ORIN_MODES.values() for mode in modes)


def test_a_token_of_phi3_medium(tmp_path: Path) -> None:
    """40 layers of 5,120 values, 17,920 of the feed-forward part, 40 heads and 10 of keys, of 128."""
    cost = TokenCost.of(GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM)))
    assert cost.products == pytest.approx(2 * 13_960_238_080, rel=1e-3)
    assert cost.attention == 4 * 5_120 * 40
    assert cost.kernels == 40 * (52 * 5_120 + 22 * 5_120 + 20 * 1_280 + 18 * 17_920)
    assert cost.weights == pytest.approx(26_627 * 2**20, rel=1e-3)
    known = Limits("here", 1e12, 1e11, 1e11, 2e11, "assumed")
    expected = cost.products / 1e12 + 700 * cost.attention / 1e11 + cost.kernels / 1e11
    assert cost.token_s(known, 700) == pytest.approx(expected)
    assert cost.step_s(known) == pytest.approx(cost.weights / 2e11)


def test_the_shares_give_what_an_h100_measured(tmp_path: Path) -> None:
    """benchmarks/RESULTS.md: 15,873 tokens/s over MMLU's prompts, whose tokens have some 750 before them."""
    cost = TokenCost.of(GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM)))
    h100 = Limits.of_tensor_cores("H100", 989e12, 3.352e12, "NVIDIA's data sheet")
    assert 1 / cost.token_s(h100, 750) == pytest.approx(15_873, rel=0.05)
