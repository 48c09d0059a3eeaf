"""A task's section of the report: accuracies, errors, clocks, rates."""

from __future__ import annotations

import pytest

from eval.report.section import accuracy_table, device_section, mean_and_error, share_of_prompt_rate, task_report
from orin_runner.runner import DecodeStats, RunStats
from tests.support.predictions import prediction


def test_groups_are_averaged_by_their_sizes() -> None:
    """3 of 4 even and 0 of 1 odd are 60 %, not the mean of 75 % and 0 %."""
    items = [prediction(2 * i, "A" if i else "B") for i in range(4)] + [prediction(1, "C")]
    table = accuracy_table(items)
    assert table["even"]["accuracy"] == 0.75
    assert table["odd"] == {"accuracy": 0.0, "stderr": 0.0, "items": 1}
    assert table[""]["accuracy"] == 0.6


def test_standard_error_is_the_harnesss() -> None:
    """The sample standard deviation of 0/1 scores over the square root of n."""
    import statistics

    scores = [1] * 7 + [0] * 3
    assert mean_and_error(scores)[1] == pytest.approx(statistics.stdev(scores) / 10**0.5)


def test_the_challenge_clocks() -> None:
    """2024 counts data and inference, 2023 everything from the start of the process."""
    clocks = {"start": 1.0, "load": 10.0, "data": 2.0, "tokenize": 3.0, "plan": 0.5, "prefill": 4.0, "decode": 0.25}
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)] * 4, tokens, clocks, 0, 0.0)
    assert report["clocks"]["challenge 2024"] == 9.75
    assert report["clocks"]["challenge 2023"] == 20.75
    assert report["items_per_s"] == pytest.approx(4 / 7.75)
    assert report["computed_tokens_per_s"] == pytest.approx(200)


@pytest.mark.parametrize(("score", "rate"), [(0.75, 200), (5.0, 170)])
def test_the_time_in_which_answers_were_judged_is_counted_once(score: float, rate: float) -> None:
    """The device was computing then, for 4 + 0.25 s; where judging took longer, that is how long it took."""
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)], tokens, {"prefill": 4.0, "decode": 0.25, "score": score}, 0, 0.0)
    assert report["computed_tokens_per_s"] == pytest.approx(rate)
    assert report["clocks"]["challenge 2024"] == pytest.approx(850 / rate)


def test_the_share_is_of_what_is_computed_for_the_answers() -> None:
    """900 tokens in 2 s, checks and near-ties apart, are 450 a second; of 500 that is 0.9."""
    clocks = {"prefill": 0.5, "check": 3.0, "decode": 6.5}
    stats = RunStats(clocks=clocks, settle_s=5.0, device=DecodeStats(tokens=900), checked=5000)
    section = {"device": device_section(stats)}
    assert share_of_prompt_rate(section, 500.0) == pytest.approx(0.9)
    assert share_of_prompt_rate({"device": device_section(RunStats())}, 500.0) is None
    assert share_of_prompt_rate({}, 500.0) is None, "a run of the reference"
