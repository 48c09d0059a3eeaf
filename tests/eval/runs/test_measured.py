"""What a run's samples come to: peaks, energy and what it was spent on, and each GPU."""

from __future__ import annotations

import pytest

from eval.runs.measured import energy, gpus, summary
from eval.runs.shapes import REPORT
from tests.support.samples import gpu, sample


def test_energy_is_power_times_time_where_power_is_known() -> None:
    """10 W rising to 30 W in 2 s, then 1 s unknown on both sides of a gap, then in another part 40 W for 3 s."""
    samples = [
        sample(0, 0.0, watts=10.0, host_mib=5.0),
        sample(0, 2.0, watts=30.0, host_mib=9.0, gpu_mib=7.0),
        sample(0, 3.0, machine_mib=11.0),
        sample(0, 4.0, watts=50.0),
        sample(1, 0.0, watts=40.0),
        sample(1, 3.0, watts=40.0),
    ]
    found = summary(samples, power_source="here")
    assert found == {
        "samples": 6,
        "seconds": 7.0,
        "unified": False,
        "peak_host_mib": 9.0,
        "peak_machine_mib": 11.0,
        "peak_gpu_mib": 7.0,
        "peak_watts": 50.0,
        "mean_watts": 32.0,  # 160 J in 5 s
        "joules": 160.0,
        "power_seconds": 5.0,
        "power_source": "here",
        "energy": {
            "t": {"joules": 160.0, "joules_per_item": None, "joules_per_1000_tokens": None, "items_per_wh": None}
        },
        "gpus": [],
    }


def test_what_was_never_read_is_null() -> None:
    found = summary([sample(0, 0.0), sample(0, 1.0)])
    assert found is not None
    names = ("peak_host_mib", "peak_machine_mib", "peak_gpu_mib", "peak_watts", "mean_watts", "joules", "power_source")
    assert {found[name] for name in names} == {None}
    assert (found["energy"], found["gpus"]) == ({}, [])
    assert summary([]) is None


def test_energy_is_told_by_task() -> None:
    """100 W for 36 s are 1 Wh: 20 items of 4,000 tokens. Then 50 W for 20 s, and 4 items of another task."""
    samples = [
        sample(0, 0.0, task=None, watts=100.0),
        sample(0, 5.0, task="a", watts=100.0),
        sample(0, 30.0, task="a", watts=100.0, done=12, computed=3000),
        sample(0, 41.0, task="a", watts=100.0, done=20, computed=4000),
        sample(0, 41.0, task="b", watts=50.0),
        sample(0, 61.0, task="b", watts=50.0, done=4, computed=8000),
    ]
    assert energy(samples) == {
        "a": {"joules": 3600.0, "joules_per_item": 180.0, "joules_per_1000_tokens": 900.0, "items_per_wh": 20.0},
        "b": {"joules": 1000.0, "joules_per_item": 250.0, "joules_per_1000_tokens": 125.0, "items_per_wh": 14.4},
    }


def test_energy_is_of_what_was_answered_while_it_was_known() -> None:
    """Neither of a gap, nor of the time when other machines took part; a resumed run's parts are added."""
    samples = [
        sample(0, 0.0, watts=10.0),
        sample(0, 10.0, watts=10.0, done=10),
        sample(0, 20.0, done=90),
        sample(0, 30.0, watts=10.0, done=100),
        sample(1, 0.0, watts=10.0, elsewhere=True),
        sample(1, 10.0, watts=10.0, elsewhere=True, done=500),
        sample(2, 0.0, watts=10.0),
        sample(2, 10.0, watts=10.0, done=30),
    ]
    found = energy(samples)["t"]
    assert (found["joules"], found["joules_per_item"]) == (200.0, 5.0)
    assert energy(samples[4:6]) == {}


def test_each_gpu_is_told_apart() -> None:
    """Over 10 s: one 100 W then 300 W, slowed down for half of the time, and one that knows its memory alone."""
    first = [
        gpu("0", mib=10.0, own_mib=8.0, watts=100.0, load=0.0, sm_mhz=300.0, celsius=30.0, throttled=[]),
        gpu("0", mib=50.0, own_mib=48.0, watts=300.0, load=100.0, sm_mhz=1700.0, celsius=71.0, throttled=["thermal"]),
        gpu("0", mib=40.0, watts=300.0, load=100.0, sm_mhz=1700.0, celsius=70.0, throttled=["power cap", "thermal"]),
    ]
    second = [gpu("1", name="other", mib=mib) for mib in (5.0, 4.0, 3.0)]
    samples = [sample(0, 5.0 * k, gpus=[first[k], second[k]]) for k in range(3)]
    assert gpus(samples) == [
        {
            "id": "0",
            "name": "card",
            "peak_mib": 50.0,
            "peak_own_mib": 48.0,
            "mean_watts": 250.0,
            "mean_load": 75.0,
            "mean_sm_mhz": 1350.0,
            "max_celsius": 71.0,
            "throttled_s": {"power cap": 2.5, "thermal": 7.5},
        },
        {
            "id": "1",
            "name": "other",
            "peak_mib": 5.0,
            "peak_own_mib": None,
            "mean_watts": None,
            "mean_load": None,
            "mean_sm_mhz": None,
            "max_celsius": None,
            "throttled_s": None,
        },
    ]


def test_a_gpu_of_one_part_is_not_read_in_another() -> None:
    """A run that is resumed on another card: neither's time is counted for the other, nor the time between."""
    samples = [sample(0, float(t), gpus=[gpu("0", watts=100.0)]) for t in range(3)]
    samples += [sample(1, float(t), gpus=[gpu("0", name="other", watts=50.0)]) for t in range(9)]
    assert [(each["name"], each["mean_watts"]) for each in gpus(samples)] == [("card", 100.0), ("other", 50.0)]


@pytest.mark.parametrize("celsius", [-5.0, 0.0, 80.0])
def test_what_is_measured_can_be_read_back(celsius: float) -> None:
    """A cold card, too."""
    samples = [sample(0, float(t), watts=9.0, done=t, gpus=[gpu("0", celsius=celsius, throttled=[])]) for t in range(3)]
    measured = summary(samples)
    REPORT.check({"measured": measured})
    assert measured is not None
    assert measured["gpus"][0]["max_celsius"] == celsius
    assert measured["gpus"][0]["throttled_s"] == {}
