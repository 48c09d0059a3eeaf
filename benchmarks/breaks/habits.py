"""Breaks of what users of other tools type: files of options, shares, sizes, the first ones."""

from __future__ import annotations

from benchmarks.breaks.form import Break

CONFIG = "tests/orin_runner/cli/test_config.py::test_"
FIRST = "tests/eval/tasks/test_first.py::test_"
BASE = "eval/tasks/base.py"
DEFAULTS = "orin_runner/cli/defaults.py"

HABITS = (
    Break(
        "config: the environment comes before the file",
        DEFAULTS,
        'found = {"data": os.environ.get(DATA) or None, **run, **config, **called}',
        'found = {**run, **config, **called, "data": os.environ.get(DATA) or None}',
        (f"{CONFIG}the_nearest_place_wins",),
    ),
    Break(
        "config: the resumed run comes before the file",
        DEFAULTS,
        "**run, **config, **called}",
        "**config, **run, **called}",
        (f"{CONFIG}the_nearest_place_wins",),
    ),
    Break(
        "config: what was typed is blamed on the file",
        DEFAULTS,
        "for name, value in config.items() if name not in typed}",
        "for name, value in config.items()}",
        (f"{CONFIG}what_was_typed_is_not_blamed_on_the_file",),
    ),
    Break(
        "config: a control character that TOML does not take as it is",
        "orin_runner/cli/config.py",
        '.replace("\\x7f", "\\\\u007f")',
        "",
        (f"{CONFIG}what_is_written_is_read",),
    ),
    Break(
        "config: the harness's options of a file come behind those that are typed",
        "orin_runner/cli/lm_eval.py",
        "[*(arguments or ()), *context.args]",
        "[*context.args, *(arguments or ())]",
        ("tests/eval/harness/test_harness_runs.py::test_its_own_file_repeats_it",),
    ),
    Break(
        "first: of the whole, not of each group",
        BASE,
        "sizes = Counter(doc.group for doc in docs)",
        "sizes = Counter({doc.group: len(docs) for doc in docs[:1]})",
        (f"{FIRST}of_a_task_with_groups",),
    ),
    Break(
        "first: a share is rounded down",
        BASE,
        "math.ceil(there * wanted)",
        "math.floor(there * wanted)",
        (f"{FIRST}the_first_of_each_group_are_the_harness_s_of_each_task", f"{FIRST}of_a_task_with_groups"),
    ),
    Break(
        "sizes: G is a thousand million",
        "orin_runner/machine/devices.py",
        '"g": 1 << 30,',
        '"g": 10**9,',
        ("tests/orin_runner/machine/test_devices.py::test_sizes",),
    ),
    Break(
        "selftest: rounding is measured on as many sequences as there are requests",
        "orin_runner/engine/selftest.py",
        "while len(found) < LEAST_STRANGERS:",
        "while len(found) < len(requests):",
        ("tests/orin_runner/engine/test_selftest.py::test_rounding_is_measured_on_enough_sequences",),
    ),
    Break(
        "prompt cache: what it was asked for is not counted",
        "orin_runner/engine/engine.py",
        "cache.restored_tokens - restored, cache.asked - asked",
        "cache.restored_tokens - restored, 0",
        ("tests/orin_runner/engine/test_prompt_cache.py::test_same_answers_with_less_to_compute",),
    ),
    Break(
        "submission: of several runs the last one is taken",
        "docs/submission/gather.py",
        "    if len(found) > 1:",
        "    if len(found) > 9:",
        ("tests/whole/test_submission.py::test_no_run_is_guessed",),
    ),
)
