"""Hand-written rows of MMLU-Pro and of the later tasks of Phi-3's list, in their published forms, and awkward."""

from __future__ import annotations

from collections.abc import Sequence

from tests.support.hub_rows import Row

MEDQA = [
    {
        "question": "A man cannot taste.\n Which nerve is it? ",
        "answer": "Facial",
        "options": {"A": " Optic", "B": "Facial", "C": "Vagus nerve  (X)", "D": "Ulnar"},
        "meta_info": "step1",
        "answer_idx": "B",
        "metamap_phrases": ["man"],
    },
    {
        "question": "Which is the longest bone?",
        "answer": "Femur",
        "options": {"A": "Tibia", "B": "Ulna", "C": "Rib", "D": "Femur"},
        "meta_info": "step2&3",
        "answer_idx": "D",
        "metamap_phrases": [],
    },
]


def _exam(question: str, options: Sequence[str] | None, label: str | None, **other: str | None) -> Row:
    return {"passage": None, "question": question, "options": options, "label": label, "answer": None, **other}


AGIEVAL = {
    "choices": [
        _exam("Add: +45 and -30", ["(A)-30", "(B)+30  ", "(C)0", "(D)15", "(E)-15"], "D"),
        _exam("Who fell? ", ["(A)Al", "(B)Bo", "(C)Eve"], "A", passage="Al fell.\nBo laughed."),
        _exam("Which?", ["(A)the first of them all", "(B)x"], "B", passage=""),
    ],
    "math": [
        _exam("What is $1+1$?", None, None, answer="2"),
        _exam("Halve one.", None, None, answer="\\frac{1}{2}"),
        _exam("Solve.\n\\[x^2=9\\]", None, None, answer="$x = -3/1$"),
    ],
}
"""Rows of the sub-tasks with choices, and of the one without."""

AGIEVAL_SUBTASKS = (
    "aqua-rat gaokao-english logiqa-en lsat-ar lsat-lr lsat-rc math sat-en-without-passage sat-en sat-math".split()
)


def _pro(category: str, question: str, options: Sequence[str], answer: str, cot: str = "") -> Row:
    row = {"question_id": 1, "question": question, "options": options, "answer": answer, "cot_content": cot}
    return {**row, "answer_index": "ABCDEFGHIJ".index(answer), "category": category, "src": "x"}


MMLU_PRO = {
    "test": [
        _pro("math", "How much is 1+1? ", [f" {n} " for n in range(10)], "C"),
        _pro("computer science", "Bits of\na byte?", ["four", "eight"], "B"),
        _pro("math", "And 2+2?", ["4", "N/A", "x", "y"], "A"),
    ],
    "validation": [
        _pro(
            category,
            f"{category} {n}?",
            ["no ", "yes"],
            "AB"[n % 2],
            f"A: Let's think step by step. It is {n}. The answer is ({'AB'[n % 2]}).",
        )
        for n in range(6)
        for category in ("computer science", "math")
    ],
}
"""Rows by split, of two subjects that take turns."""

TRIVIAQA = [
    {
        "question": "Which planet is nearest to the sun?",
        "question_id": "tc_1",
        "answer": {"aliases": ["Mercury (planet)", "planet mercury", 'Hermes\' "star"'], "value": "Mercury"},
    },
    {"question": "Who wrote it", "question_id": "tc_2", "answer": {"aliases": ["J. R. Ewing"], "value": "x"}},
    {"question": "How many, in all?", "question_id": "tc_2", "answer": {"aliases": ["7", "SEVEN"], "value": "7"}},
    *(
        {"question": f"Train {n}?", "question_id": f"tr_{n}", "answer": {"aliases": [f"No. {n}", "x"], "value": "x"}}
        for n in range(8)
    ),
]

HUMANEVAL = [
    {
        "task_id": "HumanEval/0",
        "prompt": 'from typing import List\n\n\ndef total(xs: List[int]) -> int:\n    """ Add {{them}} up.\n    """\n',
        "entry_point": "total",
        "canonical_solution": "    return sum(xs)\n",
        "test": "\n\nMETADATA = {}\n\n\ndef check(candidate):\n    assert candidate([1, 2]) == 3\n",
    },
    {
        "task_id": "HumanEval/1",
        "prompt": "\ndef twice(x):\n    # doubled \n",
        "entry_point": "twice",
        "canonical_solution": "    return 2 * x\n",
        "test": "def check(candidate):\n    assert candidate('a') == 'aa'\n\n",
    },
]

MBPP = [
    {
        "task_id": task_id,
        "text": f"Write a function to add {n}.",
        "code": f"def add(x):\r\n  return x + {n}",
        "test_list": [f"assert add({x}) == {x + n} " for x in range(3 + n % 2)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }
    for n, task_id in enumerate([2, 10, 11, 12, 510, 511])
]
"""Of the few-shot split, of test and of validation; the test split has three of them."""
