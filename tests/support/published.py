"""Small files of every public task in their published form."""

from __future__ import annotations

import json

from eval.tasks.bbh import SUBTASKS
from eval.tasks.mmlu import SUBJECTS
from tests.support.choice_rows import GOLDEN, jsonl
from tests.support.harness_cases import DROP, GSM8K
from tests.support.phi3_rows import AGIEVAL, AGIEVAL_SUBTASKS, HUMANEVAL, MBPP, MMLU_PRO, TRIVIAQA

COT = "CANARY\n-----\nSay.\n\n" + "\n\n".join(
    f"Q: Is {n} odd?\nA: Let's think step by step.\nIt is {n}. So the answer is yes." for n in (1, 3, 5)
)
MESSAGE = {"message": [{"role": "user", "content": "q\nchoices: ['é', 'b']\n"}], "answer": "é"}
FILES = {name: golden.files for name, golden in GOLDEN.items()} | {
    "mmlu": {
        f"mmlu/{split}/{subject}_{split}.csv": '"In 1, what?",w,x,"y ""z""",é,B\nAnd?,1,2,3,4,D\n'
        for subject in SUBJECTS
        for split in ("dev", "test")
    },
    "bbh": {f"bbh/cot-prompts/{name}.txt": COT for name in SUBTASKS}
    | {
        f"bbh/bbh/{name}.json": json.dumps({"canary": "c", "examples": [{"input": "Is 7 odd?", "target": "é"}]})
        for name in SUBTASKS
    },
    "drop": {"drop/drop_dataset_dev.json": json.dumps(DROP)},
    "gsm8k": {"gsm8k/test.jsonl": jsonl(*GSM8K[:3]), "gsm8k/train.jsonl": jsonl(*GSM8K[3:])},
    "gsm8k_cot": {"gsm8k/test.jsonl": jsonl(*GSM8K[:3])},
    "humaneval": {"humaneval/HumanEval.jsonl": jsonl(*HUMANEVAL)},
    "mbpp": {"mbpp/mbpp.jsonl": jsonl(*MBPP)},
    "triviaqa": {"triviaqa/validation.jsonl": jsonl(*TRIVIAQA[:3]), "triviaqa/train.jsonl": jsonl(*TRIVIAQA[3:])},
    "mmlu_pro": {f"mmlu_pro/{split}.jsonl": jsonl(*rows) for split, rows in MMLU_PRO.items()},
    "agieval": {
        f"agieval/{subtask}.jsonl": jsonl(*AGIEVAL["math" if subtask == "math" else "choices"])
        for subtask in AGIEVAL_SUBTASKS
    },
    "challenge": {"cechallenge2024/test_dataset.jsonl": jsonl(MESSAGE)},
}
SHOTS = {"mmlu": 2, "challenge": None}
