r"""MBPP (Austin et al. 2021, arXiv:2108.07732): short Python programs after a sentence and three tests, which are run.

Data: https://github.com/google-research/google-research/tree/master/mbpp (CC BY 4.0), ``mbpp.jsonl``, whose rows with a
``task_id`` of 11 to 510 are the test split; or ``google-research-datasets/mbpp``, ``full``, on the hub. A row has
``text``, ``code`` and ``test_list``. A worked row of the prompt:

    You are an expert Python programmer, and here is your task: Add two numbers. Your code should pass these tests:

    assert add(1, 2) == 3
    assert add(0, 0) == 0
    assert add(-1, 1) == 0
    [BEGIN]
    def add(a, b):
        return a + b
    [DONE]

White space and protocol are lm-evaluation-harness's (0.4.13, ``mbpp``): three worked examples, the data set's tasks 2
to 4, are always the same and in the same order, so ``--shots N`` takes the first N; a blank line separates them. The
text ends at "[DONE]". The text, a line break and the three tests are one program, which passes where it runs to its
end. It is run with ``--run-code`` alone, and as ``eval/code_process.py`` says (see ``humaneval``).
"""

from __future__ import annotations

from typing_extensions import TypedDict

from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, loaded, shots_of
from eval.tasks.code import CodeTask, code_doc
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, placed_rows
from orin_runner.errors import UserError
from orin_runner.schema import Schema

HUB = ("google-research-datasets/mbpp", "4bb6404fdc6cacfda99d4ac4205087b89d32030c", "full")
FOLDERS = ("mbpp", "google-research/mbpp", "mbpp/data")
TEST = range(11, 511)
"""Task ids of the test split."""
N_TESTS = 3
UNTIL = ("[DONE]",)


class _Row(TypedDict):
    task_id: int
    text: str
    test_list: list[str]


ROW = Schema(_Row)


def _asked(text: str, tests: str) -> str:
    task = f"You are an expert Python programmer, and here is your task: {text} Your code should pass these tests:"
    return f"{task}\n\n{tests}\n[BEGIN]\n"


EXAMPLES = (
    _asked(
        "Write a function to find the similar elements from the given two tuple lists.",
        "assert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
        "assert similar_elements((1, 2, 3, 4),(5, 4, 3, 7)) == (3, 4)\n"
        "assert similar_elements((11, 12, 14, 13),(17, 15, 14, 13)) == (13, 14)",
    )
    + "def similar_elements(test_tup1, test_tup2):\r\n"
    "  res = tuple(set(test_tup1) & set(test_tup2))\r\n"
    "  return (res) \n[DONE]\n\n",
    _asked(
        "Write a python function to identify non-prime numbers.",
        "assert is_not_prime(2) == False\nassert is_not_prime(10) == True\nassert is_not_prime(35) == True",
    )
    + "import math\r\n"
    "def is_not_prime(n):\r\n"
    "    result = False\r\n"
    "    for i in range(2,int(math.sqrt(n)) + 1):\r\n"
    "        if n % i == 0:\r\n"
    "            result = True\r\n"
    "    return result\n[DONE]\n\n",
    _asked(
        "Write a function to find the largest integers from a given list of numbers using heap queue algorithm.",
        "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],3)==[85, 75, 65] \n"
        "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],2)==[85, 75] \n"
        "assert heap_queue_largest( [25, 35, 22, 85, 14, 65, 75, 22, 58],5)==[85, 75, 65, 58, 35]",
    )
    + "import heapq as hq\r\n"
    "def heap_queue_largest(nums,n):\r\n"
    "  largest_nums = hq.nlargest(n, nums)\r\n"
    "  return largest_nums\n[DONE]\n\n",
)
"""The data set's tasks 2 to 4 with their line ends."""


class MBPP(CodeTask):
    """Whole programs."""

    name = "mbpp"
    title = "MBPP"
    source = "github.com/google-research/google-research"
    licence = "CC BY 4.0"
    metrics: tuple[str, ...] = ("pass_at_1",)
    default_shots = 3
    phi3_shots: int | None = 3
    folders = FOLDERS[1:]

    def load(self, options: LoadOptions) -> Loaded:
        start = "".join(EXAMPLES[: shots_of(self, options, len(EXAMPLES))])
        names = [f"{folder}/mbpp.jsonl" for folder in FOLDERS]
        docs = []
        for where, row in placed_rows(options.data, HUB, self.splits[0], names, FOLDERS[:1]):
            found = ROW.check_row(where, row, AGAIN)
            if found["task_id"] not in TEST:
                continue
            if len(found["test_list"]) < N_TESTS:
                raise UserError(f"{where}: 'test_list' has {len(found['test_list'])} tests, not {N_TESTS}", AGAIN)
            tests = "\n".join(found["test_list"][:N_TESTS])
            docs.append(
                code_doc(str(found["task_id"]), start + _asked(found["text"], tests), tests, UNTIL, MAX_NEW_TOKENS)
            )
        return loaded(docs, self.splits[0], options)

    def program(self, doc: Doc, text: str) -> str:
        return f"{text}\n{doc.target}"
