"""The breaks that a review found no test to see."""

from __future__ import annotations

from benchmarks.breaks.form import Break

ACCOUNTING = "tests/eval/test_accounting.py::test_"
CLOCKS = "tests/eval/report/test_clocks.py::test_"
COUNTS = "tests/orin_runner/engine/test_counts.py::test_"
RULE = "tests/eval/test_diff_rule.py::test_"
SIZES = "tests/orin_runner/engine/test_near_tie_sizes.py::test_"
STOP_STEP = "tests/eval/test_reference.py::test_a_stop_token_is_a_step_of_margin_and_log_probability"

LISTED = (
    Break(
        "items a second: those of a part without a record are counted",
        "eval/report/section.py",
        '(total["items"] if answered is None else answered) / inference',
        'total["items"] / inference',
        (f"{CLOCKS}rates_are_of_the_items_that_have_clocks",),
    ),
    Break(
        "clocks: inference without the measuring of the noise",
        "eval/report/section.py",
        'spent["plan"] + spent["check"] + answers',
        'spent["plan"] + answers',
        (f"{CLOCKS}stages_are_added_up_where_nothing_was_measured",),
    ),
    Break(
        "diff: the mean's rule is less than, not at most",
        "eval/diff.py",
        '"within_max_drop": mean <= limit',
        '"within_max_drop": mean < limit',
        (f"{RULE}at_most_is_decided_exactly",),
    ),
    Break(
        "diff: a task's rule is less than, not at most",
        "eval/diff.py",
        '["within_max_drop"] = drops[task] <= limit',
        '["within_max_drop"] = drops[task] < limit',
        (f"{RULE}at_most_is_decided_exactly",),
    ),
    Break(
        "prediction: of tied choices the last",
        "eval/predict.py",
        'ranked = np.argsort(-values, kind="stable")',
        'ranked = np.argsort(values, kind="stable")[::-1]',
        ("tests/eval/test_predict.py::test_of_tied_sums_the_first_is_chosen",),
    ),
    Break(
        "near-ties: counted below the noise itself",
        "eval/near_ties.py",
        '.get("near_tie") for kind in',
        '.get("largest") for kind in',
        (f"{ACCOUNTING}a_resumed_run_says_what_all_its_parts_took",),
    ),
    Break(
        "greedy: texts without a step do not count",
        "eval/report/section.py",
        '"texts": len(steps)',
        '"texts": sum(n > 0 for n in steps)',
        (f"{CLOCKS}greedy_figures_by_hand",),
    ),
    Break(
        "noise: a lead's near-tie is two noises",
        "orin_runner/engine/noise.py",
        "NOISES_OF_A_LEAD = 3",
        "NOISES_OF_A_LEAD = 2",
        (f"{SIZES}a_lead_is_a_near_tie_below_three_times_the_largest_difference",),
    ),
    Break(
        "noise: logits are compared, not log-probabilities",
        "orin_runner/engine/noise.py",
        "(a.astype(np.float64) - total[0]) - (b.astype(np.float64) - total[1])",
        "a.astype(np.float64) - b.astype(np.float64)",
        (f"{SIZES}a_constant_makes_no_difference",),
    ),
    Break(
        "noise: the last row's instead of the largest",
        "orin_runner/engine/noise.py",
        "largest = max(self._differences, default=0.0)",
        "largest = self._differences[-1] if self._differences else 0.0",
        (f"{SIZES}a_lead_is_a_near_tie_below_three_times_the_largest_difference",),
    ),
    Break(
        "sent: once for each continuation",
        "orin_runner/engine/wanted_tokens.py",
        "self.sent = int(lengths.sum())",
        "self.sent = int(lengths[path].sum())",
        (f"{COUNTS}a_prompt_is_sent_with_each_choice_and_once_for_all_of_one_token",),
    ),
    Break(
        "sent: a text that is asked for twice counts once",
        "orin_runner/engine/engine.py",
        "stats.sent += len(twins[text.index]) * n",
        "stats.sent += n",
        (f"{COUNTS}a_text_asked_for_twice_is_sent_twice",),
    ),
    Break(
        "greedy: drafts stay verified when a position before them is decided otherwise",
        "orin_runner/engine/greedy_text.py",
        "stands and self.steps[depth][3]), *later]",
        "True), *later]",
        (f"{COUNTS}a_position_that_is_decided_otherwise_ends_the_drafts_before_it",),
    ),
    Break(
        "reference: margin without the stop token's step",
        "eval/reference.py",
        "lead[k, :steps].min",
        "lead[k, :n].min",
        (STOP_STEP,),
    ),
    Break(
        "reference: log-probability without the stop token's step",
        "eval/reference.py",
        "best[k, :steps].sum()",
        "best[k, :n].sum()",
        (STOP_STEP,),
    ),
)
