"""The 2023 challenge's protocol: its prompts, what is fixed in it, what is said of it."""

from __future__ import annotations

from benchmarks.breaks.form import Break

ASKED = "tests/eval/tasks/test_hellaswag_protocol.py::test_"
SAID = "tests/orin_runner/cli/test_protocol.py::test_"
HELLASWAG = "eval/tasks/hellaswag.py"

PROTOCOL = (
    Break(
        "protocol: prompts begin with BOS",
        HELLASWAG,
        "replace(doc, special=False)",
        "replace(doc, special=True)",
        (f"{ASKED}the_requests_are_those_of_2023",),
    ),
    Break(
        "protocol: tokens without BOS for every question of a run",
        "eval/encoding.py",
        "special=all(kind))",
        "special=False)",
        (f"{ASKED}by_itself_the_task_has_the_tokenizers_bos",),
    ),
    Break(
        "hellaswag: a copy's last sentence keeps its small letter",
        HELLASWAG,
        "{begun.capitalize()}",
        "{begun}",
        (f"{ASKED}copies_without_the_cut_have_the_same_contexts",),
    ),
    Break(
        "hellaswag: endings lose the space that a mark leaves",
        HELLASWAG,
        'map(_without_brackets, lines)).replace("  ", " ")',
        'map(_without_brackets, lines)).replace("  ", " ").strip()',
        (f"{ASKED}the_requests_are_those_of_2023",),
    ),
    Break(
        "protocol: a copy without ctx_a and ctx_b is taken for the original",
        HELLASWAG,
        "lacking = (WITHOUT_MARKS,) if",
        "lacking = () if",
        (f"{ASKED}copies_without_the_cut_have_the_same_contexts",),
    ),
    Break(
        "protocol: a chat template is let through",
        "eval/tasks/base.py",
        '"chat": options.chat,',
        '"chat": False,',
        (f"{ASKED}a_protocol_fixes_how_is_asked",),
    ),
    Break(
        "protocol: acc for acc_norm",
        "orin_runner/cli/account.py",
        'for name in ("acc", "acc_norm"))',
        'for name in ("acc", "acc"))',
        (f"{SAID}the_line_by_hand",),
    ),
    Break(
        "protocol: run.json does not say it",
        "orin_runner/cli/options.py",
        '"chat", "protocol")}',
        '"chat")}',
        (f"{SAID}the_run_says_how_it_asked",),
    ),
)
