"""BBH, DROP and GSM8K against lm-evaluation-harness: prompts on real rows, scores on drawn texts."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from eval.tasks.base import LoadOptions
from eval.tasks.bbh import SUBTASKS
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task

lm_eval = pytest.importorskip("lm_eval")
HARNESS = Path(lm_eval.__file__).parent / "tasks"
WORDS = ["the", "a", "14", "14.0", "1,400", "7-yard", "U.S.", "Home", "team,", "and", "three", "-", "$5", "3rd", ".5"]


@pytest.mark.parametrize(("task", "kind"), [("bbh", "cot_fewshot"), ("bbh_direct", "fewshot")])
def test_bbh_prompts_are_the_harness_s(orin_data: Path, task: str, kind: str) -> None:
    """All 27: what the published prompts give equals what the harness's files spell out."""
    docs = get_task(task).load(LoadOptions(orin_data)).docs
    between = "" if kind == "cot_fewshot" else " "
    for subtask in SUBTASKS:
        config = yaml.safe_load((HARNESS / "bbh" / kind / f"{subtask}.yaml").read_text(encoding="utf-8"))
        before, after = config["doc_to_text"].split("{{input}}")
        worked = [before + s["input"] + after + between + s["target"] for s in config["fewshot_config"]["samples"]]
        start = config["description"] + "\n\n".join([*worked, before])
        rows = json.loads((orin_data / "bbh" / "bbh" / f"{subtask}.json").read_text(encoding="utf-8"))["examples"]
        ours = [(doc.prompt, doc.target) for doc in docs if doc.group == subtask]
        assert ours == [(start + row["input"] + after, row["target"]) for row in rows]


@pytest.mark.parametrize(
    ("task", "file", "name"),
    [
        ("bbh", "bbh/cot_fewshot/_cot_fewshot_template_yaml", "get-answer"),
        ("gsm8k", "gsm8k/gsm8k.yaml", "strict-match"),
        ("gsm8k", "gsm8k/gsm8k.yaml", "flexible-extract"),
    ],
)
def test_answers_are_taken_out_as_the_harness_does(task: str, file: str, name: str) -> None:
    """Its filter and its exact match on two thousand drawn texts."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    config = yaml.safe_load((HARNESS / file).read_text(encoding="utf-8"))
    (kwargs,) = [f["filter"][0] for f in config["filter_list"] if f["name"] == name]
    regex = RegexFilter(**{key: value for key, value in kwargs.items() if key != "function"})
    ignore = {k: v for k, v in config["metric_list"][0].items() if k.startswith(("ignore", "regexes"))}
    rng = random.Random(1)
    parts = ["the answer is ", "#### ", "12", ".", "1,2", "####", "$1.2", "\n", " ", "-", "x", "(A)", "[invalid]"]
    weights = [6, 6, 6, 6, 2, *[1] * 8]
    target = {"bbh": "12", "gsm8k": "so <<1>>\n#### 12."}[task]
    doc = Doc("0", "", "", "generate", (), (), "12")
    hits = 0
    for _ in range(2000):
        text = "".join(rng.choices(parts, weights, k=rng.randrange(6)))
        taken = regex.apply([[text]], [{}])[0][0]
        theirs = float(exact_match_hf_evaluate([taken], [target], **ignore)["exact_match"])
        ours = get_task(task).score(doc, text)[name if task == "gsm8k" else "exact_match"]
        assert ours == theirs, text
        hits += int(theirs)
    assert hits > 5


def test_drop_scores_are_the_harness_s() -> None:
    """Exact match and F1 of drawn texts against drawn answers of one to three spans."""
    from lm_eval.tasks.drop import utils

    rng = random.Random(1)

    def text(longest: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randrange(longest + 1)))

    partly = 0
    for _ in range(3000):
        golds = [tuple(text(3) for _ in range(rng.choice([1, 1, 2, 3]))) for _ in range(rng.randrange(1, 4))]
        predicted = rng.choice([text(4), text(2), golds[0][0], f"{golds[0][0]} {text(1)}"])
        target, *others = ["\n".join(gold) for gold in golds]
        doc = Doc("0", "", "", "generate", (), (), target, references=tuple(others))
        theirs = utils.process_results({"answers": golds}, [predicted])
        assert get_task("drop").score(doc, predicted) == theirs, (predicted, golds)
        partly += 0 < theirs["f1"] < 1
    assert partly > 300
