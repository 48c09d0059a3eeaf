"""Malformed files of the user's own questions, their few-shot files and prompt templates."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.data import asked
from tests.support.fuzz import kinds, texts
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged, other_json, other_lines

Row = dict[str, Any]

SOUND: dict[str, tuple[Row, ...]] = {
    "choices": (
        {"question": "Which is cold?", "choices": ["ice", "fire"], "answer": "A"},
        {"question": "Which is red?", "choices": ["sky", "rose", "sea"], "answer": 1, "group": "colours", "id": "r"},
        {"question": "Which sings?", "choices": ["pig", "bird"], "answer": "bird"},
    ),
    "columns": (
        {"question": "Which is cold?", "A": "ice", "B": "fire", "answer": "A"},
        {"question": "Which sings?", "A": "pig", "B": "bird", "answer": "B"},
    ),
    "texts": (
        {"question": "What is odd?", "answer": "one"},
        {"question": "Who sings?", "answer": ["Ann", "Tom"], "id": 7},
        {"question": "How many apples?", "answer": 3},
    ),
    "plain": ({"question": "What is odd?", "answer": "one"}, {"question": "Who sings?", "answer": "Ann"}),
    "prompts": (
        {"prompt": "Ice is", "choices": [" cold", " hot"], "answer": 0},
        {"prompt": "Pigs are", "choices": ["pink", "blue"], "answer": "pink"},
    ),
}
TABLES = ("columns", "plain")
"""Those that a CSV can hold."""
LETTERED = ("choices", "columns")
"""Those that can be scored by letter."""
PROMPTS = ("{question}\n{choices}\nAnswer:", "{question} Is it {A} or {B}? ", "Q: {question}\nA:", "{{{question}}}")
ODD_PROMPTS = (
    "", "\n", "no field", "{", "}", "{}", "{0}", "{question", "{question!r}", "{question:>10}", "{question.__class__}",
    "{question[0]}", "{answer}", "{nothing}", "{choices}{choices}", "{Z}", "{ question }", "{question}" * 3000, "{{}}",
    "{\nquestion}", "{question:{A}}", "{id}{group}", "\ufeff{question}", "{question}\0", "{question}\r\n", "{__doc__}",
    "{ques\u200btion}", "{" * 5000 + "question" + "}" * 5000, "{question:{question:{question}}}", "{choices[0]}",
    "{\ud83d}", "{question}\udc00", "{\x1b[31m}", "{question!}", "{question!x:y}", "{" + "q" * 100_000 + "}",
)  # fmt: skip


def written(form: str, rows: Sequence[Row]) -> bytes:
    """``rows`` as a file of that form; half surrogates as escapes or, where there are none, as bytes."""
    if form == "jsonl":
        return "".join(json.dumps(row) + "\n" for row in rows).encode()
    if form == "json":
        return json.dumps(rows, indent=1).encode()
    names = list(dict.fromkeys(name for row in rows for name in row))
    with io.StringIO(newline="") as file:
        table = csv.DictWriter(file, names)
        table.writeheader()
        table.writerows(rows)
        return file.getvalue().encode("utf-8", "surrogatepass")


def sound(place: Place, random: Random, name: str = "mine", kind: str | None = None) -> tuple[str, Path, list[Row]]:
    """A kind, a file of it, to be damaged, and its rows."""
    kind = kind or random.choice(sorted(SOUND))
    form = random.choice(("jsonl", "json", *(["csv", "csv"] if kind in TABLES else [])))
    rows = [dict(row) for row in SOUND[kind]]
    path = place.inputs / f"{name}.{form}"
    path.write_bytes(written(form, rows))
    return kind, path, rows


def command(kind: str, place: Place, path: Path, random: Random, rows: int | None, *options: str) -> Case:
    """A command that asks the questions; ``rows`` as many as they are, where that is known."""
    # The tokenizer of these models has no token for a space with a letter, which scoring by letter takes.
    scoring = ["--scoring", "text"] if kind in LETTERED and random.random() < 0.8 else []
    return asked(str(path), place.base / "data", place, random, rows, *scoring, *options)


def values(random: Random, place: Place) -> Case:
    """Any value of a row."""
    kind, path, _ = sound(place, random)
    change = {".jsonl": other_lines, ".json": other_json}.get(path.suffix)
    content = path.read_bytes()
    path.write_bytes(change(content, random) if change else damaged(content, content, random))
    return command(kind, place, path, random, None)


def contents(random: Random, place: Place) -> Case:
    """Bytes of the file, packed or not."""
    kind, path, _ = sound(place, random)
    _, other, _ = sound(place, random, "other")
    content = damaged(path.read_bytes(), other.read_bytes(), random)
    if random.random() < 0.3:
        path.unlink()
        path = path.with_name(path.name + ".gz")
        content = gzip.compress(content, mtime=0)
        content = damaged(content, content, random) if random.random() < 0.4 else content
    path.write_bytes(content)
    return command(kind, place, path, random, None)


def odd_texts(random: Random, place: Place) -> Case:
    """A sound file with an odd text in it: every row is asked; half of a surrogate pair is refused."""
    kind, path, rows = sound(place, random)
    row, new = random.choice(rows), texts.text(random)
    key = random.choice(sorted(row))
    if random.random() < 0.2:
        row[new] = row.pop(key) if random.random() < 0.3 else "x"
    elif isinstance(row[key], list):
        row[key][random.randrange(len(row[key]))] = new
    else:
        row[key] = new
    path.write_bytes(written(path.suffix[1:], rows))
    case = command(kind, place, path, random, len(rows))
    return replace(case, must_refuse=any("\ud800" <= each <= "\udfff" for each in new))


def prompts(random: Random, place: Place) -> Case:
    """Odd and damaged templates."""
    kind, path, rows = sound(place, random, kind=random.choice(("choices", "columns", "texts", "plain")))
    template = place.inputs / "template.txt"
    way = random.random()
    source = random.choice(ODD_PROMPTS if way < 0.5 else PROMPTS)
    if 0.5 <= way < 0.7:
        source = source.replace("question", random.choice((texts.text(random), "answer", "choices", "A", "group")), 1)
    content = source.encode("utf-8", "surrogatepass")
    if 0.7 <= way < 0.9:
        content = damaged(content, b"{question}" * 9, random)
    template.write_bytes(content)
    if way >= 0.9:
        kinds.put(template, random)
    return command(kind, place, path, random, len(rows), "--template", str(template))


def fewshot(random: Random, place: Place) -> Case:
    """Few-shot files that are damaged, of another kind, or the questions themselves; more shots than there are."""
    kind, path, rows = sound(place, random)
    shown = sound(place, random, "shown", kind if random.random() < 0.7 else None)[1]
    damage = random.randrange(4)
    if damage == 0:
        shown.write_bytes(damaged(shown.read_bytes(), path.read_bytes(), random))
    elif damage == 1 and shown.suffix == ".jsonl":
        shown.write_bytes(other_lines(shown.read_bytes(), random))
    elif damage == 2:
        kinds.put(shown, random)
    elif random.random() < 0.2:
        shown = path
    shots = random.choice(([], ["--shots", random.choice(("0", "1", "2", "3", "99", "phi3"))]))
    return command(kind, place, path, random, len(rows), "--fewshot", str(shown), *shots)


def tables(random: Random, place: Place) -> Case:
    """CSV as other programs write it."""
    rows = [list(SOUND["columns"][0]), *([*row.values()] for row in SOUND["columns"])]
    row = random.choice(rows)
    at = random.randrange(len(row))
    row[at] = random.choice(
        ("", " ", '"', "a,b", "a\nb", "\r", "=1+1", "x" * 200_000, "'", row[at] + '"x', "\t", "\ufeff")
    )
    if random.random() < 0.3:
        row.insert(at, random.choice(("", "C", "answer", "question", " ")))
    with io.StringIO(newline="") as file:
        quoting = random.choice((csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC))
        end = random.choice(("\n", "\r\n", "\r", "\n\n", ";\n"))
        csv.writer(file, delimiter=random.choice(",,,;\t|"), quoting=quoting, lineterminator=end).writerows(rows)
        content = file.getvalue().encode(random.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "cp1252")), "replace")
    path = place.inputs / "mine.csv"
    path.write_bytes(content)
    return command("columns", place, path, random, None)


def files(random: Random, place: Place) -> Case:
    """Something else in the place of the file, or the file under an odd name."""
    kind, path, rows = sound(place, random)
    way = random.randrange(5)
    if way == 0:
        kinds.put(path, random)
        return command(kind, place, path, random, None)
    if way == 1:
        named = random.choice(
            (path.suffix.upper(), ".txt", ".jsonl", ".csv", ".json", ".tsv", ".gz", "", ".jsonl.gz.gz")
        )
        return command(kind, place, path.rename(path.with_suffix(named)), random, None)
    if way == 2:
        name = texts.name(random)[:100] + path.suffix
        return command(kind, place, path.rename(path.with_name(name)), random, len(rows))
    if way == 3:
        name = os.fsdecode(random.choice((b"\xff", b"\xed\xa0\xbd", b"\xc3\xa9\xe9"))) + path.suffix
        return command(kind, place, path.rename(path.with_name(name)), random, None)
    bomb = random.choice((b"\n", b" ", b'{"question": "', b"\0", b"a,b\n")) * random.choice((1 << 20, 10 << 20))
    path = path.rename(path.with_name(path.name + ".gz"))
    path.write_bytes(gzip.compress(bomb, 1, mtime=0))
    return command(kind, place, path, random, None)
