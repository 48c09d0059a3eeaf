"""Seeded damage to bytes and to JSON."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support.damage import PLACE, paths
from tests.support.fuzz import texts

Mutation = Callable[[bytes, bytes, Random], bytes]
CONTROLS = b"\x00\x07\x08\x0b\x1b\x7f\xff\xfe\xc0\x80\xed\xa0\xbd"


def damaged(content: bytes, other: bytes, random: Random, mutations: int = 0) -> bytes:
    """``content`` after one to three mutations; ``other`` is what a splice takes from."""
    for _ in range(mutations or random.choice((1, 1, 1, 2, 3))):
        content = random.choice(BYTES)(content, other, random)
    return content


def _span(content: bytes, random: Random) -> tuple[int, int]:
    """A place and an end behind it; near the beginning more often, where headers are."""
    n = max(1, len(content))
    at = random.randrange(min(n, random.choice((64, 512, 4096, n))))
    return at, min(n, at + random.choice((1, 2, 4, 8, 31, 512, 4096, n)))


def _flip(content: bytes, _: bytes, random: Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(random.choice((1, 1, 1, 8, 64))):
        at, _end = _span(bytes(changed), random)
        changed[at] ^= 1 << random.randrange(8)
    return bytes(changed)


def _set(content: bytes, _: bytes, random: Random) -> bytes:
    at, end = _span(content, random)
    fill = random.choice((b"\0", b"\xff", b" ", b"\n", b"[", b"{", b'"', b"9", None))
    return content[:at] + (random.randbytes(end - at) if fill is None else fill * (end - at)) + content[end:]


def _truncate(content: bytes, _: bytes, random: Random) -> bytes:
    return content[: random.choice((0, 1, 7, 8, 9, random.randrange(len(content) + 1), len(content) - 1))]


def _lose(content: bytes, _: bytes, random: Random) -> bytes:
    at, end = _span(content, random)
    return content[:at] + content[end:]


def _double(content: bytes, _: bytes, random: Random) -> bytes:
    at, end = _span(content, random)
    return content[:end] + content[at:end] * random.choice((1, 1, 100)) + content[end:]


def _swap(content: bytes, _: bytes, random: Random) -> bytes:
    at, end = _span(content, random)
    return content[end : 2 * end - at] + content[:at] + content[at:end] + content[2 * end - at :]


def _insert(content: bytes, _: bytes, random: Random) -> bytes:
    at, _end = _span(content, random)
    new = random.choice((random.randbytes(5), CONTROLS, b"\0" * 600, b"\n\n\n", b"\x1b[2J", b"\xef\xbb\xbf", b"//x\n"))
    return content[:at] + new + content[at:]


def _splice(content: bytes, other: bytes, random: Random) -> bytes:
    at, end = _span(content, random)
    return random.choice((content[:at] + other[at:], other[:end] + content[end:], content + other, other + content))


def _number(content: bytes, _: bytes, random: Random) -> bytes:
    """Another number where one stood in digits."""
    places = [i for i, byte in enumerate(content[:20_000]) if 48 <= byte < 58]
    if not places:
        return content + b"1"
    at = random.choice(places)
    return content[:at] + random.choice(texts.NUMBERS[:60]).encode() + content[at + 1 :]


def _encode(content: bytes, _: bytes, random: Random) -> bytes:
    text = content.decode("utf-8", "replace")
    code = random.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "latin-1", "cp037", "utf-7"))
    return text.encode(code, "replace")


def _pack(content: bytes, _: bytes, random: Random) -> bytes:
    packed = gzip.compress(content, mtime=0)
    return packed if random.random() < 0.5 else packed[: random.randrange(len(packed))]


def _ends(content: bytes, _: bytes, random: Random) -> bytes:
    return random.choice(
        (content.replace(b"\n", b"\r\n"), content.replace(b"\n", b"\r"), content.replace(b"\n", b""), content + content)
    )


def _whole(_: bytes, other: bytes, random: Random) -> bytes:
    return random.choice((b"", b"null", b"[]", b"{}", b"\n" * 5000, b"[" * 100_000, random.randbytes(3000), other))


def _case(content: bytes, _: bytes, random: Random) -> bytes:
    return random.choice((content.upper(), content.swapcase(), content[::-1], content.replace(b'"', b"'")))


BYTES: tuple[Mutation, ...] = (
    _flip, _flip, _flip, _set, _set, _truncate, _lose, _lose, _double, _swap, _insert, _insert, _splice, _number,
    _number,
    _encode, _pack, _ends, _whole, _case,
)  # fmt: skip


def other_json(content: bytes, random: Random, mutations: int = 0) -> bytes:
    """A JSON file with one to three values replaced, moved, renamed, doubled or gone; not always JSON any more."""
    value = json.loads(content)
    new: list[str] = []
    for _ in range(mutations or random.choice((1, 1, 1, 2, 3))):
        places = list(paths(value))
        if not places:
            break
        value = _changed(value, random.choice(places), places, random, new)
    text = json.dumps(value, ensure_ascii=random.random() < 0.5)
    for i, each in enumerate(new):
        text = text.replace(f'"{PLACE}{i}"', each, 1)
    return text.encode("utf-8", "surrogatepass")


def _changed(value: Any, path: tuple[Any, ...], places: list[tuple[Any, ...]], random: Random, new: list[str]) -> Any:
    parent, key = _parent(value, path), path[-1]
    kind = random.random()
    if kind < 0.5:
        parent[key] = f"{PLACE}{len(new)}"
        new.append(texts.json_text(random))
    elif kind < 0.58:
        del parent[key]
    elif kind < 0.68:
        parent[key] = _like(parent[key], random)
    elif kind < 0.76:
        parent[key] = random.choice(([parent[key]], {"value": parent[key]}, str(parent[key]), [parent[key]] * 2))
    elif kind < 0.84:
        other = random.choice(places)
        holder = _parent(value, other)
        if other[: len(path)] != path and path[: len(other)] != other:
            parent[key], holder[other[-1]] = holder[other[-1]], parent[key]
    elif kind < 0.92 and isinstance(parent, dict):
        parent[random.choice((key + " ", key.upper(), "", texts.text(random), key + "_"))] = parent.pop(key)
    elif isinstance(parent, dict):
        parent[texts.text(random)] = random.choice((None, 1, "x", [parent[key]], {}))
    else:
        parent.insert(random.randrange(len(parent) + 1), parent[key])
    return value


def _like(value: Any, random: Random) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return random.choice((*texts.INTEGERS[:-1], value + 1, value - 1, value * 2, -value, value // 2))
    if isinstance(value, float):
        return random.choice((value * 2, -value, value + 1, 0.0, 1e-300, 1e300, value * 1e10))
    if isinstance(value, str):
        return random.choice((texts.text(random), value + "\u200b", value.upper(), value * 2, value[::-1], value[:-1]))
    if isinstance(value, list):
        return random.choice((value[::-1], value * 2, value[:-1], [], [value]))
    if isinstance(value, dict):
        return random.choice((dict(reversed(value.items())), {}, dict.fromkeys(value)))
    return 0


def _parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


def other_lines(content: bytes, random: Random) -> bytes:
    """JSON lines, one of them changed, moved, doubled or gone."""
    lines = content.splitlines(keepends=True)
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    kind = random.random()
    if kind < 0.6:
        lines[at] = other_json(lines[at], random).replace(b"\n", b" ") + b"\n"
    elif kind < 0.7:
        lines.insert(to, lines[at])
    elif kind < 0.78:
        del lines[at]
    elif kind < 0.86:
        lines[at], lines[to] = lines[to], lines[at]
    elif kind < 0.93:
        lines[at] = random.choice(
            (b"\n", b" \n", b"null\n", b"[]\n", b'"x"\n', b"{}\n", b"1\n", lines[at].rstrip(b"\n"))
        )
    else:
        lines[at] = lines[at][: random.randrange(1, len(lines[at]))]
    return b"".join(lines)
