"""MMLU (Hendrycks et al. 2021, arXiv:2009.03300): 57 subjects, four choices, answered by letter.

Data: https://github.com/hendrycks/test (MIT), ``mmlu/dev`` and ``mmlu/test`` of header-less CSV files; or
``cais/mmlu`` on the hub, or a copy of it. A worked row of the prompt, 5-shot:

    The following are multiple choice questions (with answers) about abstract algebra.

    Find all c in Z_3 such that Z_3[x]/(x^2 + c) is a field.
    A. 0
    B. 1
    C. 2
    D. 3
    Answer: B

    [four more] [the question itself, ending in "Answer:"]

White space is lm-evaluation-harness's (0.4.13, task ``mmlu``): questions are stripped, choices are not; one space
stands between "Answer:" and the letter, so the letter's token is the one with a leading space; a blank line separates
shots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from typing_extensions import TypedDict

from eval.data.hub_copy import published_or_copied, split_folders
from eval.data.readers import read_csv, read_hub, read_rows
from eval.data.text_file import AGAIN
from eval.tasks.base import LETTERS, ExactMatch, Loaded, LoadOptions, letter_doc, loaded, shots_of
from orin_runner.errors import UserError
from orin_runner.schema import Schema, shown

FOLDERS = ("mmlu", "mmlu/data", "data")
COPIES = ("mmlu", "cais/mmlu")
HUB = ("cais/mmlu", "c30699e8356da336a370243923dbaf21066bb9fe")
SUBJECTS = tuple(
    """abstract_algebra anatomy astronomy business_ethics clinical_knowledge college_biology college_chemistry
    college_computer_science college_mathematics college_medicine college_physics computer_security conceptual_physics
    econometrics electrical_engineering elementary_mathematics formal_logic global_facts high_school_biology
    high_school_chemistry high_school_computer_science high_school_european_history high_school_geography
    high_school_government_and_politics high_school_macroeconomics high_school_mathematics high_school_microeconomics
    high_school_physics high_school_psychology high_school_statistics high_school_us_history high_school_world_history
    human_aging human_sexuality international_law jurisprudence logical_fallacies machine_learning management marketing
    medical_genetics miscellaneous moral_disputes moral_scenarios nutrition philosophy prehistory
    professional_accounting professional_law professional_medicine professional_psychology public_relations
    security_studies sociology us_foreign_policy virology world_religions""".split()
)


@dataclass(frozen=True, slots=True)
class _Row:
    question: str
    choices: tuple[str, ...]
    answer: str

    def text(self) -> str:
        lines = [f"{letter}. {choice}" for letter, choice in zip(LETTERS, self.choices, strict=True)]
        return "\n".join([self.question.strip(), *lines, "Answer:"])


class _HubRow(TypedDict):
    question: str
    choices: list[str]
    answer: Literal[0, 1, 2, 3]


HUB_ROW = Schema(_HubRow)
_Placed = tuple[str, dict[str, Any]]  # where a row stands, and the row


class MMLU(ExactMatch):
    """5-shot letters, per subject and weighted by questions."""

    name = "mmlu"
    title = "MMLU"
    source = "github.com/hendrycks/test"
    licence = "MIT"
    metric = "letter with the highest log-probability"
    metrics: tuple[str, ...] = ("acc",)
    default_shots = 5
    phi3_shots: int | None = 5
    splits: tuple[str, ...] = ("test",)

    def load(self, options: LoadOptions) -> Loaded:
        docs = []
        read: dict[Path, list[_Placed]] = {}
        for subject in SUBJECTS:
            dev = list(_rows(options, subject, "dev", read))
            shots = shots_of(self, options, len(dev), subject)
            intro = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
            worked = "".join(f"{row.text()} {row.answer}\n\n" for row in dev[:shots])
            for i, row in enumerate(_rows(options, subject, "test", read)):
                docs.append(letter_doc(f"{subject}/{i}", subject, intro + worked + row.text(), row.answer))
        return loaded(docs, self.splits[0], options)


def _rows(options: LoadOptions, subject: str, split: str, read: dict[Path, list[_Placed]]) -> Iterator[_Row]:
    """The rows of a subject; ``read`` keeps those of files that hold all subjects."""
    if options.data is None:
        yield from (_hub_row(row, where) for where, row in read_hub(*HUB, subject, split))
        return
    names = [f"{folder}/{split}/{subject}_{split}.csv" for folder in FOLDERS]
    folders = [f"{folder}/{subject}" for folder in COPIES] + split_folders(COPIES, "all")
    for path in published_or_copied(options.data, names, folders, split, HUB[0]):
        if ".csv" in path.suffixes:
            yield from _published(path)
            continue
        if path not in read:
            read[path] = list(read_rows(path))
        own = subject in (path.parent.name, path.parent.parent.name)
        for where, row in read[path]:
            if not own and not isinstance(row.get("subject"), str):
                raise UserError(f"{where}: no 'subject', in a file of all subjects", AGAIN)
            if (row.get("subject") or subject) == subject:
                yield _hub_row(row, where)


def _published(path: Path) -> Iterator[_Row]:
    for line, (question, *choices, answer) in read_csv(path, 6):
        if answer not in LETTERS:
            raise UserError(f"{path}, line {line}: the answer is {shown(answer)}, not one of A, B, C, D", AGAIN)
        yield _Row(question, tuple(choices), answer)


def _hub_row(row: dict[str, Any], where: str) -> _Row:
    found = HUB_ROW.check_row(where, row, AGAIN)
    if len(found["choices"]) != len(LETTERS):
        raise UserError(f"{where}: {len(found['choices'])} choices instead of {len(LETTERS)}", AGAIN)
    return _Row(found["question"], tuple(found["choices"]), LETTERS[found["answer"]])
