"""ARC (Clark et al. 2018, arXiv:1803.05457): school science questions with three to five choices, easy and challenge.

Data: https://allenai.org/data/arc (CC BY-SA 4.0), ``ARC-Easy/ARC-Easy-Test.jsonl`` and
``ARC-Challenge/ARC-Challenge-Test.jsonl``; or ``allenai/ai2_arc`` on the hub. Worked examples come from the ``-Train``
file, or from ``-Dev`` where that is not there. A worked row of the prompt:

    Question: Which piece of safety equipment is used to keep mold spores from entering the respiratory system?
    Answer: breathing mask

White space is lm-evaluation-harness's (0.4.13, ``arc_easy``, ``arc_challenge``): question and choices verbatim, one
space before the choice. Some rows label their choices 1 to 4 instead of A to D; results always have letters.
"""

from __future__ import annotations

from eval.tasks.multiple_choice import Item, MultipleChoice, Part, Row, labelled

REVISION = "210d026faf9955653af8916fad021475a3f00453"


def _part(name: str) -> Part:
    return Part("test", (f"{name}-Test.jsonl",), (f"{name}-Train.jsonl", f"{name}-Dev.jsonl"), "test")


def _folders(task: str, name: str) -> tuple[str, ...]:
    return tuple(f"{above}{name}" for above in ("", f"{task}/", "ARC-V1-Feb2018-2/", f"{task}/ARC-V1-Feb2018-2/"))


class ARCEasy(MultipleChoice):
    """Whole choices by default."""

    name = "arc_easy"
    title = "ARC-Easy"
    source = "allenai.org/data/arc"
    licence = "CC BY-SA 4.0"
    phi3_shots: int | None = 10
    hub: tuple[str, str, str | None] = ("allenai/ai2_arc", REVISION, "ARC-Easy")
    folders = _folders("arc_easy", "ARC-Easy")
    parts = (_part("ARC-Easy"),)

    def item(self, row: Row) -> Item:
        stem, choices, right = labelled(row)
        return Item(f"Question: {stem}", choices, (right,))


class ARCChallenge(ARCEasy):
    """The questions that retrieval and co-occurrence got wrong."""

    name = "arc_challenge"
    title = "ARC-Challenge"
    hub = ("allenai/ai2_arc", REVISION, "ARC-Challenge")
    folders = _folders("arc_challenge", "ARC-Challenge")
    parts = (_part("ARC-Challenge"),)
