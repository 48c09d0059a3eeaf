"""The exam: reading and look-up questions about people, places and things that do not exist.

One item is a passage of facts, a question about one of them, and four choices whose values all stand in the
passage, so that neither position, length nor word overlap gives the answer away. Every person, place, word and number
is drawn from one of two disjoint pools (split by a hash of the spelling), one for training and one held out for the
exam; so are the wordings.

A quarter of the items are longer than the model's sliding window. In half of those an earlier line, out of the
window's reach when the answer is written, says something else about the same person; the passage itself states that
later lines replace earlier ones, so the right answer is the one a windowed model sees.

This module knows nothing of models; ``count`` (a token counter) is passed in by whoever needs length control.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exam_wordings import FILLERS, OPENINGS, RELATIONS, Relation

CHALLENGE_HEADER = (
    "\nRead the question and answer the following sentence in given multiple choice.\n"
    "Answer only the sentence you chose. Never include a question and other word in your answer.\n\n"
)
LATER_LINES_COUNT = "Later lines replace earlier ones."
LETTERS = "ABCD"
N_CHOICES = 4

Count = Callable[[str], int]


_FIRST = (
    "bal bar bel ber bor bran cal cor dal dar del dor dun ed el fal fen gal gar gil gol hal har hel hol ing jar jor "
    "kal kel kor lan lor lun mal mar mel mir mor nel nor ol or pel per quil ral ren ros sal sel sil sol tal tar tel "
    "tor ul val vel vin wal wil yar zel"
).split()
_SECOND = (
    "a ac ad am an ar as at ek el em en er es et ia ic id il im in ir is it o od om on or os ot ow ra ren ric rin ris "
    "ros sa sen sin son ta ten tin tis ton u ul um un ur us ut va ven vin vis"
).split()
_PLACE_ENDS = ("bridge", "by", "dale", "field", "ford", "gate", "ham", "hill", "mouth", "port", "stead", "wick")
_BOAT_ENDS = ("bird", "cloud", "fish", "light", "moon", "rose", "song", "star", "stone", "sun", "wave", "wind")


def held_out(text: str, share: float = 0.2) -> bool:
    """Whether ``text`` belongs to the held-out pool, which training never sees: a ``share`` of all texts, by hash."""
    return hashlib.sha256(text.lower().encode()).digest()[0] < 256 * share


def invent(kind: str, rng: random.Random, held: bool) -> str:
    """A new word of ``kind`` (person, place, boat, word or number) from the pool that ``held`` selects."""
    ends = {"person": _SECOND, "word": _SECOND, "place": _PLACE_ENDS, "boat": _BOAT_ENDS}
    while True:
        word = str(rng.randrange(100, 1000)) if kind == "number" else rng.choice(_FIRST) + rng.choice(ends[kind])
        if held_out(word) == held:
            return word if kind == "word" else word.capitalize()


def alike(a: str, b: str) -> bool:
    """Whether two words begin or end alike, or two numbers share a digit in the same place."""
    if a.isdigit() and b.isdigit():
        return any(x == y for x, y in zip(a, b, strict=True))
    return a[:2].lower() == b[:2].lower() or a[-2:] == b[-2:]


def invent_several(kind: str, n: int, rng: random.Random, held: bool, beside: Sequence[str] = ()) -> list[str]:
    """``n`` new words of which no two are alike, nor any like those of ``beside``. Letters need only differ."""
    if kind == "letter":
        return rng.sample(LETTERS, n)
    while True:
        words: list[str] = []
        for _ in range(20 * n):  # a few unlucky first words can leave no room for the rest: start again
            word = invent(kind, rng, held)
            if not any(alike(word, other) for other in (*words, *beside)):
                words.append(word)
            if len(words) == n:
                return words


def question(relation: Relation, key: str, rng: random.Random, held: bool) -> str:
    """A question about ``key``. Half of the held-out ones have the last wording, which training never sees."""
    wordings = relation.questions
    text = wordings[-1] if held and rng.random() < 0.5 else rng.choice(wordings[:-1])
    return text.format(k=key)


def sentence(relation: Relation, key: str, verb: str, value: str, opening: str = "") -> str:
    """``opening + subject + verb + value``, with a capital and without a full stop."""
    text = f"{opening}{relation.subject.format(k=key)} {verb} {value}"
    return text[0].upper() + text[1:]


def wording(relation: Relation, rng: random.Random, held: bool) -> tuple[str, str]:
    """An opening and a verb that go together: the pairs are in two disjoint pools, as the names are."""
    while True:
        opening, verb = rng.choice(OPENINGS), rng.choice(relation.verbs)
        if held_out(f"{relation.name} {opening}{verb}", 0.35) == held:
            return opening, verb


def fact(relation: Relation, key: str, value: str, rng: random.Random, held: bool) -> str:
    """The fact in one of its wordings."""
    opening, verb = wording(relation, rng, held)
    return sentence(relation, key, verb, value, opening) + "."


@dataclass(frozen=True, slots=True)
class Item:
    """One question. ``answer`` is the full text of the right choice, or its letter in the lettered form.

    ``stale`` is the choice that a model which ignores its sliding window also finds stated (None where there is none).
    """

    form: str
    kind: str
    prompt: str
    choices: tuple[str, ...]
    answer: str
    stale: str | None


@dataclass(slots=True)
class _Draft:
    relation: Relation
    keys: list[str]
    values: list[str]
    asked: int
    question: str
    choices: list[str]
    stale_value: str | None


def _draft(rng: random.Random, held: bool, form: str, with_stale: bool) -> _Draft:
    lettered = form == "letters"
    relation = rng.choice([relation for relation in RELATIONS if (relation.value == "letter") == lettered])
    keys = invent_several(relation.key, N_CHOICES, rng, held)
    asked = rng.randrange(N_CHOICES)
    asks = question(relation, keys[asked], rng, held)
    stale_value = None
    if lettered:
        values = rng.sample(LETTERS, N_CHOICES)
        options = [f"{relation.name} {letter}" for letter in LETTERS]
        order = list(range(N_CHOICES))
        if with_stale:
            stale_value = rng.choice([letter for letter in LETTERS if letter != values[asked]])
    else:
        values = invent_several(relation.value, N_CHOICES + 1, rng, held, beside=keys)
        spare = values.pop()
        stated = list(values)
        if with_stale:
            # The stale value takes the place of another key's value among the choices.
            stale_value = stated[(asked + 1 + rng.randrange(N_CHOICES - 1)) % N_CHOICES] = spare
        opening, verb = wording(relation, rng, held)
        options = [sentence(relation, keys[asked], verb, value, opening) for value in stated]
        order = rng.sample(range(N_CHOICES), N_CHOICES)
    return _Draft(relation, keys, values, asked, asks, [options[i] for i in order], stale_value)


def _facts(draft: _Draft, rng: random.Random, held: bool, easy: bool) -> list[str]:
    lines = [fact(draft.relation, key, value, rng, held) for key, value in zip(draft.keys, draft.values, strict=True)]
    names = [*draft.keys, *draft.values]
    # Other facts about the same people: the question's relation has to be understood, not only the name.
    people = draft.keys if draft.relation.key == "person" else draft.values
    for relation in [] if easy else rng.sample([r for r in RELATIONS if r.key == "person"], 2):
        if relation.name == draft.relation.name:
            continue
        lines.extend(
            fact(relation, person, invent_several(relation.value, 1, rng, held, names)[0], rng, held)
            for person in people[: rng.randrange(N_CHOICES)]
        )
    if not easy and rng.random() < 0.3:
        lines.append(rng.choice(FILLERS))
    rng.shuffle(lines)
    return lines


def _early_lines(draft: _Draft, rng: random.Random, held: bool, count: Count, tokens: int) -> list[str]:
    names = [*draft.keys, *draft.values, *([draft.stale_value] if draft.stale_value else [])]
    lines: list[str] = []
    total = 0
    while total < tokens:
        if rng.random() < 0.3:
            line = rng.choice(FILLERS)
        else:
            relation = rng.choice(RELATIONS)
            (key,) = invent_several(relation.key, 1, rng, held, names)
            (value,) = invent_several(relation.value, 1, rng, held, [*names, key])
            line = fact(relation, key, value, rng, held)
        lines.append(line)
        total += count(line)
    return lines


def _assemble(draft: _Draft, form: str, passage: list[str]) -> Item:
    text, value = " ".join(passage), draft.values[draft.asked]
    choices = tuple(draft.choices)
    if form == "text":
        prompt = f"{CHALLENGE_HEADER}passage: {text}\nquestion: {draft.question}\nchoices: {draft.choices!r}\n"
    else:
        lettered = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
        prompt = f"Passage: {text}\nQuestion: {draft.question}\n{lettered}\nAnswer:"
    answer = next(choice for choice in choices if choice.endswith(" " + value))
    stale = None
    if draft.stale_value is not None:
        stale = next(choice for choice in choices if choice.endswith(" " + draft.stale_value))
    if form == "letters":
        answer, stale = value, draft.stale_value
    return Item(form, draft.relation.name, prompt, choices, answer, stale)


def make_item(
    rng: random.Random, *, held: bool, form: str, long: bool, count: Count, window: int, easy: bool = False
) -> Item:
    """Draw one item.

    Args:
        rng: source of all randomness.
        held: draw names and wordings from the held-out pools.
        form: ``"text"`` (the 2024 challenge's form) or ``"letters"``.
        long: make the prompt longer than ``window`` tokens.
        count: number of tokens of a text, used to place lines in and out of the window's reach.
        window: the model's sliding window in tokens.
        easy: state the four facts of the question's relation and nothing else (for the start of training).

    A long item's facts, question and choices lie within the window of every answer token; the stale line, where there
    is one, lies outside the window of every one of them.
    """
    slack = 24  # chat tokens, the answer itself, and the joins that counting parts cannot see
    while True:
        with_stale = long and rng.random() < 0.5
        draft = _draft(rng, held, form, with_stale)
        facts = _facts(draft, rng, held, easy)
        body = count(_assemble(draft, form, facts).prompt) - (count(CHALLENGE_HEADER) if form == "text" else 0)
        if body + slack + 16 > window:
            continue  # too much for the window: draw again
        if not long:
            item = _assemble(draft, form, facts)
            if count(item.prompt) + slack > window:
                continue
            return item
        early = _early_lines(draft, rng, held, count, window + slack - body + rng.randrange(0, 2 * window))
        if with_stale:
            assert draft.stale_value is not None
            line = fact(draft.relation, draft.keys[draft.asked], draft.stale_value, rng, held)
            # It must end at least a window before the answer begins.
            tail, at = body - slack, len(early)
            while at > 0 and tail < window:
                at -= 1
                tail += count(early[at])
            if tail < window:
                continue
            early.insert(rng.randrange(0, at + 1), line)
        return _assemble(draft, form, [LATER_LINES_COUNT, *early, *facts])
