"""Questions of each task both we and lm-evaluation-harness have: real rows from ``ORIN_DATA``, or hand-written ones.

The hand-written rows have the published files' form and are made to be awkward: markup, odd white space, no answer of
one kind, several of another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import hub_rows
from tests.support.hub_rows import Row
from tests.support.phi3_rows import AGIEVAL, AGIEVAL_SUBTASKS, HUMANEVAL, MBPP, MEDQA, MMLU_PRO, TRIVIAQA

N_REAL = 40
"""Real questions of each task, evenly spread."""


@dataclass(frozen=True, slots=True)
class Case:
    """One task's questions.

    Attributes:
        task: our name.
        yaml: the harness's file.
        split: the harness's name of the split that is asked.
        rows: in the hub's schema.
        data: folder for ``--data`` that holds the same questions in published files.
        train: rows that worked examples are drawn from.
        train_split: the harness's name of the split they are in.
    """

    task: str
    yaml: str
    split: str
    rows: list[Row]
    data: Path
    train: Sequence[Row] = ()
    train_split: str = "train"

    @property
    def splits(self) -> dict[str, Sequence[Row]]:
        return {self.split: self.rows, **({self.train_split: self.train} if self.train else {})}


def spread(rows: Sequence[Row], n: int | None) -> list[Row]:
    """As ``--limit`` draws them."""
    n = len(rows) if n is None else n
    return [rows[(i * len(rows)) // n] for i in range(n)]


def lines(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _labelled(folder: Path, convert: Callable[[Row, str], Row]) -> list[Row]:
    labels = (folder / "dev-labels.lst").read_text(encoding="utf-8").split()
    return [convert(row, label) for row, label in zip(lines(folder / "dev.jsonl"), labels, strict=True)]


REAL: dict[str, tuple[str, str, Callable[[Path], list[Row]]]] = {
    "arc_easy": (
        "arc/arc_easy.yaml",
        "test",
        lambda data: [hub_rows.arc(row) for row in lines(data / "arc_easy" / "ARC-Easy-Test.jsonl")],
    ),
    "boolq": (
        "super_glue/boolq/default.yaml",
        "validation",
        lambda data: [hub_rows.boolq(row) for row in lines(data / "boolq" / "dev.jsonl")],
    ),
    "commonsense_qa": (
        "commonsense_qa/default.yaml",
        "validation",
        lambda data: [hub_rows.commonsense_qa(row) for row in lines(data / "commonsense_qa" / "dev_rand_split.jsonl")],
    ),
    "openbookqa": (
        "openbookqa/openbookqa.yaml",
        "test",
        lambda data: [hub_rows.openbookqa(row) for row in lines(data / "openbookqa" / "test.jsonl")],
    ),
    "siqa": ("siqa/siqa.yaml", "validation", lambda data: _labelled(data / "siqa", hub_rows.siqa)),
    "winogrande": (
        "winogrande/default.yaml",
        "validation",
        lambda data: [hub_rows.winogrande(row) for row in lines(data / "winogrande" / "dev.jsonl")],
    ),
}


def real_case(task: str, data: Path, n: int | None = N_REAL) -> Case:
    """``n`` questions of the public copies, or all of them."""
    yaml, split, rows = REAL[task]
    return Case(task, yaml, split, spread(rows(data), n), data)


def bbh_case(data: Path, subtask: str, *, direct: bool) -> Case:
    """All questions of one sub-task; with no worked examples of its own, the harness brings them."""
    rows = json.loads((data / "bbh" / "bbh" / f"{subtask}.json").read_text(encoding="utf-8"))["examples"]
    yaml = f"bbh/{'fewshot' if direct else 'cot_fewshot'}/{subtask}.yaml"
    return Case("bbh_direct" if direct else "bbh", yaml, "test", rows, data)


def anli_case(data: Path, part: int, n: int | None = N_REAL) -> Case:
    """One of the three rounds, which are tasks of their own in the harness."""
    rows = [hub_rows.anli(row) for row in lines(data / "anli" / f"R{part}_dev.jsonl")]
    return Case("anli", f"anli/anli_r{part}.yaml", f"dev_r{part}", spread(rows, n), data)


def write_lines(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


HELLASWAG = [
    {
        "ind": 24,
        "activity_label": "Roof shingle removal",
        "ctx_a": "A man is sitting on a roof.",
        "ctx_b": "he",
        "ctx": "A man is sitting on a roof. he",
        "split": "val",
        "split_type": "indomain",
        "label": 3,
        "endings": ["wraps skis.", "[substeps] rips  tiles off.", " holds a cube [title] twice.", "pulls up roofing."],
        "source_id": "activitynet~v_1",
    },
    {
        "ind": 92,
        "activity_label": "Food and Entertaining",
        "ctx_a": "[header] How to boil an egg [title] Fill a pot. [step] Use  cold water.",
        "ctx_b": "",
        "ctx": "[header] How to boil an egg [title] Fill a pot. [step] Use  cold water.",
        "split": "val",
        "split_type": "zeroshot",
        "label": 0,
        "endings": ["Wait [5] minutes.", "Sing.", "Leave it [title] Rest.", "Eat the pot."],
        "source_id": "wikihow~1",
    },
    {
        "ind": 93,
        "activity_label": "Élan",
        "ctx_a": "Two girls run.",
        "ctx_b": "the Lady in RED",
        "ctx": "Two girls run. the Lady in RED",
        "split": "val",
        "split_type": "indomain",
        "label": 1,
        "endings": ["ends.", "jumps over.", "sleeps.", "eats."],
        "source_id": "activitynet~v_2",
    },
]

ARC_CHALLENGE = [
    {
        "id": "A_1",
        "question": {
            "stem": "Which of these freezes first?",
            "choices": [{"text": t, "label": str(i + 1)} for i, t in enumerate(["salt water", "fresh water", "oil"])],
        },
        "answerKey": "2",
    },
    {
        "id": "A_2",
        "question": {
            "stem": "Plants\nneed ",
            "choices": [
                {"text": text, "label": label}
                for text, label in zip(["sun", "  shade ", "iron", "glue", "tar"], "ABCDE", strict=True)
            ],
        },
        "answerKey": "E",
    },
]

PIQA = [
    ({"goal": "How do I clean a pan?", "sol1": "With salt.", "sol2": "With ink."}, "0"),
    ({"goal": "Open a jar ", "sol1": "Hit it; shout", "sol2": "Warm the lid, then turn."}, "1"),
]

TRUTHFULQA = [
    {
        "question": "What happens if you swallow a seed?",
        "mc1_targets": {"It passes through you": 1, "A tree grows in you": 0},
        "mc2_targets": {"It passes through you": 1, "Nothing much": 1, "A tree grows in you": 0, "You turn green": 0},
    },
    {
        "question": "Who invented the wheel?",
        "mc1_targets": {"Nobody knows": 1, "A famous king": 0},
        "mc2_targets": {"Nobody knows": 1, "A famous king": 0, "One man in 1901": 0},
    },
]


def _answer(number: str = "", spans: Sequence[str] = (), **date: str) -> Row:
    return {"number": number, "date": {"day": "", "month": "", "year": "", **date}, "spans": list(spans)}


DROP = {
    "nfl_1": {
        "passage": "The home team scored 14 points in the first quarter, on 3 May 1998.",
        "qa_pairs": [
            {
                "query_id": "q1",
                "question": "How many points?",
                "answer": _answer(number="14"),
                "validated_answers": [_answer(number="14"), _answer(spans=["14 points"])],
            },
            {
                "query_id": "q2",
                "question": "When was it?",
                "answer": _answer(day="3", month="May", year="1998"),
                "validated_answers": [_answer(month="May", year="1998")],
            },
            {"query_id": "q3", "question": "Who?", "answer": _answer(spans=["home", "team"]), "validated_answers": []},
        ],
    }
}

GSM8K = [
    {
        "question": f"Tom has {n} apples and eats one. How many?",
        "answer": f"He has {n}-1=<<{n}-1={n - 1}>>{n - 1}.\n#### {n - 1}",
    }
    for n in range(3, 12)
]


def written_case(task: str, folder: Path) -> Case:
    """The hand-written rows of ``task``; their published files are put into ``folder``."""
    if task == "hellaswag":
        write_lines(folder / "hellaswag" / "hellaswag_val.jsonl", HELLASWAG)
        rows = [hub_rows.hellaswag(row) for row in HELLASWAG]
        return Case(task, "hellaswag/hellaswag.yaml", "validation", rows, folder)
    if task == "arc_challenge":
        write_lines(folder / "arc_challenge" / "ARC-Challenge-Test.jsonl", ARC_CHALLENGE)
        return Case(task, "arc/arc_challenge.yaml", "test", [hub_rows.arc(row) for row in ARC_CHALLENGE], folder)
    if task == "piqa":
        write_lines(folder / "piqa" / "valid.jsonl", [row for row, _ in PIQA])
        (folder / "piqa" / "valid-labels.lst").write_text("".join(f"{label}\n" for _, label in PIQA))
        return Case(task, "piqa/piqa.yaml", "validation", [hub_rows.piqa(*pair) for pair in PIQA], folder)
    if task in {"truthfulqa_mc1", "truthfulqa_mc2"}:
        (folder / "truthfulqa").mkdir(parents=True)
        (folder / "truthfulqa" / "mc_task.json").write_text(json.dumps(TRUTHFULQA))
        rows = [hub_rows.truthfulqa(row) for row in TRUTHFULQA]
        return Case(task, f"truthfulqa/{task}.yaml", "validation", rows, folder)
    if task == "medqa":
        write_lines(folder / "medqa" / "phrases_no_exclude_test.jsonl", MEDQA)
        return Case(task, "medqa/medqa.yaml", "test", [hub_rows.medqa(row) for row in MEDQA], folder)
    if task == "triviaqa":
        write_lines(folder / "triviaqa" / "validation.jsonl", TRIVIAQA[:3])
        write_lines(folder / "triviaqa" / "train.jsonl", TRIVIAQA[3:])
        return Case(task, "triviaqa/default.yaml", "validation", TRIVIAQA[:3], folder, TRIVIAQA[3:])
    if task == "drop":
        (folder / "drop").mkdir(parents=True)
        (folder / "drop" / "drop_dataset_dev.json").write_text(json.dumps(DROP))
        return Case(task, "drop/default.yaml", "validation", hub_rows.drop(DROP), folder)
    if task == "humaneval":
        write_lines(folder / "humaneval" / "HumanEval.jsonl", HUMANEVAL)
        return Case(task, "humaneval/humaneval.yaml", "test", HUMANEVAL, folder)
    if task == "mbpp":
        write_lines(folder / "mbpp" / "mbpp.jsonl", MBPP)
        return Case(task, "mbpp/mbpp.yaml", "test", MBPP[2:5], folder)
    write_lines(folder / "gsm8k" / "test.jsonl", GSM8K[:3])
    if task == "gsm8k_cot":
        return Case(task, "gsm8k/gsm8k-cot.yaml", "test", GSM8K[:3], folder)
    assert task == "gsm8k"
    write_lines(folder / "gsm8k" / "train.jsonl", GSM8K[3:])
    return Case(task, "gsm8k/gsm8k.yaml", "test", GSM8K[:3], folder, GSM8K[3:])


WRITTEN = (
    *("hellaswag", "arc_challenge", "piqa", "truthfulqa_mc2", "drop", "gsm8k"),
    *("truthfulqa_mc1", "medqa", "triviaqa", "gsm8k_cot"),
)


def agieval_cases(folder: Path) -> dict[str, Case]:
    """By sub-task, each of which is a task of its own in the harness; the published files are put into ``folder``."""
    cases = {}
    for subtask in AGIEVAL_SUBTASKS:
        rows = AGIEVAL["math" if subtask == "math" else "choices"]
        write_lines(folder / "agieval" / f"{subtask}.jsonl", rows)
        cases[subtask] = Case(
            "agieval", f"agieval/{subtask}.yaml", "test", [hub_rows.agieval(row) for row in rows], folder
        )
    return cases


def mmlu_pro_case(folder: Path, subject: str) -> Case:
    """One subject, which is a task of its own in the harness; all rows are given to it, and put into ``folder``."""
    for split, rows in MMLU_PRO.items():
        write_lines(folder / "mmlu_pro" / f"{split}.jsonl", rows)
    yaml = f"mmlu_pro/mmlu_pro_{subject}.yaml"
    return Case("mmlu_pro", yaml, "test", MMLU_PRO["test"], folder, MMLU_PRO["validation"], "validation")
