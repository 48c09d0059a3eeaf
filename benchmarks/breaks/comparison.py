"""What ``diff`` says: its rule, tests, intervals, causes and shares."""

from __future__ import annotations

from benchmarks.breaks.form import Break

DIFF = "tests/eval/test_diff.py::test_"
CAUSES = "tests/eval/test_diff_causes.py::test_"
RULE = "tests/eval/test_diff_rule.py::test_"
INTERVALS = "tests/eval/test_intervals.py::test_"

COMPARISON = (
    Break(
        "diff: gained items are lost",
        "eval/diff.py",
        '"lost": sum(a < b for',
        '"lost": sum(a > b for',
        (f"{CAUSES}flips_are_counted_per_task_and_in_all",),
    ),
    Break(
        "diff: points are fractions",
        "eval/diff.py",
        "return 100 * total / max(1, len(items))",
        "return total / max(1, len(items))",
        (f"{DIFF}diff_counts_drop_agreement_flips_and_windows",),
    ),
    Break(
        "diff: scores are binary fractions, not decimals",
        "eval/diff.py",
        "Fraction(repr(score)) * n",
        "Fraction(score) * n",
        (f"{RULE}at_most_is_exact_for_other_scores",),
    ),
    Break(
        "diff: tasks weigh by their items in the mean",
        "eval/diff.py",
        "mean = sum(drops.values(), Fraction(0)) / max(1, len(drops))",
        "mean = exact_drop([pair for items in pairs.values() for pair in items])",
        (f"{RULE}the_average_drop_weighs_tasks_alike",),
    ),
    Break(
        "diff: an item as long as the window is beyond it",
        "eval/diff.py",
        "if pair.n_context > window])",
        "if pair.n_context >= window])",
        ("tests/eval/test_diff_edges.py::test_an_item_as_long_as_the_window_is_within_it",),
    ),
    Break(
        "diff: the prompt alone crosses the window",
        "eval/pairs.py",
        "return side.n_tokens if longest is None else longest",
        "return side.n_tokens",
        (f"{CAUSES}the_answer_crosses_the_window_too",),
    ),
    Break(
        "diff: near-ties by one run's noise",
        "eval/pairs.py",
        "sum(known) * len(bounds) / len(known)",
        "sum(known) / len(known)",
        (f"{CAUSES}the_noise_of_both_sides_counts",),
    ),
    Break(
        "diff: the numerics' share is the window's",
        "eval/diff.py",
        '{"window": drop - numerics, "numerics": numerics}',
        '{"window": numerics, "numerics": drop - numerics}',
        (f"{CAUSES}the_windows_share_and_the_numerics",),
    ),
    Break(
        "diff: agreement counts right answers",
        "eval/diff.py",
        '"agreement": sum(pair.agrees for pair in items) / n',
        '"agreement": sum(pair.score == pair.reference_score for pair in items) / n',
        ("tests/eval/test_diff_edges.py::test_agreement_is_of_answers",),
    ),
    Break(
        "diff: one-sided p",
        "eval/intervals.py",
        "min(1.0, 2 * tail / (1 << n))",
        "min(1.0, tail / (1 << n))",
        (f"{INTERVALS}mcnemar_by_hand",),
    ),
    Break(
        "intervals: Wilson's at 90 %",
        "eval/intervals.py",
        "inv_cdf(0.975)",
        "inv_cdf(0.95)",
        (f"{INTERVALS}newcombe_as_published",),
    ),
    Break(
        "intervals: Wald's half for Wilson's",
        "eval/intervals.py",
        "math.sqrt(z * z + 4 * right",
        "math.sqrt(4 * right",
        (f"{INTERVALS}wilson_at_the_ends", f"{INTERVALS}wilson_limits_are_where_the_score_test_turns"),
    ),
    Break(
        "intervals: Newcombe's without its correction",
        "eval/intervals.py",
        "covariance = max(0.0, covariance - n / 2)",
        "covariance = max(0.0, covariance)",
        (f"{INTERVALS}newcombe_as_published",),
    ),
    Break(
        "intervals: sides of the mean's interval change places",
        "eval/intervals.py",
        "return mean - below / n, mean + above / n",
        "return mean - above / n, mean + below / n",
        (f"{INTERVALS}the_interval_of_a_mean",),
    ),
    Break(
        "intervals: the observed pattern is left out of p",
        "eval/intervals.py",
        "return (count + 1) / (DRAWN + 1), DRAWN",
        "return count / DRAWN, DRAWN",
        (f"{INTERVALS}drawn_signs_are_always_the_same_and_never_prove_everything",),
    ),
    Break(
        "intervals: tails of 5 % each",
        "eval/intervals.py",
        "tail = (len(means) + 1) // 40",
        "tail = (len(means) + 1) // 20",
        (f"{INTERVALS}the_interval_is_what_the_test_does_not_refuse", f"{INTERVALS}the_interval_of_many_is_students"),
    ),
)
