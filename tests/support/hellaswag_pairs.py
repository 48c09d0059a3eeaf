"""HellaSwag rows in the published form, made up, and as they stand in copies whose text was cleaned.

Both sources of the data set (captions of videos, instructions with marks), odd beginnings of ``ctx_b``, links in
brackets, full stops amid a sentence, marks at the beginning of endings, which leave a space behind in the original.
"""

from __future__ import annotations

from typing import Any

Row = dict[str, Any]


def _pair(label: str, a: str, b: str, endings: list[str], clean: str, clean_endings: list[str]) -> tuple[Row, Row]:
    published = {"activity_label": label, "ctx_a": a, "ctx_b": b, "ctx": f"{a} {b}".strip(), "endings": endings}
    copy = {"activity_label": label, "ctx": clean, "endings": clean_endings}
    return {**published, "label": 1}, {**copy, "label": 1}


_SHORT = ["paddles on.", "sings a song.", "is a kite.", "falls asleep."]
PAIRS = (
    _pair("Canoeing", "Two women sit in a canoe.", "they", _SHORT, "Two women sit in a canoe. they", _SHORT),
    _pair(
        "Canoeing",
        "A canoe is tied up. Rain falls.",
        "the owner",
        _SHORT,
        "A canoe is tied up. Rain falls. the owner",
        _SHORT,
    ),
    _pair(
        "Mowing the lawn",
        'A sign says "keep off the grass!" in red.',
        'a man called " old tom "',
        _SHORT,
        'A sign says "keep off the grass!" in red. a man called " old tom "',
        _SHORT,
    ),
    _pair("Chess", "A board is shown.", '" white to move', _SHORT, 'A board is shown. " white to move', _SHORT),
    _pair(
        "Knitting",
        "3 she takes wool. 4 she takes needles.",
        "5 she",
        _SHORT,
        "3 she takes wool. 4 she takes needles. 5 she",
        _SHORT,
    ),
    _pair("Relay", "Runners wait. The crowd counts.", "50", _SHORT, "Runners wait. The crowd counts. 50", _SHORT),
    _pair(
        "Home and Garden",
        "[header] How to dry herbs [title] Pick them early. [step] Dew should be gone; the sun low, too.",
        "",
        [
            "[title] Tie them up. [step] Use a thin string.",
            "[substeps] Leave some for the bees.",
            '[substeps] Say " these are for tea ".',
            "[title] Wash nothing. [step] Water spoils leaves.",
        ],
        "How to dry herbs. Pick them early. Dew should be gone; the sun low, too.",
        [
            "Tie them up. Use a thin string.",
            "Leave some for the bees.",
            'Say " these are for tea ".',
            "Wash nothing. Water spoils leaves.",
        ],
    ),
    _pair(
        "Travel",
        "[header] How to change trains [title] See it. [step] It is in u.k. english. [substeps] Ask a u.k. guard.",
        "",
        ["Stand back.", "Find your seat. [title] Sit.", "Buy tea. [substeps] Milk is extra.", "[step] Board first."],
        "How to change trains. See it. It is in u.k. english. Ask a u.k. guard.",
        ["Stand back.", "Find your seat.. Sit.", "Buy tea. Milk is extra.", "Board first."],
    ),
    _pair(
        "Family Life",
        "[header] How to keep a diary [title] Take one. [title] See [www.diaries.org] for covers. [title] Begin today.",
        "",
        [
            "[title] Draw. [step] And glue.",
            "[title] Write. [title] Read.",
            "[title] Lock it. [step] Hide it.",
            "[step] Rest.",
        ],
        "How to keep a diary. Take one.. See [www.diaries.org] for covers.. Begin today.",
        ["Draw. And glue.", "Write.. Read.", "Lock it. Hide it.", "Rest."],
    ),
    _pair(
        "Crafts",
        "[header] How to fold a boat [title] Take paper. [step] A [square of paper | square] (e.g. a napkin) will do.",
        "",
        ["[substeps] Any colour floats.", "Crease it. [title] Turn it.", "[title] Pull. [step] Gently.", "Stop."],
        "How to fold a boat. Take paper. A [square of paper | square] (e.g. a napkin) will do.",
        ["Any colour floats.", "Crease it.. Turn it.", "Pull. Gently.", "Stop."],
    ),
)
