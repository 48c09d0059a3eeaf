"""What is shown: console, page, charts, samples, sensors, memory plans."""

from __future__ import annotations

from benchmarks.breaks.form import Break

PRINTED = "tests/orin_runner/cli/test_printed_numbers.py::test_"
CHARTS = "tests/eval/report/test_charts.py::test_"
PAGE = "tests/eval/report/test_page.py::test_"
FIGURES = "tests/eval/report/test_figures.py::test_"
FACTS = "tests/eval/report/test_facts.py::test_"
SAMPLES = "tests/eval/runs/test_measured.py::test_"
SENSORS = "tests/orin_runner/machine/test_sensors.py::test_"
NVML = "tests/orin_runner/machine/test_nvml.py::test_"
RESULT = "orin_runner/cli/result.py"
ACCOUNT = "orin_runner/cli/account.py"

SCREEN = (
    Break(
        "console: percent with one digit",
        ACCOUNT,
        "{values['accuracy']:.2%}",
        "{values['accuracy']:.1%}",
        (f"{PRINTED}the_tables_of_a_run",),
    ),
    Break(
        "console: unique and computed tokens change places",
        RESULT,
        'for count in ("sent", "unique", "computed"))',
        'for count in ("sent", "computed", "unique"))',
        (f"{PRINTED}the_tables_of_a_run",),
    ),
    Break(
        "console: the 2023 clock for the 2024 one",
        RESULT,
        "section['clocks'][CHALLENGE_2024]:.1f",
        "section['clocks'][CHALLENGE_2023]:.1f",
        (f"{PRINTED}the_tables_of_a_run",),
    ),
    Break(
        "console: seconds an item by items without a clock",
        ACCOUNT,
        'int(section["items"] - section.get("without_record", 0))',
        'int(section["items"])',
        (f"{PRINTED}lines_of_a_task",),
    ),
    Break(
        "console: clock and clock without data change places",
        ACCOUNT,
        'CHALLENGE_2024: "data and inference"',
        'CHALLENGE_2024: "without data pre-processing"',
        (f"{PRINTED}lines_of_a_task",),
    ),
    Break(
        "console: the largest difference is called the root mean square",
        ACCOUNT,
        "{found['rms']:.2g} nats (root",
        "{found['largest']:.2g} nats (root",
        (f"{PRINTED}lines_of_a_task",),
    ),
    Break(
        "console: rows asked without those that an interruption left",
        ACCOUNT,
        ' + section.get("unanswered", 0)\n    rows = section["rows"]',
        '\n    rows = section["rows"]',
        ("tests/orin_runner/cli/test_result.py::test_the_rows_that_were_asked_are_named",),
    ),
    Break(
        "console: joules in samples, not in seconds of known power",
        ACCOUNT,
        "{measured['power_seconds']:,.0f} s",
        "{measured['joules']:,.0f} s",
        (f"{PRINTED}memory_and_power",),
    ),
    Break(
        "table: a column of numbers is as wide as its head",
        "orin_runner/table.py",
        "whole = max([whole, *map(cell_len, cells)])",
        "whole = max([whole, 1])",
        ("tests/orin_runner/test_table.py::test_no_number_is_cut",),
    ),
    Break(
        "table: what does not fit is not put below",
        "orin_runner/table.py",
        "others[0]]) - GAP <= width",
        "others[0]]) - GAP <= width + 99",
        ("tests/orin_runner/test_table.py::test_no_line_is_wider_than_it_may_be",),
    ),
    Break(
        "console: all words stand beside a bar, whatever the room",
        "orin_runner/console.py",
        'while said and cell_len(", ".join(said)) > self._room:',
        "while said and len(said) > 99:",
        ("tests/orin_runner/test_console.py::test_a_bar_says_what_there_is_room_for",),
    ),
    Break(
        "console: groups are not folded",
        RESULT,
        'if verbose and len(section["groups"]) > 1:',
        'if len(section["groups"]) > 1:',
        ("tests/orin_runner/cli/test_widths.py::test_groups_are_folded_unless_asked_for",),
    ),
    Break(
        "console: another split than usual is not named",
        ACCOUNT,
        "usual = TASKS[name].splits[:1]",
        "usual = TASKS[name].splits",
        ("tests/orin_runner/cli/test_result.py::test_a_split_that_is_not_the_usual_one_is_named_without_being_asked",),
    ),
    Break(
        "output: what libraries say is said to everybody",
        "orin_runner/cli/output.py",
        'self._notes.detail(f"{record.name}',
        'self._notes.warn(f"{record.name}',
        ("tests/orin_runner/cli/test_output.py::test_libraries_are_details",),
    ),
    Break(
        "plan: the host's terms are left out where memory is unified",
        "orin_runner/machine/memory_plan.py",
        "if self.device.unified or name in self.on_device",
        "if name in self.on_device",
        (f"{PRINTED}the_table_of_a_plan",),
    ),
    Break(
        "plan: what remains is never negative",
        "orin_runner/machine/memory_plan.py",
        "return self.device.available - self.total",
        "return max(0, self.device.available - self.total)",
        (f"{PRINTED}the_table_of_a_plan",),
    ),
    Break(
        "plan: megabytes for mebibytes",
        "orin_runner/machine/memory_formula.py",
        "MIB = 1 << 20",
        "MIB = 1_000_000",
        (f"{PRINTED}the_table_of_a_plan",),
    ),
    Break(
        "plan: two contexts have one cache",
        "orin_runner/machine/memory_plan.py",
        '"KV cache": n_contexts * context.kv',
        '"KV cache": context.kv',
        ("tests/orin_runner/machine/test_memory_plan.py::test_two_contexts_where_a_gpu_has_the_memory",),
    ),
    Break(
        "page: an interval of nothing is a point",
        "eval/report/figures.py",
        "if n else (0.0, 1.0)",
        "if n else (0.0, 0.0)",
        (f"{FIGURES}nothing_is_known_of_no_items",),
    ),
    Break(
        "page: percent of one",
        "eval/report/page.py",
        '"{100 * value:.{digits}f}',
        '"{value:.{digits}f}',
        (f"{PAGE}the_page_says_what_the_run_measured",),
    ),
    Break(
        "page: bins of the calibration weigh the same",
        "eval/report/figures.py",
        'row["items"] / items * abs(',
        "1 / len(found) * abs(",
        (f"{FIGURES}calibration_weighs_bins_by_items_and_keeps_certainty",),
    ),
    Break(
        "page: the memory plan in megabytes",
        "eval/report/facts.py",
        "MIB = 1 << 20",
        "MIB = 1_000_000",
        (f"{FACTS}a_memory_plan_is_shown_in_mebibytes",),
    ),
    Break(
        "page: clocks change places",
        "eval/report/page.py",
        '{"2024": clocks.get(CHALLENGE_2024), "2023": clocks.get(CHALLENGE_2023)}',
        '{"2024": clocks.get(CHALLENGE_2023), "2023": clocks.get(CHALLENGE_2024)}',
        (f"{PAGE}the_page_says_what_the_run_measured",),
    ),
    Break(
        "charts: a resumed part begins at 0",
        "eval/report/charts.py",
        "offset += part[-1].seconds",
        "offset = part[-1].seconds * 0",
        (f"{CHARTS}throughput_of_several_tasks_and_parts",),
    ),
    Break(
        "charts: each task's tokens are drawn from 0",
        "eval/report/charts.py",
        "tokens.append(base + sample.computed)",
        "tokens.append(sample.computed)",
        (f"{CHARTS}throughput_of_several_tasks_and_parts",),
    ),
    Break(
        "charts: of many samples the smallest",
        "eval/report/charts.py",
        "(chunk[0][0], max(y for _, y in chunk))",
        "(chunk[0][0], min(y for _, y in chunk))",
        (f"{CHARTS}a_long_run_keeps_its_peaks_in_few_points",),
    ),
    Break(
        "samples: energy by the first reading of each interval",
        "eval/runs/measured.py",
        "(end - start) * (one + other) / 2",
        "(end - start) * one",
        (f"{SAMPLES}energy_is_power_times_time_where_power_is_known",),
    ),
    Break(
        "samples: seconds of the last part",
        "eval/runs/measured.py",
        "round(sum(part[-1].seconds for part in parts(samples)), 3)",
        "round(parts(samples)[-1][-1].seconds, 3)",
        (f"{SAMPLES}energy_is_power_times_time_where_power_is_known",),
    ),
    Break(
        "measured: energy of this machine for items of all machines",
        "eval/runs/measured.py",
        "task != other.task or one.elsewhere or None in watts",
        "task != other.task or None in watts",
        (f"{SAMPLES}energy_is_of_what_was_answered_while_it_was_known",),
    ),
    Break(
        "charts: one line for all GPUs",
        "eval/report/charts.py",
        'return by_gpu or [(0, "", line) for line in run["lines"].get(key, ())]',
        'return [(0, "", line) for line in run["lines"].get(key, ())]',
        (f"{CHARTS}each_gpu_has_its_line",),
    ),
    Break(
        "sensors: the total of those GPUs that know",
        "orin_runner/machine/sensors.py",
        "total(known) if found and len(known) == len(found) else None",
        "total(known) if known else None",
        (f"{SENSORS}a_total_of_a_part_is_none",),
    ),
    Break(
        "sensors: all GPUs, whatever the run uses",
        "orin_runner/machine/sensors.py",
        "[gpu for gpu in nvml.gpus if gpu.id in gpus] if gpus else nvml.visible()",
        "nvml.visible()",
        (f"{SENSORS}totals_are_those_of_the_runs_gpus",),
    ),
    Break(
        "nvml: milliwatts for watts",
        "orin_runner/machine/nvml.py",
        "milliwatts / 1000",
        "float(milliwatts)",
        (f"{NVML}two_gpus_are_read_each_in_its_units",),
    ),
    Break(
        "nvml: what a device does not know is a failure",
        "orin_runner/machine/nvml.py",
        'UNKNOWN = ("NOT_SUPPORTED", ',
        "UNKNOWN = (",
        (f"{NVML}what_a_gpu_does_not_know_is_none",),
    ),
    Break(
        "nvml: the last failure for the first",
        "orin_runner/machine/nvml.py",
        'self.failure = self.failure or f"{what}: {error}"',
        'self.failure = f"{what}: {error}"',
        (f"{NVML}a_call_that_begins_to_fail_is_noted_once",),
    ),
    Break(
        "sensors: a module's power in milliwatts",
        "orin_runner/machine/jetson_rails.py",
        "in values) / 1e6",
        "in values) / 1e3",
        (f"{SENSORS}a_modules_power_is_its_inputs_counted_once",),
    ),
    Break(
        "sensors: kilobytes for kibibytes",
        "orin_runner/machine/host_memory.py",
        "1024 if kib else 1",
        "1000 if kib else 1",
        (f"{SENSORS}the_machines_memory_is_what_is_not_available",),
    ),
    Break(
        "sensors: what is free for what is in use",
        "orin_runner/machine/host_memory.py",
        '(found["MemTotal"] - found["MemAvailable"]) / 2**20',
        'found["MemAvailable"] / 2**20',
        (f"{SENSORS}the_machines_memory_is_what_is_not_available",),
    ),
    Break(
        "reference: the process's clock has other tasks in it",
        "orin_runner/cli/reference.py",
        "partial(_seconds_since, began + elsewhere)",
        "partial(_seconds_since, began)",
        ("tests/whole/test_several_tasks.py::test_the_reference_takes_other_tasks_off",),
    ),
    Break(
        "eval: the process's clock has other tasks in it",
        "orin_runner/cli/metered.py",
        "time.perf_counter() - began - elsewhere",
        "time.perf_counter() - began",
        ("tests/whole/test_several_tasks.py::test_a_run_takes_other_tasks_off",),
    ),
)
