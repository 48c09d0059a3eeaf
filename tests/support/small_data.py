"""Small files in the form of published data sets: choices that share words, prompts that share lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.choice_rows import jsonl, write

SUBTASKS = (
    "boolean_expressions causal_judgement date_understanding disambiguation_qa dyck_languages formal_fallacies "
    "geometric_shapes hyperbaton logical_deduction_five_objects logical_deduction_seven_objects "
    "logical_deduction_three_objects movie_recommendation multistep_arithmetic_two navigate object_counting "
    "penguins_in_a_table reasoning_about_colored_objects ruin_names salient_translation_error_detection snarks "
    "sports_understanding temporal_sequences tracking_shuffled_objects_five_objects "
    "tracking_shuffled_objects_seven_objects tracking_shuffled_objects_three_objects web_of_lies word_sorting"
).split()
"""Of BIG-Bench Hard; the files of all must be there."""
WORKED = "canary\n-----\n{intro}\n\nQ: {one}\nA: Let's think step by step.\nIt is said. So the answer is {two}.\n"
BOATS = ("Fenmoon", "Jorstone", "Golcloud", "Rosbird", "Halim", "Nelvis", "Velar", "Solac")


def hellaswag_rows() -> list[dict[str, Any]]:
    """Twelve scenes, with endings that begin alike, are equal, or are of one word."""
    rows = []
    for i in range(12):
        boat, other = BOATS[i % 8], BOATS[(i + 3) % 8]
        endings = [
            f"buys the boat {boat} from {other}.",
            f"buys the boat {boat} again.",
            f"says {other}" if i % 3 else f"buys the boat {boat} again.",
            "waits.",
        ]
        rows.append(
            {
                "ind": i,
                "activity_label": "Sailing",
                "ctx_a": f"They say that {other} owns the boat {boat}.",
                "ctx_b": "then she",
                "ctx": "unused",
                "endings": endings,
                "label": i % 4,
            }
        )
    return rows


def winogrande_rows() -> list[dict[str, Any]]:
    """Ten sentences; two begin alike."""
    rows = []
    for i in range(10):
        one, two = BOATS[i // 2], BOATS[(i // 2 + 1) % 8]
        sentence = f"They say that {one} met {two} and _ {'owns the boat' if i % 2 else 'must say the word malten'}."
        rows.append({"sentence": sentence, "option1": one, "option2": two, "answer": "12"[i % 2]})
    return rows


def bbh_rows(subtask: str) -> list[dict[str, str]]:
    """Two questions a sub-task; the second names its answers, which are then verified drafts."""
    boat = BOATS[len(subtask) % 8]
    options = "\nOptions:\n(A) Fenmoon\n(B) Rosbird"
    return [
        {"input": f"Which boat belongs to {boat}?", "target": "Fenmoon"},
        {"input": f"Which boat is it, says {boat}?{options}", "target": "(A)"},
    ]


def small_data(folder: Path) -> Path:
    """HellaSwag, WinoGrande and BIG-Bench Hard."""
    files = {
        "hellaswag/hellaswag_val.jsonl": jsonl(*hellaswag_rows()),
        "winogrande/dev.jsonl": jsonl(*winogrande_rows()),
    }
    for subtask in SUBTASKS:
        examples = {"intro": f"Answer about {subtask}.", "one": "Which boat belongs to Halim?", "two": "Golcloud"}
        files[f"bbh/bbh/{subtask}.json"] = json.dumps({"examples": bbh_rows(subtask)})
        files[f"bbh/cot-prompts/{subtask}.txt"] = WORKED.format(**examples)
    return write(folder, files)
