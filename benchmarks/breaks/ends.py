"""How programs end, what of their files is left, and what is said of them."""

from __future__ import annotations

from benchmarks.breaks.form import Break

EXITS = "orin_runner/cli/exits.py"
TEST_EXITS = "tests/orin_runner/cli/test_exits.py::test_"

ENDS = (
    Break(
        "signals: a library that is being imported is interrupted",
        EXITS,
        "if (code.co_filename, code.co_name) == IMPORTING and not _is_own(",
        'if code.co_name == "never" and not _is_own(',
        (f"{TEST_EXITS}a_library_is_imported_to_its_end", f"{TEST_EXITS}a_signal_within_torch_does_not_abort"),
    ),
    Break(
        "signals: evaluate is one of this project's packages",
        EXITS,
        'return module.partition(".")[0] in OWN',
        "return module.startswith(OWN)",
        (f"{TEST_EXITS}a_library_is_imported_to_its_end",),
    ),
    Break(
        "signals: one behind the program is a traceback",
        EXITS,
        "    except KeyboardInterrupt as error:  # it came when",
        "    except MemoryError as error:  # it came when",
        (f"{TEST_EXITS}a_signal_behind_the_program_is_said",),
    ),
    Break(
        "signals: one within a command line that another runs is told as Ctrl-C",
        EXITS,
        "    outer = Interruptions.in_force\n",
        "    outer = None\n",
        (f"{TEST_EXITS}a_signal_behind_the_program_is_said",),
    ),
    Break(
        "files: only links to nothing lead nowhere",
        "orin_runner/files.py",
        "missing = error.errno == errno.ENOENT",
        "missing = error.errno != errno.EIO",
        ("tests/eval/runs/test_killed_writes.py::test_a_link_to_itself_is_refused_before_anything_is_asked",),
    ),
    Break(
        "files: of a path whose folders cannot all be made some are left",
        "orin_runner/files.py",
        "                folder.rmdir()",
        "                folder.exists()",
        ("tests/orin_runner/test_files.py::test_of_folders_that_cannot_be_made_none_is_left",),
    ),
    Break(
        "resume: a report of other answers is the run's",
        "eval/runs/resume.py",
        "            and not contradictions(self.report, self.known.values())",
        "            and self.report is not None",
        ("tests/eval/runs/test_killed_writes.py::test_a_report_of_other_answers_is_no_end",),
    ),
    Break(
        "bench: F32 is faster by accident",
        "orin_runner/cli/measuring.py",
        "return f32.mean / own.mean if _is_faster(f32, own) else None",
        "return f32.mean / own.mean",
        ("tests/orin_runner/cli/test_after_bench.py::TestF32::test_gain",),
    ),
    Break(
        "plan: what was measured on another device is said of F32",
        "orin_runner/machine/tuned.py",
        "for each in reversed([*known]) if each.device == name_of(device)), None)",
        "for each in reversed([*known])), None)",
        ("tests/orin_runner/cli/test_after_bench.py::TestF32::test_plan_says_it",),
    ),
)
