"""What a run makes of the harness's samples: no more than they say."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from eval.harness.predictions import item_metrics, predictions
from orin_runner.requests import Tokens

CONTEXTS = {"one": [5, 6], "two": [7, 8, 9], "": [1]}


def prompts(arguments: Sequence[Any]) -> tuple[Tokens, int]:
    """Of a request: its context's tokens, and how many it lost."""
    return np.array(CONTEXTS[arguments[0]], np.int32), len(CONTEXTS[arguments[0]]) - 2


def sample(doc: int, target: Any, responses: list[Any], *, kept: str = "none", **metrics: Any) -> dict[str, Any]:
    """``SampleResult`` of one document, each continuation after the context "one"."""
    return {
        "doc_id": doc,
        "target": target,
        "arguments": [("one", f" choice {i}") for i in range(len(responses))],
        "resps": [[response] for response in responses],
        "filtered_resps": responses,
        "filter": kept,
        "metrics": list(metrics),
        **metrics,
    }


def results(kind: str, better: dict[str, bool], **values: float) -> dict[str, Any]:
    """``EvalResults`` of task "t"; of a metric with a filter the name has two underscores."""
    named = {key.replace("__", ",") if "__" in key else f"{key},none": value for key, value in values.items()}
    return {"results": {"t": named}, "higher_is_better": {"t": better}, "configs": {"t": {"output_type": kind}}}


CHOICES = [(-2.0, False), (-1.0, True), (-3.0, False)]


def test_choices() -> None:
    """The number of the best and of the right one, whether the harness says it by number or by text."""
    rows = [sample(1, 1, CHOICES, acc=1.0, acc_norm=0.0), sample(0, "choice 2", CHOICES, acc=0.0, acc_norm=1.0)]
    found = predictions(
        "t", rows, results("multiple_choice", {"acc": True, "acc_norm": True}, acc=0.5, acc_norm=0.5), prompts
    )
    assert [(p.id, p.prediction, p.target, p.correct) for p in found] == [("0", "1", "2", False), ("1", "1", "1", True)]
    assert [p.scores for p in found] == [{"acc": 0.0, "acc_norm": 1.0}, {"acc": 1.0, "acc_norm": 0.0}]
    assert {p.logprobs for p in found} == {(-2.0, -1.0, -3.0)}
    assert {(p.margin, p.text, p.n_tokens) for p in found} == {(None, None, 2)}
    assert found[0].tokens_sha256 == hashlib.sha256(np.array([5, 6], "<i4").tobytes()).hexdigest()


def test_choices_in_the_sentence_and_mutual_information() -> None:
    """The same text after each context is no name for a choice; what is scored without a context is no choice."""
    row = sample(0, "same", CHOICES[:2], acc=1.0)
    row["arguments"] = [("one", " same"), ("two", " same")]
    (found,) = predictions("t", [row], results("multiple_choice", {"acc": True}, acc=1.0), prompts)
    assert (found.target, found.prediction, found.n_tokens, found.truncated) == ("same", "1", 3, 1)
    both = np.array([5, 6, 7, 8, 9], "<i4").tobytes()
    assert found.tokens_sha256 == hashlib.sha256(both).hexdigest()
    row = sample(0, 0, [(-2.0, False), (-3.0, False), (-9.0, False), (-0.1, True)], acc=1.0, acc_mutual_info=1.0)
    better = {"acc": True, "acc_mutual_info": True}
    (found,) = predictions("t", [row], results("multiple_choice", better, acc=1.0, acc_mutual_info=1.0), prompts)
    assert (found.prediction, found.logprobs) == ("0", (-2.0, -3.0))


def test_texts_under_several_filters() -> None:
    """One item, a score for each; the first filter's answer is the prediction, the text is as generated."""
    rows = []
    for kept, answer, score in (("strict", "[invalid]", 0.0), ("flexible", "12", 1.0)):
        rows.append({**sample(3, "12", ["It is 12 "], kept=kept, exact_match=score), "filtered_resps": [answer]})
    whole = results("generate_until", {"exact_match": True}, exact_match__strict=0.0, exact_match__flexible=1.0)
    (found,) = predictions("t", rows, whole, prompts)
    assert found.scores == {"exact_match,strict": 0.0, "exact_match,flexible": 1.0}
    assert (found.prediction, found.text, found.target, found.correct) == ("[invalid]", "It is 12 ", "12", False)


def test_a_single_continuation() -> None:
    """The target where it is the greedy one; else nobody knows what is. Perplexity is no score of an item."""
    rows = [
        sample(i, "end", [(-1.0, greedy)], perplexity=-1.0, acc=int(greedy)) for i, greedy in enumerate((True, False))
    ]
    whole = results("loglikelihood", {"perplexity": False, "acc": True}, perplexity=2.7, acc=0.5)
    found = predictions("t", rows, whole, prompts)
    assert [(p.prediction, p.target, p.correct, p.scores) for p in found] == [
        ("end", "end", True, {"acc": 1.0}),
        ("", "end", False, {"acc": 0.0}),
    ]


@pytest.mark.parametrize(
    ("values", "whole", "better"),
    [
        ([0.5, 1.0], 0.6, True),  # not their mean: F1, say
        ([0.5, 1.0], 0.75, False),  # less is better
        ([50.0, 100.0], 75.0, True),  # of a hundred
        ([(1, 0), (1, 1)], 0.5, True),  # pairs, for the whole task
        ([0.5, float("nan")], float("nan"), True),
    ],
)
def test_what_is_no_score_of_an_item(values: list[Any], whole: float, better: bool) -> None:
    """A task that has nothing else has no predictions."""
    rows = [sample(i, 1, CHOICES, m=value) for i, value in enumerate(values)]
    found = results("multiple_choice", {"m": better}, m=whole)
    assert item_metrics("t", rows, found) == {}
    assert predictions("t", rows, found, prompts) == []
    good = results("multiple_choice", {"m": True}, m=0.75)
    assert item_metrics("t", [sample(i, 1, CHOICES, m=v) for i, v in enumerate((0.5, 1.0))], good) == {
        "m": ("m", "none")
    }


def test_a_metric_of_some_items_only_is_none() -> None:
    rows = [sample(0, 1, CHOICES, acc=1.0, odd=0.0), sample(1, 1, CHOICES, acc=1.0)]
    found = results("multiple_choice", {"acc": True, "odd": True}, acc=1.0, odd=0.0)
    assert item_metrics("t", rows, found) == {"acc": ("acc", "none")}
