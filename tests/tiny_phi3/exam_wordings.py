"""How the exam's facts and questions are worded."""

from __future__ import annotations

from dataclasses import dataclass

OPENINGS = (
    "",
    "we know that ",
    "they say that ",
    "it seems that ",
    "last year we heard that ",
    "here ",
    "of course ",
    "in those days ",
)


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact, always told key first: ``opening + subject + verb + value``.

    ``subject`` and ``questions`` name the key ``{k}``.
    """

    name: str
    key: str
    value: str
    subject: str
    verbs: tuple[str, ...]
    questions: tuple[str, ...]


RELATIONS = (
    Relation(
        "home",
        "person",
        "place",
        "{k}",
        ("lives in", "has a home in", "found a house in", "came to stay in", "settled in"),
        ("Where does {k} live?", "In which town does {k} live?", "Where is the home of {k}?"),
    ),
    Relation(
        "origin",
        "person",
        "place",
        "{k}",
        ("comes from", "was sent here from", "has family from", "arrived from"),
        ("Where does {k} come from?", "From which town is {k}?", "Which town is {k} from?"),
    ),
    Relation(
        "ticket",
        "person",
        "number",
        "{k}",
        ("holds ticket", "was given ticket", "paid for ticket", "asked for ticket"),
        ("Which ticket does {k} hold?", "Which ticket was given to {k}?", "What is the ticket of {k}?"),
    ),
    Relation(
        "room",
        "person",
        "number",
        "{k}",
        ("sleeps in room", "has the key to room", "was shown to room", "stays in room"),
        ("In which room does {k} sleep?", "Which room has {k}?", "What is the room of {k}?"),
    ),
    Relation(
        "word",
        "person",
        "word",
        "{k}",
        ("uses the secret word", "must say the word", "keeps the word", "was told the word"),
        ("Which word does {k} use?", "What is the secret word of {k}?", "Which word must {k} say?"),
    ),
    Relation(
        "boat",
        "person",
        "boat",
        "{k}",
        ("owns the boat", "bought the boat", "has painted the boat", "sails the boat"),
        ("Which boat does {k} own?", "What is the boat of {k} called?", "Which boat belongs to {k}?"),
    ),
    Relation(
        "teacher",
        "person",
        "person",
        "{k}",
        ("was taught by", "was trained by", "has been helped by", "was raised by"),
        ("Who taught {k}?", "By whom was {k} taught?", "Who was the teacher of {k}?"),
    ),
    Relation(
        "room-who",
        "number",
        "person",
        "room {k}",
        ("was given to", "belongs to", "is open to", "was shown to"),
        ("Who has room {k}?", "Who sleeps in room {k}?", "To whom does room {k} belong?"),
    ),
    Relation(
        "ticket-who",
        "number",
        "person",
        "ticket {k}",
        ("was sold to", "belongs to", "was sent to", "was given to"),
        ("Who holds ticket {k}?", "Who has ticket {k}?", "To whom does ticket {k} belong?"),
    ),
    Relation(
        "boat-who",
        "boat",
        "person",
        "the boat {k}",
        ("belongs to", "was sold to", "is known to", "was left to"),
        ("Who owns the boat {k}?", "Who sails the boat {k}?", "To whom does the boat {k} belong?"),
    ),
    Relation(
        "row",
        "person",
        "letter",
        "{k}",
        ("sits in row", "was led to row", "found a place in row", "has moved to row"),
        ("In which row does {k} sit?", "Which row was {k} led to?", "What is the row of {k}?"),
    ),
    Relation(
        "team",
        "person",
        "letter",
        "{k}",
        ("plays for team", "was called to team", "is the best of team", "has joined team"),
        ("For which team does {k} play?", "Which team has {k} joined?", "What is the team of {k}?"),
    ),
    Relation(
        "gate",
        "person",
        "letter",
        "{k}",
        ("waits at gate", "came through gate", "stands at gate", "was seen at gate"),
        ("At which gate does {k} wait?", "Which gate did {k} come through?", "What is the gate of {k}?"),
    ),
    Relation(
        "class",
        "person",
        "letter",
        "{k}",
        ("learns in class", "is taught in class", "was put in class", "helps in class"),
        ("In which class does {k} learn?", "Which class is {k} in?", "What is the class of {k}?"),
    ),
)

FILLERS = (
    "The winter was long that year.",
    "Nobody knows when the bridge was built.",
    "The market opens early in the morning.",
    "There was rain for many days, and the river rose.",
    "Most people walk to the old mill on Sundays.",
    "The road over the hill was closed because of snow.",
    "A new bell was made for the church.",
    "Bread and fish were cheap at that time.",
    "The train was late again.",
    "Everyone was glad when the summer came.",
    "Two of the lamps in the street were broken.",
    "The doctor came once a week.",
)
