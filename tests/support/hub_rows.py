"""Rows of published data files as the hub holds them, which is what lm-evaluation-harness's tasks read.

Each function takes one row of the published file. Sources: the data sets' cards and loading scripts on the hub.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def arc(row: Row) -> Row:
    """``allenai/ai2_arc``."""
    return {
        "id": row["id"],
        "question": row["question"]["stem"],
        "choices": _columns(row["question"]["choices"]),
        "answerKey": row["answerKey"],
    }


def openbookqa(row: Row) -> Row:
    """``allenai/openbookqa``, configuration ``main``."""
    return {
        "id": row["id"],
        "question_stem": row["question"]["stem"],
        "choices": _columns(row["question"]["choices"]),
        "answerKey": row["answerKey"],
    }


def commonsense_qa(row: Row) -> Row:
    """``tau/commonsense_qa``."""
    return {
        "id": row["id"],
        "question": row["question"]["stem"],
        "question_concept": row["question"].get("question_concept", ""),
        "choices": _columns(row["question"]["choices"]),
        "answerKey": row["answerKey"],
    }


def winogrande(row: Row) -> Row:
    """``allenai/winogrande``."""
    return {key: row[key] for key in ("sentence", "option1", "option2", "answer")}


def boolq(row: Row) -> Row:
    """``aps/super_glue``, configuration ``boolq``: SuperGLUE puts the article's title in front of the passage."""
    passage = f"{row['title']} -- {row['passage']}"
    return {"question": row["question"], "passage": passage, "label": int(row["answer"])}


def hellaswag(row: Row) -> Row:
    """``Rowan/hellaswag``: the published file with labels as text."""
    return {**row, "label": str(row["label"])}


def piqa(row: Row, label: str) -> Row:
    """``baber/piqa``; the label stands in a file of its own."""
    return {**row, "label": int(label)}


def siqa(row: Row, label: str) -> Row:
    """``lighteval/siqa``; the label stands in a file of its own."""
    return {**row, "label": label.strip()}


def anli(row: Row) -> Row:
    """``facebook/anli``."""
    hypothesis = row["hypothesis"] if "hypothesis" in row else row["statement"]
    return {
        "uid": row["uid"],
        "premise": row["context"],
        "hypothesis": hypothesis,
        "label": "enc".index(row["label"]),
        "reason": row.get("reason", ""),
    }


def truthfulqa(row: Row) -> Row:
    """``truthfulqa/truthful_qa``, configuration ``multiple_choice``, of ``mc_task.json``."""
    targets = {
        name: {"choices": list(row[name]), "labels": list(row[name].values())}
        for name in ("mc1_targets", "mc2_targets")
    }
    return {"question": row["question"], **targets}


def medqa(row: Row) -> Row:
    """``GBaker/MedQA-USMLE-4-options-hf``."""
    endings = {f"ending{i}": row["options"][letter] for i, letter in enumerate("ABCD")}
    label = "ABCD".index(row["answer_idx"])
    return {"id": "test-00000", "sent1": row["question"], "sent2": "", **endings, "label": label}


def agieval(row: Row) -> Row:
    """``hails/agieval-...``: the authors' zero-shot prompts (``src/dataset_loader.py``, ``convert_zero_shot``)."""
    asked = f"{row['passage'] or ''}Q: {row['question']}"
    if not row["options"]:
        return {"query": f"{asked}\nA: The answer is", "answer": row["answer"]}
    last = "ABCDEFG"[len(row["options"]) - 1]
    query = f"{asked} Answer Choices: {' '.join(row['options'])}\nA: Among A through {last}, the answer is"
    return {"query": query, "choices": row["options"], "gold": ["ABCDEFG".index(row["label"])]}


def drop(passages: dict[str, Any]) -> list[Row]:
    """``EleutherAI/drop`` of ``drop_dataset_dev.json``: one row per question, validated answers by column."""
    rows = []
    for section, entry in passages.items():
        for pair in entry["qa_pairs"]:
            validated = [_drop_answer(answer) for answer in pair.get("validated_answers", [])]
            rows.append(
                {
                    "section_id": section,
                    "query_id": pair["query_id"],
                    "passage": entry["passage"],
                    "question": pair["question"],
                    "answer": _drop_answer(pair["answer"]),
                    "validated_answers": {
                        key: [answer[key] for answer in validated] for key in ("number", "date", "spans")
                    },
                }
            )
    return rows


def _drop_answer(answer: Row) -> Row:
    date = {key: answer.get("date", {}).get(key, "") for key in ("day", "month", "year")}
    return {"number": answer.get("number", ""), "date": date, "spans": answer.get("spans", [])}


def _columns(choices: Sequence[Row]) -> Row:
    return {key: [choice[key] for choice in choices] for key in ("text", "label")}
