"""For each multiple-choice task a row in its published form, awkward where it can be, and the prompt it becomes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.tasks.doc import Doc


def jsonl(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def listed(stem: str, texts: Sequence[str], answer: str, labels: str = "ABCDE") -> dict[str, Any]:
    """A row of ARC, OpenBookQA and CommonsenseQA as published."""
    choices = [{"text": text, "label": label} for text, label in zip(texts, labels, strict=False)]
    return {"id": "7", "question": {"stem": stem, "choices": choices}, "answerKey": answer}


def _medqa(question: str, texts: str, answer: str) -> dict[str, Any]:
    """A row of MedQA as published."""
    options = dict(zip("ABCD", texts.split(","), strict=True))
    extra = {"answer": options[answer], "meta_info": "step1", "metamap_phrases": []}
    return {"question": question, "options": options, "answer_idx": answer, **extra}


QUESTIONS = (
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\n"
    "A: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\n"
    "A: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\n"
    "A: The 1992 Olympics were held in Barcelona, Spain.\n\n"
)


@dataclass(frozen=True)
class Golden:
    """Published files, and what the first question is to be; ``train`` is a file, then the prompt with one shot."""

    files: dict[str, str]
    prompt: str | tuple[str, ...]
    choices: tuple[str, ...]
    target: str
    train: tuple[str, str] = ("", "")
    shot: str = ""
    right: tuple[str, ...] = ()


GOLDEN = {
    "commonsense_qa": Golden(
        {
            "commonsense_qa/dev_rand_split.jsonl": jsonl(
                listed(" Where do crabs sleep? ", ["sea", "a  bed", "sky", "x", "y"], "B")
            )
        },
        "Question: Where do crabs sleep?\nA. sea\nB. a  bed\nC. sky\nD. x\nE. y\nAnswer:",
        (" A", " B", " C", " D", " E"),
        "B",
        ("commonsense_qa/train_rand_split.jsonl", jsonl(listed("Who?", list("vwxyz"), "E"))),
        "Question: Who?\nA. v\nB. w\nC. x\nD. y\nE. z\nAnswer: E\n\n",
    ),
    "winogrande": Golden(
        {
            "winogrande/dev.jsonl": jsonl(
                {"qID": "1", "sentence": "Ann beat Eve, so _  won. ", "option1": "Ann", "option2": "Eve", "answer": "1"}
            )
        },
        ("Ann beat Eve, so Ann", "Ann beat Eve, so Eve"),
        (" won.", " won."),
        "1",
        (
            "winogrande/train_xl.jsonl",
            jsonl({"sentence": "The cup fit the box as _ was big.", "option1": "cup", "option2": "box", "answer": "2"}),
        ),
        "The cup fit the box as box was big.\n\n",
    ),
    "boolq": Golden(
        {
            "boolq/dev.jsonl": jsonl(
                {"question": "is ice cold", "title": "Ice", "answer": True, "passage": "Ice is cold."}
            )
        },
        "Ice -- Ice is cold.\nQuestion: is ice cold?\nAnswer:",
        (" no", " yes"),
        "yes",
        (
            "boolq/train.jsonl",
            jsonl({"question": "is fire cold", "title": "Fire", "answer": False, "passage": "Fire is hot."}),
        ),
        "Fire -- Fire is hot.\nQuestion: is fire cold?\nAnswer: no\n\n",
    ),
    "openbookqa": Golden(
        {"openbookqa/test.jsonl": jsonl(listed("Frogs eat", ["flies", "cars", "stones", "sand"], " A"))},
        "Frogs eat",
        (" flies", " cars", " stones", " sand"),
        "A",
        ("openbookqa/train.jsonl", jsonl(listed("Cows eat", ["cars", "grass", "x", "y"], "B"))),
        "Cows eat grass\n\n",
    ),
    "hellaswag": Golden(
        {
            "hellaswag/hellaswag_val.jsonl": jsonl(
                {
                    "ind": 24,
                    "activity_label": "Cooking",
                    "ctx_a": "[header] How to cook [title] Boil water. [step] Use  a pot.",
                    "ctx_b": "the Cook",
                    "ctx": "unused",
                    "endings": ["sings.", " stirs [substeps] it  well.", "eats [title] Then sleeps.", "[x]"],
                    "label": 2,
                }
            )
        },
        "Cooking: How to cook. Boil water. Use a pot. The cook",
        (" sings.", " stirs it well.", " eats. Then sleeps.", " "),
        "C",
        (
            "hellaswag/hellaswag_train.jsonl",
            jsonl({"activity_label": "Ski", "ctx_a": "A man.", "ctx_b": "he", "endings": list("abcd"), "label": 3}),
        ),
        "Ski: A man. He d\n\n",
    ),
    "arc_easy": Golden(
        {"arc_easy/ARC-Easy-Test.jsonl": jsonl(listed("Which is hot?", ["ice", "fire", "snow"], "2", "123"))},
        "Question: Which is hot?\nAnswer:",
        (" ice", " fire", " snow"),
        "B",
        ("arc_easy/ARC-Easy-Train.jsonl", jsonl(listed("Which is wet?", ["rain", "sand"], "A"))),
        "Question: Which is wet?\nAnswer: rain\n\n",
    ),
    "arc_challenge": Golden(
        {
            "arc_challenge/ARC-Challenge-Test.jsonl": jsonl(
                listed("Which sinks?", ["cork", "oil", "air", "wax", "iron"], "E")
            )
        },
        "Question: Which sinks?\nAnswer:",
        (" cork", " oil", " air", " wax", " iron"),
        "E",
        ("arc_challenge/ARC-Challenge-Dev.jsonl", jsonl(listed("Which is wet?", ["rain", "sand"], "A"))),
        "Question: Which is wet?\nAnswer: rain\n\n",
    ),
    "piqa": Golden(
        {
            "piqa/valid.jsonl": jsonl({"goal": "Open a jar", "sol1": "Hit it.", "sol2": "Turn the lid."}),
            "piqa/valid-labels.lst": "1\n",
            "piqa/train-labels.lst": "0\n",
        },
        "Question: Open a jar\nAnswer:",
        (" Hit it.", " Turn the lid."),
        "B",
        ("piqa/train.jsonl", jsonl({"goal": "Dry hair", "sol1": "Use a towel.", "sol2": "Use soup."})),
        "Question: Dry hair\nAnswer: Use a towel.\n\n",
    ),
    "siqa": Golden(
        {
            "siqa/dev.jsonl": jsonl(
                {
                    "context": "Al fell.",
                    "question": "How is Al?",
                    "answerA": "glad",
                    "answerB": "red",
                    "answerC": "hurt",
                }
            ),
            "siqa/dev-labels.lst": "3\n",
            "siqa/train-labels.lst": "1\n",
        },
        "Q: Al fell. How is Al?\nA:",
        (" glad", " red", " hurt"),
        "C",
        (
            "siqa/train.jsonl",
            jsonl({"context": "Bo won.", "question": "How is Bo?", "answerA": "glad", "answerB": "b", "answerC": "c"}),
        ),
        "Q: Bo won. How is Bo?\nA: glad\n\n",
    ),
    "truthfulqa_mc2": Golden(
        {
            "truthfulqa/mc_task.json": json.dumps(
                [{"question": "Do pigs fly?", "mc1_targets": {}, "mc2_targets": {"Yes": 0, "No": 1, "Never": 1}}]
            )
        },
        f"{QUESTIONS}Q: Do pigs fly?\nA:",
        (" Yes", " No", " Never"),
        "B",
        right=("B", "C"),
    ),
    "truthfulqa_mc1": Golden(
        {
            "truthfulqa/mc_task.json": json.dumps(
                [{"question": "Do pigs fly?", "mc1_targets": {"No": 1, "Yes": 0, "Once": 0}, "mc2_targets": {}}]
            )
        },
        f"{QUESTIONS}Q: Do pigs fly?\nA:",
        (" No", " Yes", " Once"),
        "A",
    ),
    "medqa": Golden(
        {
            "medqa/phrases_no_exclude_test.jsonl": jsonl(
                _medqa(" Which nerve tastes? ", "Facial,Optic,Ulnar ,Vagus", "C")
            )
        },
        "Question:  Which nerve tastes? \nA. Facial\nB. Optic\nC. Ulnar \nD. Vagus\nAnswer:",
        (" A", " B", " C", " D"),
        "C",
        ("medqa/phrases_no_exclude_train.jsonl", jsonl(_medqa("Which bone?", "w,x,y,z", "D"))),
        "Question: Which bone?\nA. w\nB. x\nC. y\nD. z\nAnswer: D\n\n",
    ),
    "anli": Golden(
        {
            f"anli/R{r}/{split}.jsonl": jsonl(
                {"uid": "u", "context": f"Al has {r} cats.", "hypothesis": "Al has a cat.", "label": "e"}
            )
            for r in (1, 2, 3)
            for split in ("test", "train")
        },
        "Al has 1 cats.\nQuestion: Al has a cat. True, False, or Neither?\nAnswer:",
        (" True", " Neither", " False"),
        "True",
        ("anli/R1/train.jsonl", jsonl({"uid": "v", "context": "It rains.", "hypothesis": "It is dry.", "label": "c"})),
        "It rains.\nQuestion: It is dry. True, False, or Neither?\nAnswer: False\n\n",
    ),
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def choice_doc(prompt: str = "p", choices: tuple[str, ...] = (" a", " b"), **fields: Any) -> Doc:
    labels = tuple("ABCD"[: len(choices)])
    return Doc("0", "g", prompt, "choose", choices, labels, fields.pop("target", "A"), **fields)
