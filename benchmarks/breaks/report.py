"""A run's accuracies, errors, clocks and rates, and the sums of its parts."""

from __future__ import annotations

from benchmarks.breaks.form import Break

ACCOUNTING = "tests/eval/test_accounting.py::test_"
CLOCKS = "tests/eval/report/test_clocks.py::test_"
SECTION = "tests/eval/report/test_section.py::test_"
COUNTS = "tests/orin_runner/engine/test_counts.py::test_"
FILE = "eval/report/section.py"

REPORT = (
    Break(
        "standard error: of the population, not of the sample",
        FILE,
        "statistics.stdev(scores, mean)",
        "statistics.pstdev(scores, mean)",
        (f"{SECTION}standard_error_is_the_harnesss",),
    ),
    Break(
        "standard error: pooled with too few degrees of freedom",
        FILE,
        "within = len(scores) - len(groups)",
        "within = len(scores) - 1",
        (f"{SECTION}groups_of_one_item",),
    ),
    Break(
        "standard error: deviations from the mean of all",
        FILE,
        "means = [sum(group) / len(group) for group in groups]",
        "means = [sum(scores) / len(scores) for group in groups]",
        (f"{SECTION}groups_of_one_item",),
    ),
    Break(
        "metrics: an item without a value counts as right",
        FILE,
        "p.scores.get(name, 0.0)",
        "p.scores.get(name, 1.0)",
        (f"{CLOCKS}an_item_without_a_value_is_worth_nothing",),
    ),
    Break(
        "failed: items with an answer are counted",
        FILE,
        "prediction.failed is not None for",
        "prediction.failed is None for",
        (f"{ACCOUNTING}what_memory_denied_is_asked_again_and_was_not_answered_before",),
    ),
    Break(
        "clocks: the 2024 clock without data",
        FILE,
        'CHALLENGE_2024: spent["data"] + inference',
        "CHALLENGE_2024: inference",
        (f"{SECTION}the_challenge_clocks",),
    ),
    Break(
        "clocks: the 2024 clock without data has the token ids in it",
        FILE,
        "CHALLENGE_2024_BARE: bare",
        "CHALLENGE_2024_BARE: inference",
        (f"{CLOCKS}stages_are_added_up_where_nothing_was_measured",),
    ),
    Break(
        "clocks: the 2023 clock is added up although it was measured",
        FILE,
        'spent["process"] or spent["start"]',
        'spent["start"]',
        (f"{CLOCKS}what_was_measured_comes_first",),
    ),
    Break(
        "clocks: the 2023 clock without loading",
        FILE,
        'spent["load"] + spent["data"] + inference',
        'spent["data"] + inference',
        (f"{SECTION}the_challenge_clocks",),
    ),
    Break(
        "clocks: judging is added to the inference that it passes within",
        FILE,
        'max(spent["prefill"] + spent["decode"], spent["score"])',
        'spent["prefill"] + spent["decode"] + spent["score"]',
        (f"{SECTION}the_time_in_which_answers_were_judged_is_counted_once",),
    ),
    Break(
        "rates: items a second without the token ids' time",
        FILE,
        'inference = spent["tokenize"] + bare',
        "inference = bare",
        (f"{CLOCKS}what_was_measured_comes_first",),
    ),
    Break(
        "rates: tokens a second of tokens that were not computed",
        FILE,
        'tokens["computed"] / answers',
        'tokens["unique"] / answers',
        (f"{CLOCKS}what_was_measured_comes_first",),
    ),
    Break(
        "rates: the share of the prompt rate counts what was settled",
        FILE,
        "round(seconds - stats.settle_s, 4)",
        "round(seconds, 4)",
        (f"{CLOCKS}seconds_of_the_device",),
    ),
    Break(
        "greedy: drafted share is of the texts, not of their tokens",
        FILE,
        "max(1, tokens)",
        "max(1, len(steps))",
        (f"{CLOCKS}greedy_figures_by_hand",),
    ),
    Break(
        "parts: the last part's clocks instead of all",
        "eval/runs/part.py",
        "self.clocks.get(name, 0.0) + other.clocks.get(name, 0.0)",
        "other.clocks.get(name, 0.0)",
        (f"{ACCOUNTING}a_resumed_run_says_what_all_its_parts_took",),
    ),
    Break(
        "parts: the last part's items instead of all",
        "eval/runs/part.py",
        "self.items + other.items",
        "other.items",
        (f"{ACCOUNTING}a_resumed_run_says_what_all_its_parts_took",),
    ),
    Break(
        "parts: what an interrupted part asked in vain stays sent",
        "eval/evaluate.py",
        "cost.stats.sent - cost.asked_sent",
        "cost.stats.sent",
        (f"{ACCOUNTING}an_interrupted_run_says_what_passed",),
    ),
    Break(
        "parts: unique tokens of each part are added up",
        "eval/evaluate.py",
        "cost.stats.unique - cost.asked_unique",
        "cost.stats.unique",
        (f"{ACCOUNTING}a_resumed_run_says_what_all_its_parts_took",),
    ),
    Break(
        "parts: an item that memory denied was answered before",
        "eval/evaluate.py",
        "len(ordered) - total.items - answers.left_out",
        "len(ordered) - total.items",
        (f"{ACCOUNTING}what_memory_denied_is_asked_again_and_was_not_answered_before",),
    ),
    Break(
        "workers: tokens computed twice are those of the last one",
        "orin_runner/runner.py",
        'names = ("sent", "unique", "computed", "checked", ',
        'names = ("sent", "unique", "computed", ',
        (f"{COUNTS}statistics_of_two_parts_are_sums",),
    ),
    Break(
        "workers: the smaller near-tie of two",
        "orin_runner/runner.py",
        "max(self.near_tie, other.near_tie)",
        "min(self.near_tie, other.near_tie)",
        ("tests/orin_runner/engine/test_near_tie_sizes.py::test_two_samples_are_one",),
    ),
    Break(
        "workers: a dead one's tokens are forgotten",
        "orin_runner/workers/costs.py",
        "self.earlier = _sum(self.earlier, self.own)",
        "self.earlier = _sum(self.earlier)",
        ("tests/orin_runner/workers/test_supervisor.py::test_two_deaths_lose_and_repeat_nothing",),
    ),
    Break(
        "clocks: the process begins a tenth as late as it does",
        "orin_runner/process_clock.py",
        'os.sysconf("SC_CLK_TCK")',
        '(10 * os.sysconf("SC_CLK_TCK"))',
        (f"{ACCOUNTING}the_process_begins_where_the_kernel_says_it_does",),
    ),
    Break(
        "progress: resumed items are part of the rate",
        "eval/progress.py",
        "(self.done - self.resumed) / seconds",
        "self.done / seconds",
        ("tests/eval/test_progress.py::test_the_words_of_a_task",),
    ),
    Break(
        "progress: what is saved is of the unique tokens",
        "eval/progress.py",
        "max(self.computed, self.unique) / self.sent",
        "self.unique / self.sent",
        ("tests/eval/test_progress.py::test_what_is_computed_twice_is_not_saved",),
    ),
)
