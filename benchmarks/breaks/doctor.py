"""Breaks of what ``orin-run doctor`` says of a machine."""

from __future__ import annotations

from benchmarks.breaks.form import Break

TESTS = "tests/orin_runner/machine"
JETSON = f"{TESTS}/test_jetson_checks.py::test_"
LIBRARY = f"{TESTS}/test_library_checks.py::Test"
MEMORY = f"{TESTS}/test_memory_checks.py::Test"
MACHINE = "orin_runner/machine"

DOCTOR = (
    Break(
        "doctor: another release of L4T is the bad one",
        f"{MACHINE}/jetson_checks.py",
        'frozenset({"36.4.7"})',
        'frozenset({"36.4.4"})',
        (f"{JETSON}l4t_36_4_7",),
    ),
    Break(
        "doctor: SMs that a power mode switches off do not count",
        f"{MACHINE}/jetson_checks.py",
        "more_gated = current.gated > fastest.gated",
        "more_gated = False",
        (f"{JETSON}fewer_sms_at_the_same_clock_are_slower",),
    ),
    Break(
        "doctor: mode 0 is the fastest on every board",
        f"{MACHINE}/power_modes.py",
        "key=lambda mode: (mode.gated, -mode.gpu_hz)",
        "key=lambda mode: mode.id",
        (f"{JETSON}modes_are_what_the_boards_own_file_says",),
    ),
    Break(
        "doctor: a fan at work is throttling",
        f"{MACHINE}/jetson_board.py",
        'if "fan" not in kind and ',
        "if ",
        (f"{JETSON}nothing_is_wrong_in_maxn",),
    ),
    Break(
        "doctor: absolute links lead out of the tree",
        f"{MACHINE}/tree.py",
        "                at = self.root\n",
        '                at = Path("/")\n',
        (f"{TESTS}/test_tree.py::test_links_stay_within_the_folder",),
    ),
    Break(
        "doctor: unified memory by its variable's value",
        f"{MACHINE}/library_checks.py",
        "if UNIFIED not in machine.environment or",
        'if machine.environment.get(UNIFIED, "0") == "0" or',
        (f"{LIBRARY}Variables::test_unified_memory",),
    ),
    Break(
        "doctor: launch queues of 2x are taken for safe",
        f"{MACHINE}/library_checks.py",
        "float(scale[1]) <= 1",
        "float(scale[1]) <= 2",
        (f"{LIBRARY}Variables::test_launch_queues",),
    ),
    Break(
        "doctor: BF16 is taken for fast on Volta",
        f"{MACHINE}/library_checks.py",
        "BF16_FROM = (8, 0)",
        "BF16_FROM = (7, 0)",
        (f"{LIBRARY}Gpus::test_bf16_before_ampere",),
    ),
    Break(
        "doctor: code for a newer GPU alone is taken for usable",
        f"{MACHINE}/library_checks.py",
        "if each <= 10 * major + minor]",
        "if each]",
        (f"{LIBRARY}Library::test_compute_capabilities",),
    ),
    Break(
        "doctor: whatever is in the way fails a run, even if it would not fit without it",
        f"{MACHINE}/diagnosis.py",
        "-size <= self.plan.remaining < 0",
        "self.plan.remaining < 0",
        (f"{JETSON}a_desktop", f"{MEMORY}Pages::test_huge_pages"),
    ),
    Break(
        "doctor: what is cached counts as free",
        f"{MACHINE}/memory_checks.py",
        "plan.total <= free:",
        "plan.total <= free + cached:",
        (f"{MEMORY}Pages::test_page_cache",),
    ),
    Break(
        "memory: a limit of a control group above is not seen",
        f"{MACHINE}/host_memory.py",
        "for folder in (group, *group.parents)",
        "for folder in (group,)",
        (f"{MEMORY}ContainerLimit::test_the_groups_of_a_process",),
    ),
    Break(
        "doctor: a library of another version is not seen by its defaults",
        "orin_runner/model/llama_library.py",
        "if read != CONTEXT_DEFAULTS:",
        "if False:",
        (f"{LIBRARY}Versions::test_defaults_that_read_wrong",),
    ),
    Break(
        "doctor: a library that was replaced is not seen",
        "orin_runner/model/llama_library.py",
        "path.stat().st_size != file.size",
        "False",
        (f"{LIBRARY}Versions::test_a_library_that_was_replaced",),
    ),
)
