"""A task's section of the report: accuracies, errors, clocks, rates."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from eval.report.meanings import MEANINGS
from eval.report.section import (
    accuracy_table,
    device_section,
    greedy_section,
    mean_and_error,
    mean_and_pooled_error,
    share_of_prompt_rate,
    task_report,
)
from eval.runs.prediction import Prediction
from orin_runner.runner import DecodeStats, RunStats
from tests.support.paths import ROOT
from tests.support.predictions import prediction

NO_TOKENS = {"sent": 0, "unique": 0, "computed": 0, "checked": 0}


def test_groups_are_averaged_by_their_sizes() -> None:
    """3 of 4 even and 0 of 1 odd are 60 %, not the mean of 75 % and 0 %."""
    items = [prediction(2 * i, "A" if i else "B") for i in range(4)] + [prediction(1, "C")]
    total, table = accuracy_table(items)
    assert table["even"]["accuracy"] == 0.75
    assert table["odd"] == {"accuracy": 0.0, "stderr": 0.0, "items": 1}
    assert total["accuracy"] == 0.6


def test_a_group_without_a_name_is_a_group_like_any() -> None:
    """Its items are counted once in it and once in all."""
    items = [prediction(i, "A" if i else "B", group="" if i < 3 else "x") for i in range(5)]
    total, table = accuracy_table(items)
    assert (table[""]["items"], table["x"]["items"], total["items"]) == (3, 2, 5)
    assert (table[""]["accuracy"], total["accuracy"]) == (pytest.approx(2 / 3), 0.8)
    section = task_report(items, NO_TOKENS, {})
    assert (section["items"], section["accuracy"], set(section["groups"])) == (5, 0.8, {"", "x"})


def grouped(scores: list[list[float]]) -> list[Prediction]:
    """Items of as many groups, with a second metric that is one minus the first."""
    return [
        prediction(100 * g + i, group=f"g{g}", scores={"acc": score, "f1": 1.0 - score})
        for g, members in enumerate(scores)
        for i, score in enumerate(members)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_standard_errors_of_groups_are_pooled_as_the_harness_pools_them(seed: int) -> None:
    """lm-evaluation-harness's own functions on random groups, of right and wrong and of values in between."""
    metrics = pytest.importorskip("lm_eval.api.metrics")
    rng = random.Random(seed)
    value = rng.random if seed % 2 else lambda: float(rng.random() < 0.6)
    groups = [[value() for _ in range(rng.randint(2, 30))] for _ in range(rng.randint(1, 9))]
    sizes = [len(group) for group in groups]
    stderr = metrics.pooled_sample_stderr([metrics.mean_stderr(group) for group in groups], sizes)
    mean = metrics.aggregate_subtask_metrics([metrics.mean(group) for group in groups], sizes, weight_by_size=True)
    section = task_report(grouped(groups), NO_TOKENS, {})
    assert (section["accuracy"], section["stderr"]) == (pytest.approx(mean), pytest.approx(stderr))
    assert section["metrics"]["acc"] == {"value": section["accuracy"], "stderr": section["stderr"]}
    assert section["metrics"]["f1"] == {"value": pytest.approx(1 - mean), "stderr": pytest.approx(stderr)}
    for i, group in enumerate(groups):
        assert section["groups"][f"g{i}"]["stderr"] == pytest.approx(metrics.mean_stderr(group))


def test_groups_of_one_item() -> None:
    """They add nothing within groups; where there are no others, all items are one group."""
    assert mean_and_pooled_error([[1.0], [0.0, 1.0], [1.0]]) == (0.75, pytest.approx((0.5 / 1 / 4) ** 0.5))
    alone = [[1.0], [0.0], [1.0], [1.0]]
    assert mean_and_pooled_error(alone) == mean_and_error([1.0, 0.0, 1.0, 1.0])
    assert mean_and_pooled_error([[1.0]]) == (1.0, 0.0)
    section = task_report(grouped(alone), NO_TOKENS, {})
    assert section["stderr"] == pytest.approx(0.25)


def test_only_texts_without_any_step_needed_no_decoding() -> None:
    """Of texts with 0, 1, 2 and 0 steps two."""
    texts = [
        replace(prediction(i), decode_steps=steps, n_generated=4, drafted=2) for i, steps in enumerate((0, 1, 2, 0))
    ]
    assert greedy_section([prediction(9)]) is None, "a choice, or a run that did not say it"
    section = greedy_section([prediction(9), *texts])
    assert section == {"texts": 4, "decode_steps_per_text": 0.75, "drafted_share": 0.5}


def test_meanings_are_the_documents() -> None:
    """A tooltip is the row of its key in docs/run-folder.md, or begins it."""
    document = (ROOT / "docs" / "run-folder.md").read_text(encoding="utf-8").replace("`", "")
    for key, meaning in MEANINGS.items():
        assert re.search(rf"^\| {key} \| {re.escape(meaning)}[ .:]", document, re.MULTILINE), key


def test_standard_error_is_the_harnesss() -> None:
    """The sample standard deviation of 0/1 scores over the square root of n."""
    import statistics

    scores = [1] * 7 + [0] * 3
    assert mean_and_error(scores)[1] == pytest.approx(statistics.stdev(scores) / 10**0.5)


def test_the_challenge_clocks() -> None:
    """2024 counts data and inference, 2023 everything from the start of the process."""
    clocks = {"start": 1.0, "load": 10.0, "data": 2.0, "tokenize": 3.0, "plan": 0.5, "prefill": 4.0, "decode": 0.25}
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)] * 4, tokens, clocks)
    assert report["clocks"]["challenge 2024"] == 9.75
    assert report["clocks"]["challenge 2023"] == 20.75
    assert report["items_per_s"] == pytest.approx(4 / 7.75)
    assert report["computed_tokens_per_s"] == pytest.approx(200)


@pytest.mark.parametrize(("score", "rate"), [(0.75, 200), (5.0, 170)])
def test_the_time_in_which_answers_were_judged_is_counted_once(score: float, rate: float) -> None:
    """The device was computing then, for 4 + 0.25 s; where judging took longer, that is how long it took."""
    tokens = {"sent": 1, "unique": 1, "computed": 850, "checked": 0}
    report = task_report([prediction(0)], tokens, {"prefill": 4.0, "decode": 0.25, "score": score})
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
