r"""BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261): 27 sub-tasks, three worked examples each, exact match.

Data: https://github.com/suzgunmirac/BIG-Bench-Hard (MIT), ``bbh/bbh/*.json`` and ``bbh/cot-prompts/*.txt``. A worked
row of the chain of thought (``bbh``):

    Evaluate the result of a random Boolean expression.

    Q: not ( ( not not True ) ) is
    A: Let's think step by step.
    Remember that (i) expressions inside brackets [...] = not True = False. So the answer is False.

    [two more] [the question itself, ending in "A: Let's think step by step." and a newline]

and of the direct form (``bbh_direct``), whose answers are what stands behind "So the answer is" above:

    Q: not ( ( not not True ) ) is
    A: False

White space and protocol are lm-evaluation-harness's (0.4.13, ``bbh_cot_fewshot`` and ``bbh_fewshot``). One newline
stands behind "step by step." even where the published file has a space (``sports_understanding``); the direct form has
one space behind "A:"; a blank line separates examples. The text ends at "Q", at a blank line, or at "</s>". Of a chain
of thought the answer is what follows the first "the answer is ", to the end of the line but for its last character, the
full stop; of the direct form it is the whole text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from eval.data import need_file
from eval.docs import Doc
from eval.tasks.base import ExactMatch, LoadOptions, shots_of, spread
from eval.tasks.generation import MAX_NEW_TOKENS, extract, local_data
from orin_runner.errors import UserError
from orin_runner.files import read_json

SUBTASKS = tuple(
    """boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies
    geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
    logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
    penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
    sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
    tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting""".split()
)
UNTIL = ("</s>", "Q", "\n\n")
ANSWER = re.compile(r"(?<=the answer is )(.*)(?=.)")
EXAMPLE = re.compile(r"(?s)Q: (.*?)\nA: Let's think step by step\.\s(.*)")
OPTION = re.compile(r"(?m)^(?:(\([A-Z]\)) .*|- (\S+) *)$")
ANSWERS = {
    "boolean_expressions": ("False", "True"),
    "sports_understanding": ("no", "yes"),
    "web_of_lies": ("No", "Yes"),
}
"""Answers of the sub-tasks that have a fixed set but do not list it in the question."""


@dataclass(frozen=True, slots=True)
class _Example:
    question: str
    reasoning: str


class BBH(ExactMatch):
    """Chain of thought."""

    name = "bbh"
    title = "BIG-Bench Hard, chain of thought"
    source = "github.com/suzgunmirac/BIG-Bench-Hard"
    licence = "MIT"
    metric = "exact match of what follows 'the answer is'"
    default_shots = 3
    phi3_shots: int | None = 3
    max_new_tokens = 1024

    def load(self, options: LoadOptions) -> list[Doc]:
        folder = local_data(options, self.name, "bbh/bbh/ and bbh/cot-prompts/") / "bbh"
        docs = []
        for subtask in SUBTASKS:
            intro, examples = _worked(need_file(folder / "cot-prompts" / f"{subtask}.txt"))
            shots = shots_of(self, options, len(examples))
            start = f"{intro}\n\n" + "".join(f"{self._example(example)}\n\n" for example in examples[:shots])
            path = need_file(folder / "bbh" / f"{subtask}.json")
            for i, (question, target) in enumerate(_rows(path)):
                docs.append(self._doc(subtask, i, start + self._asked(question), question, target))
        return spread(docs, options.limit)

    def normalize(self, text: str) -> str:
        return extract(ANSWER, text)

    def _asked(self, question: str) -> str:
        return f"Q: {question}\nA: Let's think step by step.\n"

    def _example(self, example: _Example) -> str:
        return self._asked(example.question) + example.reasoning

    def _choices(self, _subtask: str, _question: str) -> tuple[str, ...]:
        """Texts that the answer is likely to be."""
        return ()

    def _doc(self, subtask: str, i: int, prompt: str, question: str, target: str) -> Doc:
        return Doc(
            id=f"{subtask}/{i}",
            group=subtask,
            prompt=prompt,
            mode="generate",
            choices=self._choices(subtask, question),
            labels=(),
            target=target,
            max_new_tokens=self.max_new_tokens,
            until=UNTIL,
        )


class BBHDirect(BBH):
    """The answer at once."""

    name = "bbh_direct"
    title = "BIG-Bench Hard, direct"
    metric = "exact match of the text"
    phi3_shots: int | None = None
    max_new_tokens = MAX_NEW_TOKENS

    def normalize(self, text: str) -> str:
        return text

    def _asked(self, question: str) -> str:
        return f"Q: {question}\nA:"

    def _example(self, example: _Example) -> str:
        return f"{self._asked(example.question)} {extract(ANSWER, example.reasoning)}"

    def _choices(self, subtask: str, question: str) -> tuple[str, ...]:
        # With the blank line that the worked examples have behind an answer, and that ends the text.
        return tuple(f"{answer}\n\n" for answer in answers_in(question) or ANSWERS.get(subtask, ()))


def answers_in(question: str) -> tuple[str, ...]:
    """The answers a question lists below "Options:": "(A)", "(B)", or the words behind dashes."""
    _, _, options = question.rpartition("\nOptions:\n")
    return tuple(letter or word for letter, word in OPTION.findall(options)) if options != question else ()


def _worked(path: Path) -> tuple[str, list[_Example]]:
    """What a file of published prompts says of its sub-task, and the worked examples."""
    try:
        _, rule, prompt = path.read_text(encoding="utf-8").partition("\n-----\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 ({error.reason})") from error
    intro, *examples = prompt.strip("\n").split("\n\nQ: ")
    found = [EXAMPLE.fullmatch(f"Q: {example}") for example in examples]
    if not rule or not examples:
        raise UserError(f"{path} does not hold a canary line, a line of dashes, and worked examples")
    worked = []
    for number, match in enumerate(found, start=1):
        if match is None or not ANSWER.search(match[2]):
            raise UserError(f'{path}, worked example {number}: no question, "step by step." or "the answer is"')
        worked.append(_Example(match[1], match[2]))
    return intro, worked


def _rows(path: Path) -> list[tuple[str, str]]:
    examples = read_json(path, "download it again").get("examples")
    if not isinstance(examples, list):
        raise UserError(f"{path} has no list 'examples'")
    for number, row in enumerate(examples, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("input"), str) or not isinstance(row.get("target"), str):
            raise UserError(f"{path}, example {number}: not an object with texts 'input' and 'target'")
    return [(row["input"], row["target"]) for row in examples]
