"""What lm-evaluation-harness asked of HellaSwag in September 2023, and how it scored the answers.

Source: EleutherAI/lm-evaluation-harness, ``lm_eval/tasks/hellaswag.py``, ``lm_eval/base.py`` (``BaseLM._encode_pair``,
``MultipleChoiceTask.process_results``) and ``lm_eval/models/gpt2.py`` (``hf-causal``) before its rewrite as 0.4. The
texts come from the function that today's harness still has word for word.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from lm_eval.tasks.hellaswag.utils import preprocess
from transformers import PreTrainedTokenizerBase

Row = dict[str, Any]


def query(row: Row) -> str:
    """The context, with no worked examples in front."""
    ctx = row["ctx_a"] + " " + row["ctx_b"].capitalize()
    return str(preprocess(row["activity_label"] + ": " + ctx))


def choices(row: Row) -> list[str]:
    return [preprocess(ending) for ending in row["endings"]]


def requests(row: Row, tokenizer: PreTrainedTokenizerBase) -> list[tuple[list[int], list[int]]]:
    """Context and continuation of each ending as token ids."""
    return [_encode_pair(query(row), f" {choice}", tokenizer) for choice in choices(row)]


def scores(row: Row, sums: Sequence[float]) -> dict[str, float]:
    """``process_results``: the right ending has the largest sum, or the largest sum per character."""
    lengths = np.array([float(len(choice)) for choice in choices(row)])
    gold = int(row["label"])
    return {"acc": float(np.argmax(sums) == gold), "acc_norm": float(np.argmax(np.array(sums) / lengths) == gold)}


def _encode_pair(context: str, continuation: str, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    n_spaces = len(context) - len(context.rstrip())
    if n_spaces > 0:
        continuation = context[-n_spaces:] + continuation
        context = context[:-n_spaces]
    whole = tokenizer.encode(context + continuation, add_special_tokens=False)
    alone = tokenizer.encode(context, add_special_tokens=False)
    return alone, whole[len(alone) :]
