"""Seeded damage to files: bytes and JSON values, as disks, transfers and other programs leave them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

NUMBERS = (
    "0",
    "-1",
    "3",
    "7",
    "1.5",
    "-0.0",
    "1e308",
    "1e999",
    "NaN",
    "-Infinity",
    "2147483648",
    "9223372036854775808",
)
OTHERS = ("null", "true", '""', '"x"', '"\\ud83d"', '"\\u0000"', "[]", "{}", "[null]", '{"x": []}', '["a", 1]')
LONG = ("9" * 5000, "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, '"' + "x" * 100_000 + '"')
VALUES = (*NUMBERS, *OTHERS, *LONG)
"""JSON texts to stand where another value stood; not all are valid JSON."""

PLACE = "8d1f0c5e-here"


def damaged_bytes(content: bytes, random: Random) -> bytes:
    """``content`` with one bit flipped, a piece lost, doubled or overwritten, or all of it gone."""
    if not content:
        return b"\0"
    at, n = random.randrange(len(content)), random.randrange(1, 64)
    flipped = bytes([content[at] ^ 1 << random.randrange(8)])
    return random.choice(
        (
            content[:at] + flipped + content[at + 1 :],
            content[:at] + flipped + content[at + 1 :],
            content[:at],
            content[:at] + content[at + n :],
            content[: at + n] + content[at:],
            content[:at] + random.randbytes(n) + content[at + n :],
            content[:at] + b"\xff\xfe\xed\xa0\xbd" + content[at:],
            content + random.randbytes(n),
            b"\xef\xbb\xbf" + content,
            content.decode("utf-8", "replace").encode("utf-16"),
            b"",
            b"null",
            b"[" * 200_000,
        )
    )


def damaged_json(content: bytes, random: Random, places: list[tuple[Any, ...]] | None = None) -> bytes:
    """``content``, a JSON file, with one value replaced, gone, or standing twice under its key.

    Args:
        content: the file.
        random: decides.
        places: paths of keys and indices of the values to choose from; all where it is None.
    """
    value = json.loads(content)
    path = random.choice(places or list(paths(value)))
    parent = value
    for key in path[:-1]:
        parent = parent[key]
    if random.random() < 0.1:
        del parent[path[-1]]
        return json.dumps(value).encode()
    if isinstance(parent, dict) and random.random() < 0.1:
        items = [*parent.items(), (path[-1], json.loads(random.choice(OTHERS)))]
        text = ", ".join(f"{json.dumps(key)}: {json.dumps(item)}" for key, item in items)
        if len(path) == 1:
            return f"{{{text}}}".encode()
    parent[path[-1]] = PLACE
    return json.dumps(value).replace(f'"{PLACE}"', random.choice(VALUES)).encode()


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values of a JSON value lie, at most the first ten of a list or an object below the top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for n, (key, item) in enumerate(items):
        if n < 10 or not above:
            yield (*above, key)
            yield from paths(item, (*above, key))
