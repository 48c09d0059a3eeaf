r"""BIG-Bench Hard (Suzgun et al. 2022, arXiv:2210.09261): 27 sub-tasks, three worked examples each, exact match.

Data: https://github.com/suzgunmirac/BIG-Bench-Hard (MIT), ``bbh/bbh/*.json`` and ``bbh/cot-prompts/*.txt``; in place
of the former a copy of the hub's ``SaylorTwift/bbh`` or ``lukaemon/bbh``, which have no worked examples. A worked
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from typing_extensions import TypedDict

from eval.data.hub_copy import published_or_copied
from eval.data.readers import find_file, read_json_value, read_rows, with_rows
from eval.data.text_file import AGAIN, text_lines
from eval.tasks.base import ExactMatch, Loaded, LoadOptions, loaded, shots_of
from eval.tasks.doc import Doc
from eval.tasks.generation import MAX_NEW_TOKENS, extract, local_data
from orin_runner.errors import UserError
from orin_runner.schema import Schema

SUBTASKS = tuple(
    """boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies
    geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects
    logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting
    penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks
    sports_understanding temporal_sequences tracking_shuffled_objects_five_objects
    tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting""".split()
)
FOLDERS = ("bbh", "BIG-Bench-Hard", "bbh/BIG-Bench-Hard", ".")
COPIES = ("bbh", "SaylorTwift/bbh", "lukaemon/bbh")
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


class _Row(TypedDict):
    input: str
    target: str


class _Published(TypedDict):
    examples: list[_Row]


ROW, PUBLISHED = Schema(_Row), Schema(_Published)


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
    splits: tuple[str, ...] = ("test",)
    max_new_tokens = 1024

    def load(self, options: LoadOptions) -> Loaded:
        data = local_data(options, self.name, "bbh/bbh/ and bbh/cot-prompts/")
        docs = []
        for subtask in SUBTASKS:
            intro, examples = _worked(find_file(data, *(f"{folder}/cot-prompts/{subtask}.txt" for folder in FOLDERS)))
            shots = shots_of(self, options, len(examples))
            start = f"{intro}\n\n" + "".join(f"{self._example(example)}\n\n" for example in examples[:shots])
            for i, (question, target) in enumerate(_rows(data, subtask)):
                docs.append(self._doc(subtask, i, start + self._asked(question), question, target))
        return loaded(docs, self.splits[0], options)

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
    _, rule, prompt = "".join(text_lines(path)).replace("\r\n", "\n").partition("\n-----\n")
    intro, *examples = prompt.strip("\n").split("\n\nQ: ")
    found = [EXAMPLE.fullmatch(f"Q: {example}") for example in examples]
    if not rule or not examples:
        raise UserError(f"{path} does not hold a canary line, a line of dashes, and worked examples", AGAIN)
    worked = []
    for number, match in enumerate(found, start=1):
        if match is None or not ANSWER.search(match[2]):
            reason = f'{path}, worked example {number}: no question, "step by step." or "the answer is"'
            raise UserError(reason, AGAIN)
        worked.append(_Example(match[1], match[2]))
    return intro, worked


def _rows(data: Path, subtask: str) -> list[tuple[str, str]]:
    names = [f"{folder}/bbh/{subtask}.json" for folder in FOLDERS]
    folders = [f"{folder}/{subtask}" for folder in COPIES]
    paths = published_or_copied(data, names, folders, "test", COPIES[1])
    return [(row["input"], row["target"]) for path in paths for row in _entries(path)]


def _entries(path: Path) -> Iterator[_Row]:
    if path.parent.name == "bbh":
        yield from with_rows(path, PUBLISHED.check_row(str(path), read_json_value(path), AGAIN)["examples"])
    else:  # of a copy, in the sub-task's folder
        yield from (ROW.check_row(where, row, AGAIN) for where, row in read_rows(path))
