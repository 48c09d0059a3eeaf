"""What a run's samples draw: rates that add up, peaks that stay, nothing where nothing is known."""

from __future__ import annotations

import pytest

from eval.report.charts import MAX_POINTS, Drawn, axis_top, charts, lines, throughput
from tests.support.samples import gpu, sample


def area(line: list[tuple[float, float]]) -> float:
    return sum((x - before) * y for (before, _), (x, y) in zip(line[::2], line[1::2], strict=True))


def test_throughput_adds_up_to_the_tokens() -> None:
    """Decode calls of 5 s, sampled each second: no spikes of what the sampling did, and no token lost or invented."""
    computed = [(0, 0.0)] * 5 + [(2000, 5.0)] * 5 + [(4000, 10.0)] * 3
    samples = [sample(0, float(t), computed=c, computed_at=at) for t, (c, at) in enumerate(computed)]
    (line,) = throughput(samples, 0.0, 1.0)
    assert [y for x, y in line if x < 10] == pytest.approx([400] * 19)
    assert [y for x, y in line if x > 10] == [0.0] * 3
    assert area(line) == pytest.approx(4000)


def test_throughput_of_several_tasks_and_parts() -> None:
    """Each task counts from 0; a resumed part begins where the one before ended."""
    first = [
        sample(0, 0.0, task=None),
        sample(0, 0.0, task="a"),
        sample(0, 2.0, task="a", computed=100, computed_at=2.0),
    ]
    first += [sample(0, 3.0, task="b", computed_at=3.0), sample(0, 4.0, task="b", computed=50, computed_at=4.0)]
    second = [sample(1, 0.0), sample(1, 2.0, computed=30, computed_at=2.0)]
    found = lines([*first, *second], unified=False)
    assert found is not None
    assert (found["seconds"], found["resumed"]) == (6.0, [4.0])
    one, two = found["lines"]["tokens_per_s"]
    assert [y for _, y in one] == pytest.approx([50, 50, 50, 50, 0, 0, 50, 50])
    assert (two[0][0], two[-1][0], area(two)) == (4.0, 6.0, pytest.approx(30))


def test_lines_are_broken_where_nothing_is_known() -> None:
    watts = [None, 5.0, 6.0, None, 7.0, 8.0]
    samples = [sample(0, float(t), watts=w, machine_mib=9.0) for t, w in enumerate(watts)]
    found = lines(samples, unified=False)
    assert found is not None
    assert found["lines"] == {"watts": [[(1.0, 5.0), (2.0, 6.0)], [(4.0, 7.0), (5.0, 8.0)]]}
    unified = lines(samples, unified=True)
    assert unified is not None
    assert unified["lines"]["machine_mib"] == [[(float(t), 9.0) for t in range(6)]]
    assert lines(samples[:1], unified=False) is None


def test_a_long_run_keeps_its_peaks_in_few_points() -> None:
    """Three hours: the highest value is drawn, and the tokens still add up."""
    n = 3 * 3600
    samples = [
        sample(0, float(t), host_mib=500.0 if t == 7777 else 100.0, computed=9 * t, computed_at=float(t))
        for t in range(n)
    ]
    found = lines(samples, unified=False)
    assert found is not None
    (memory,), (tokens,) = found["lines"]["host_mib"], found["lines"]["tokens_per_s"]
    assert max(y for _, y in memory) == 500.0
    assert len(memory) <= MAX_POINTS + 1
    assert len(tokens) <= 2 * MAX_POINTS
    assert area(tokens) == pytest.approx(9 * (n - 1), rel=1e-3)


def test_charts_share_axes_and_leave_out_what_nobody_knows() -> None:
    """Two runs, one without power; a third without samples. Points lie in the figure, the highest under its top."""
    one = lines([sample(0, 0.0, host_mib=70.0, watts=10.0), sample(0, 10.0, host_mib=75.0, watts=41.0)], unified=False)
    two = lines([sample(0, 0.0, host_mib=20.0), sample(0, 5.0, host_mib=25.0)], unified=False)
    memory, power = charts([one, None, two])
    assert (memory["key"], memory["top"], memory["seconds"]) == ("host_mib", 80.0, 10.0)
    first, third = Drawn(0, "", 0, "0.0,125.0 1000.0,62.5"), Drawn(2, "", 2, "0.0,750.0 500.0,687.5")
    assert memory["lines"] == [first, third]
    assert (power["key"], power["top"], [line.run for line in power["lines"]]) == ("watts", 50.0, [0])
    assert charts([None, None]) == []


def test_each_gpu_has_its_line() -> None:
    """In place of the total; what one of them does not know is a gap in its own line alone."""
    watts = [(5.0, 1.0), (6.0, None), (7.0, 3.0), (8.0, 4.0)]
    samples = [
        sample(0, float(t), watts=None if two is None else one + two, gpus=[gpu("0", watts=one), gpu("3", watts=two)])
        for t, (one, two) in enumerate(watts)
    ]
    found = lines(samples, unified=False)
    assert found is not None
    assert found["gpus"] == [
        {"name": "GPU 0", "lines": {"watts": [[(0.0, 5.0), (1.0, 6.0), (2.0, 7.0), (3.0, 8.0)]]}},
        {"name": "GPU 3", "lines": {"watts": [[(2.0, 3.0), (3.0, 4.0)]]}},
    ]
    (power,) = charts([found])
    assert (power["title"], power["top"]) == ("Power", 8.0)
    assert [(line.gpu, line.colour) for line in power["lines"]] == [("GPU 0", 0), ("GPU 3", 1)]
    (power,) = charts([None, found])
    assert [(line.run, line.gpu, line.colour) for line in power["lines"]] == [(1, "GPU 0", 1), (1, "GPU 3", 1)]


def test_a_gpu_that_came_with_a_later_part_begins_there() -> None:
    """A run that was resumed on another card."""
    samples = [sample(0, float(t), gpus=[gpu("0", celsius=40.0)]) for t in range(3)]
    samples += [sample(1, float(t), gpus=[gpu("0", name="other", celsius=50.0)]) for t in range(3)]
    found = lines(samples, unified=False)
    assert found is not None
    assert [[line[0][0] for line in each["lines"]["gpu_celsius"]] for each in found["gpus"]] == [[0.0], [2.0]]


@pytest.mark.parametrize("value", [0.0, 0.03, 1.0, 1.01, 9.99, 10.0, 99.0, 13763.0, 28713.0])
def test_an_axis_ends_above_its_values(value: float) -> None:
    """At a round number, less than half as much again above."""
    top = axis_top(value)
    assert top >= value * (1 - 1e-9)
    assert top <= 1.5 * value + 1e-9 or value == 0.0
    assert float(f"{top:.2g}") == top


@pytest.mark.parametrize("value", [5e-324, 1e-310, 0.0])
def test_a_reading_that_is_next_to_nothing_has_an_axis(value: float) -> None:
    """The power of ten below the smallest double is 0."""
    assert axis_top(value) == 1.0
