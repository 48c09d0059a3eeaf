"""Clocks and rates of a section: what was measured, what stands in for it, and of which items they are."""

from __future__ import annotations

import pytest

from eval.report.section import device_section, greedy_section, task_report, token_counts
from orin_runner.runner import DecodeStats, RunStats
from tests.support.predictions import prediction

TOKENS = {"sent": 90, "unique": 70, "computed": 60, "checked": 5}
STAGES = {"start": 100.0, "load": 10.0, "data": 1.0, "tokenize": 2.0, "plan": 4.0, "check": 8.0, "decode": 16.0}


def test_stages_are_added_up_where_nothing_was_measured() -> None:
    """The tree and the noise belong to the inference."""
    clocks = task_report([prediction(0)] * 4, TOKENS, STAGES)["clocks"]
    assert clocks["challenge 2024 without data"] == 28.0
    assert clocks["challenge 2024"] == 31.0
    assert clocks["challenge 2023"] == 141.0


def test_what_was_measured_comes_first() -> None:
    """Inference from its ends, the process from its start; the latter's own name is not shown."""
    section = task_report([prediction(0)] * 4, TOKENS, {**STAGES, "inference": 30.0, "process": 200.0})
    clocks = section["clocks"]
    assert clocks["challenge 2024 without data"] == 30.0
    assert clocks["challenge 2024"] == 33.0
    assert clocks["challenge 2023"] == 200.0
    assert "process" not in clocks
    assert section["items_per_s"] == pytest.approx(4 / 32)
    assert section["computed_tokens_per_s"] == pytest.approx(60 / 16)


def test_rates_are_of_the_items_that_have_clocks() -> None:
    """Three of four items were answered by a part that left no record."""
    section = task_report([prediction(0)] * 4, TOKENS, {**STAGES, "inference": 30.0}, answered=1)
    assert section["items_per_s"] == pytest.approx(1 / 32)
    assert section["items"] == 4


def test_nothing_is_divided_by_no_time() -> None:
    section = task_report([prediction(0)], {"computed": 0}, {})
    assert (section["items_per_s"], section["computed_tokens_per_s"]) == (0.0, 0.0)


def test_tokens_are_the_runners() -> None:
    """The prompt cache only where it gave something."""
    stats = RunStats(sent=9, unique=7, computed=6, checked=5)
    assert token_counts(stats) == {"sent": 9, "unique": 7, "computed": 6, "checked": 5}
    stats.restored = 4
    assert token_counts(stats)["restored"] == 4


def test_seconds_of_the_device() -> None:
    """Prefill and decode; of the answers without what was computed again."""
    device = DecodeStats(tokens=60, steps=7, calls=3, rows=40, submit_s=1.0, alone_s=0.5, wait_s=2.0, idle_s=0.25)
    stats = RunStats(clocks={"prefill": 4.0, "decode": 16.0, "check": 8.0}, settle_s=3.0, device=device)
    assert device_section(stats) == {
        "seconds": 20.0,
        "answer_tokens": 60,
        "step_tokens": 7,
        "answer_s": 17.0,
        "calls": 3,
        "rows": 40,
        "submit_s": 1.0,
        "alone_s": 0.5,
        "wait_s": 2.0,
        "idle_s": 0.25,
    }


def test_greedy_figures_by_hand() -> None:
    """Texts of 4, 6 and 10 tokens with 0, 1 and 8 steps, 4, 5 and 0 of their tokens drafted; a choice is none."""
    texts = [
        prediction(i, n_generated=n, decode_steps=steps, drafted=drafted)
        for i, (n, steps, drafted) in enumerate([(4, 0, 4), (6, 1, 5), (10, 8, 0)])
    ]
    assert greedy_section([*texts, prediction(3)]) == {
        "texts": 3,
        "decode_steps_per_text": 3.0,
        "drafted_share": 0.45,
    }
    assert greedy_section([prediction(0)]) is None


def test_an_item_without_a_value_is_worth_nothing() -> None:
    """One that was not answered has no scores in an old run."""
    items = [prediction(0, scores={"acc": 1.0, "f1": 0.5}), prediction(2, scores={})]
    metrics = task_report(items, TOKENS, {})["metrics"]
    assert {name: found["value"] for name, found in metrics.items()} == {"acc": 0.5, "f1": 0.25}
