"""Mathematical answers are compared as AGIEval compares them."""

from __future__ import annotations

import random

import pytest

from eval.tasks.math_answers import answer_in, equivalent

PIECES = [
    *("\\boxed{", "\\boxed", "\\fbox", "{", "}", "\\frac", "\\frac1", "tfrac", "\\dfrac", "\\sqrt", "$", "=", "x = "),
    *("\\text{ cm}", "\\text{ ", "\\left", "\\right", "(", ")", "^\\circ", "^{\\circ}", "\\%", "%", "\\!", "\\\\"),
    *("1", "2", "12", "0", "0.5", ".5", ".", "/", "-", "a", " ", "\n", "\\n"),
]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so \\boxed{x = 3}. And \\boxed{\\frac{1}{2}} ends.", "\\frac{1}{2}"),
        ("\\boxed{x = 3}", "3"),
        ("\\boxed{3", None),
        ("\\boxed 3}", None),
        ("It is $2$\nand $y = 7$", "7"),
        ("Hence x=4.", "4"),
        ("between 3 and 4.5 cm", "4.5"),
        ("\\frac{3}{4}", "4"),  # the right answer is looked through like any text
        ("none", None),
    ],
)
def test_the_answer_of_a_text(text: str, answer: str | None) -> None:
    assert answer_in(text) == answer


@pytest.mark.parametrize(
    ("text", "target", "same"),
    [
        ("$\\dfrac12$", "$\\frac{1}{2}$", True),
        ("$0.5$", "$1/2$", True),
        ("$\\sqrt3\\text{ cm}$", "$\\sqrt{3}$", True),
        ("$50\\%$", "$50$", True),
        ("$\\\\\\%%$", "$^{\\circ}$", True),  # a percent sign goes, and the one that this leaves
        ("$3$", "$4$", False),
        ("no idea", "none", True),  # neither has an answer
        ("no idea", "5", False),
        ("$\\frac$", "$\\frac$", True),
        ("$\\frac$", "$\\sqrt$", False),
    ],
)
def test_the_same_answer_in_other_forms(text: str, target: str, same: bool) -> None:
    assert equivalent(text, target) is same


def test_drawn_answers_are_compared_as_by_the_harness() -> None:
    """20,000 pairs, among them many that differ in their form alone."""
    utils = pytest.importorskip("lm_eval.tasks.agieval.utils")
    rng = random.Random(1)

    def drawn(longest: int) -> str:
        text = "".join(rng.choices(PIECES, k=rng.randrange(longest)))
        return f"${text}$" if rng.random() < 0.5 else text

    same = 0
    for _ in range(20_000):
        text = drawn(7)
        twin = rng.choice([drawn(7), text.replace(" ", ""), f"so {text}", text.replace("\\frac1", "\\frac{1}")])
        assert answer_in(text) == utils.parse_math_answer(text), text
        assert equivalent(text, twin) == utils.is_equiv(text, twin), (text, twin)
        same += equivalent(text, twin)
    assert 5_000 < same < 19_000
