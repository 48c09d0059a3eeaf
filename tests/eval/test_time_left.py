"""The time left that a run says, against simulated runs whose end is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from eval.progress import Status
from eval.sent_tokens import AskedTokens
from eval.time_left import TimeLeft

BATCH = 512
SIDE_BY_SIDE = 16
BOUND = 200


@dataclass(frozen=True)
class Simulated:
    """A task: its items, the tokens of each one's prompt, the length of each one's text.

    A batch takes ``token_s`` for each of its tokens and ``step_s`` more if a text goes on in it.
    """

    name: str
    prompts: list[int]
    lengths: list[int]
    token_s: float = 1e-3
    step_s: float = 0.05

    @property
    def asked(self) -> AskedTokens:
        n = len(self.prompts)
        texts = n if any(self.lengths) else 0
        return AskedTokens(n, sum(self.prompts), sum(self.prompts), 0.0, texts, texts * BOUND, texts * BOUND, 0.0)

    def statuses(self, now: float) -> Iterator[tuple[float, Status]]:
        """What the task says after each batch, and when."""
        waiting, running = list(zip(self.prompts, self.lengths, strict=True)), list[list[int]]()
        done = computed = steps = 0
        bound = BOUND if any(self.lengths) else 0
        status = Status(0, 0, len(self.prompts), 0, sum(self.prompts), 0, 0, sum(self.prompts), 0, 0, bound)
        yield now, status
        while waiting or running:
            tokens = len(running)
            steps += len(running)
            now += self.step_s if running else 0.0
            for text in running:
                text[0] += 1
            done += sum(so_far == length for so_far, length in running)
            running = [text for text in running if text[0] < text[1]]
            while waiting and tokens < BATCH and len(running) < SIDE_BY_SIDE:
                prompt, length = waiting[0]
                part = min(prompt, BATCH - tokens)
                tokens += part
                if part < prompt:
                    waiting[0] = (prompt - part, length)
                    continue
                waiting.pop(0)
                if length:
                    running.append([0, length])
                else:
                    done += 1
            now += self.token_s * tokens
            computed += tokens
            asked = sum(self.prompts)
            yield now, Status(done, 0, len(self.prompts), computed, asked, 0, 0, asked, 0, steps, bound)


def ratios(tasks: list[Simulated], measured: dict[str, float], steps: dict[str, float]) -> list[tuple[float, float]]:
    """(part of the run, seconds said to be left / seconds that were left)."""
    time_left = TimeLeft({task.name: task.asked for task in tasks}, measured, steps)
    now, said = 5.0, []
    for task in tasks:
        time_left.begin(task.name, now)
        for moment, status in task.statuses(now):
            now = moment
            said.append((now, time_left.left(status, now)))
    return [((at - 5) / (now - 5), left / (now - at)) for at, left in said if left is not None and at < now]


def scores(name: str, n: int, seed: int) -> Simulated:
    return Simulated(name, np.random.default_rng(seed).integers(20, 300, n).tolist(), [0] * n)


def texts(name: str, n: int, seed: int, kind: str) -> Simulated:
    """Texts that stop at any token alike, that are of one length, or that never stop."""
    rng = np.random.default_rng(seed)
    lengths: dict[str, Callable[[], list[int]]] = {
        "any": lambda: np.minimum(rng.geometric(1 / 40, n), BOUND).tolist(),
        "one": lambda: [60] * n,
        "never": lambda: [BOUND] * n,
    }
    return Simulated(name, rng.integers(20, 300, n).tolist(), lengths[kind]())


def within(found: list[tuple[float, float]], first: float, last: float) -> list[float]:
    return [ratio for part, ratio in found if first <= part <= last]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_told_to_a_tenth(seed: int) -> None:
    """As soon as the second batch is computed."""
    found = within(ratios([scores("mmlu", 300, seed)], {}, {}), 0.05, 0.95)
    assert len(found) > 50
    assert all(0.9 < ratio < 1.1 for ratio in found)


@pytest.mark.parametrize("kind", ["any", "one", "never"])
@pytest.mark.parametrize("expected", [20.0, 60.0, 180.0])
@pytest.mark.parametrize("seed", range(3))
def test_texts_are_told_within_a_factor_of_two(kind: str, expected: float, seed: int) -> None:
    """From a tenth of the run on, whatever was expected; in the last fifth a few long ones decide."""
    found = within(ratios([texts("bbh", 300, seed, kind)], {}, {"bbh": expected}), 0.1, 0.8)
    assert len(found) > 100
    assert all(0.5 < ratio < 2 for ratio in found)


@pytest.mark.parametrize("seed", range(3))
def test_tasks_to_come_count(seed: int) -> None:
    """Those that were measured before by that, the others by the pace of those before and the length of their texts."""
    tasks = [texts("bbh", 200, seed, "any"), scores("mmlu", 200, seed), texts("drop", 100, seed, "any")]
    steps = {"bbh": 40.0, "drop": 40.0}
    found = within(ratios(tasks, {}, steps), 0.1, 0.8)
    assert len(found) > 100
    assert all(0.5 < ratio < 2 for ratio in found)
    *_, (end, _) = tasks[2].statuses(0.0)
    slower = [*tasks[:2], Simulated("drop", tasks[2].prompts, tasks[2].lengths, token_s=0.01)]
    *_, (slow_end, _) = slower[2].statuses(0.0)
    assert slow_end > 3 * end
    begins = sum(max(moment for moment, _ in task.statuses(0.0)) for task in slower[:2])
    before = 0.9 * begins / (begins + slow_end)
    assert all(0.5 < ratio < 2 for ratio in within(ratios(slower, {"drop": slow_end}, steps), 0.1 * before, before))
    assert all(ratio < 0.5 for ratio in within(ratios(slower, {}, steps), 0.1 * before, before))


def test_nothing_is_said_before_anything_is_known() -> None:
    """Of the first batch alone, or of less than a hundredth of the prompts."""
    time_left = TimeLeft({}, {}, {})
    time_left.begin("mmlu", 100.0)
    assert time_left.left(Status(0, 0, 9, 0, 90_000, 0, 0, 90_000), 100.0) is None
    assert time_left.left(Status(0, 0, 9, 500, 90_000, 0, 0, 90_000), 103.0) is None
    assert time_left.left(Status(0, 0, 9, 750, 90_000, 0, 0, 90_000), 104.0) is None
    # By hand: 250 tokens a second since the first batch, 89,000 are left.
    assert time_left.left(Status(0, 0, 9, 1_000, 90_000, 0, 0, 90_000), 105.0) == pytest.approx(89_000 / 250)
    assert time_left.share(15.0, 105.0) == pytest.approx(0.25)


def test_what_an_earlier_part_has_answered_is_not_to_come() -> None:
    """By hand: 10 of 20 items were answered before, 5 now; texts took 100 tokens."""
    time_left = TimeLeft({}, {}, {"bbh": 20.0})
    time_left.begin("bbh", 0.0)
    time_left.left(Status(10, 0, 20, 0, 1_000, 0, 10, 1_000, 0, 0, 50.0), 0.0)
    time_left.left(Status(10, 0, 20, 500, 1_000, 0, 10, 1_000, 0, 0, 50.0), 3.0)
    time_left.left(Status(10, 0, 20, 1_000, 1_000, 0, 10, 1_000, 0, 0, 50.0), 4.0)
    left = time_left.left(Status(15, 0, 20, 1_100, 1_000, 0, 10, 1_000, 0, 100, 50.0), 6.0)
    # 500 tokens of prompts took 1 s; 100 of texts 2 s, which is 1.8 s more, over them and the 32 of doubt.
    length = (100 + 8 * 20) / (5 + 8)
    assert left == pytest.approx(5 * length * (1 / 500 + 1.8 / 132))


def test_what_the_prompt_cache_gives_is_not_to_come() -> None:
    """By hand: of 1,000 tokens 600 were restored and 100 computed, at 50 a second."""
    time_left = TimeLeft({}, {}, {})
    time_left.begin("mmlu", 0.0)
    time_left.left(Status(0, 0, 9, 50, 1_000, 0, 0, 1_000, 300), 1.0)
    assert time_left.left(Status(0, 0, 9, 100, 1_000, 0, 0, 1_000, 600), 2.0) == pytest.approx(300 / 50)
