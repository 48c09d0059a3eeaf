"""CommonsenseQA (Talmor et al. 2019, arXiv:1811.00937): five choices, answered by letter.

Data: https://www.tau-nlp.sites.tau.ac.il/commonsenseqa (MIT), ``dev_rand_split.jsonl``, whose labels are public, and
``train_rand_split.jsonl``; or ``tau/commonsense_qa`` on the hub. A worked row of the prompt:

    Question: What do people aim to do at work?
    A. complete job
    B. learn from each other
    C. kill animals
    D. wear hats
    E. talk to each other
    Answer: A

White space is lm-evaluation-harness's (0.4.13, ``commonsense_qa``): the question is stripped, choices are not; one
space stands between "Answer:" and the letter, so the letter's token is the one with a leading space.
"""

from __future__ import annotations

from eval.tasks.base import Scoring
from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, labelled


class CommonsenseQA(MultipleChoice):
    """Letters by default."""

    name = "commonsense_qa"
    title = "CommonsenseQA"
    source = "tau-nlp.sites.tau.ac.il/commonsenseqa"
    licence = "MIT"
    metric = "letter with the highest log-probability"
    phi3_shots: int | None = 10
    hub = ("tau/commonsense_qa", "94630fe30dad47192a8546eb75f094926d47e155", None)
    parts = (
        Part(
            "validation",
            ("dev_rand_split.jsonl",),
            ("train_rand_split.jsonl", "train_first300.jsonl"),
            "validation",
        ),
    )
    scoring: Scoring = "letters"

    def item(self, row: Row) -> Item:
        stem, choices, right = labelled(row)
        return Item(f"Question: {stem.strip()}", choices, (right,))
