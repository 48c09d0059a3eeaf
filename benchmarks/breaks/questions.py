"""Questions of the user's own, every item word for word, and what a run is resumed or compared with."""

from __future__ import annotations

from benchmarks.breaks.form import Break

OWN = "tests/eval/tasks/test_own_questions.py::"
OVERLAP = "tests/eval/test_diff_overlap.py::test_"

QUESTIONS = (
    Break(
        "own questions: numbers of choices count from 1",
        "eval/tasks/own.py",
        "number = {str(i): i for i",
        "number = {str(i + 1): i for i",
        (f"{OWN}test_an_answer_is_a_letter_a_number_or_a_text",),
    ),
    Break(
        "own questions: an answer that may be two is the first of them",
        "eval/tasks/own.py",
        "if len(readings) > 1:",
        "if len(readings) > 2:",
        (f"{OWN}test_an_answer_that_may_be_two_is_refused",),
    ),
    Break(
        "own questions: only the first of several right texts counts",
        "eval/tasks/own.py",
        "in {doc.target, *doc.references}",
        "in {doc.target}",
        (f"{OWN}TestForms::test_a_text_is_right_whatever_stands_around_it",),
    ),
    Break(
        "own questions: the line end of a template's file stands in the prompt",
        "eval/tasks/prompt_template.py",
        '.removesuffix("\\n").removesuffix("\\r")',
        "",
        (f"{OWN}TestTemplates::test_the_prompt_is_the_template",),
    ),
    Break(
        "diff: the items that only one run has are those of the other",
        "eval/pairs.py",
        "if (task, item) not in other.predictions)",
        "if (task, item) in other.predictions)",
        (f"{OVERLAP}common_items_are_compared_and_the_others_counted",),
    ),
    Break(
        "diff: another question file is compared",
        "eval/pairs.py",
        "if digests[0] != digests[1]:",
        "if not any(digests):",
        (f"{OVERLAP}other_questions_are_refused_by_name_unless_anyway",),
    ),
    Break(
        "items: the answer is the target",
        "eval/runs/items.py",
        '"answer": prediction.prediction,',
        '"answer": prediction.target,',
        ("tests/eval/runs/test_items.py::test_a_line_has_the_answer_that_the_run_has",),
    ),
    Break(
        "resume: model and data are not the run's",
        "orin_runner/cli/defaults.py",
        '{**header.get("settings", {}), **header.get("options", {})}',
        '{**header.get("settings", {})}',
        ("tests/eval/runs/test_resume_alone.py::test_it_goes_on_elsewhere_with_everything",),
    ),
)
