"""The projection for an Orin: its arithmetic, and that its page is of today's costs and limits."""

from __future__ import annotations

import re

import pytest

from benchmarks.orin_projection import MODES, limits_table, parts_s, prompt_table, token_table
from orin_runner.machine.roofline import Limits, TokenCost
from orin_runner.model.gguf_file import GGUFFile
from tests.support.paths import SUBMISSION
from tests.support.shapes import PHI3_MEDIUM, header_only

PAGE = (SUBMISSION / "projection.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    return GGUFFile.open(header_only(tmp_path_factory.mktemp("shape") / "m.gguf", PHI3_MEDIUM))


def test_the_parts_of_a_token() -> None:
    """Each by its own limit: 2 GFLOP at 10 GFLOP/s, 3 MFLOP x 100 tokens at 1 GFLOP/s, 40 MB at 100 MB/s; ten times."""
    cost = TokenCost(products=2e9, attention=3e6, kernels=40e6, weights=10**9)
    limits = Limits("slow", products=10e9, attention=1e9, kernels=100e6, weights=1e9, basis="")
    assert parts_s(cost, limits, 10, 100) == pytest.approx((2, 3, 4))


def test_the_page_is_of_todays_costs_and_limits(file: GGUFFile) -> None:
    """But for what takes the public data to count."""
    cost = TokenCost.of(file)
    for table in (token_table(cost, file), limits_table(cost), prompt_table(cost)):
        assert f"\n\n{table}\n\n" in PAGE, "python -m benchmarks.orin_projection writes it"


def test_tasks_are_the_counted_tokens_times_what_one_takes(file: GGUFFile) -> None:
    """Seconds of the page from its own counts, to their precision: tokens before each are whole ones there."""
    cost = TokenCost.of(file)
    counted = re.findall(r"^\| ([^|]+) \| ([\d,]+) \| [\d,]+ \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert len(counted) == 2
    for title, *numbers in counted:
        items, unique, context = (int(number.replace(",", "")) for number in numbers)
        for mode in MODES:
            row = re.search(rf"^\| {title} \| {mode.name} \| .* \| ([\d.,]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
            assert row
            seconds = sum(parts_s(cost, mode, unique, context))
            assert float(row[1].replace(",", "")) == pytest.approx(seconds, rel=0.02)
            assert float(row[2]) == pytest.approx(seconds / items, rel=0.02)
