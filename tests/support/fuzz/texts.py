"""Texts, numbers and JSON values that a program may not expect."""

from __future__ import annotations

from random import Random

INTEGERS = (
    0, 1, -1, 2, 3, 7, 63, 127, 255, 256, -128, 65535, 65536, (1 << 31) - 1, 1 << 31, -(1 << 31) - 1, (1 << 32) - 1,
    1 << 53, (1 << 63) - 1, 1 << 63, -(1 << 63), (1 << 64) - 1, 1 << 64, 10**30, 10**400,
)  # fmt: skip
NUMBERS = (
    *map(str, INTEGERS), "0.0", "-0.0", "0.5", "1.0", "1.5", "1e-400", "5e-324", "1e-7", "3.4e38", "3.5e38", "1e308",
    "1e309", "-1e999", "NaN", "Infinity", "-Infinity", "1E+2", "0x10", "01", "1_000", "+1", ".5", "1.", "1e", "--1",
    "9" * 5000, "0." + "0" * 4000 + "1", "1e" + "9" * 200,
)  # fmt: skip
"""JSON texts in the place of a number; not all are JSON."""

ODD = (
    "", " ", "\n", "\t\r\n", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b2J", "\x7f",
    "\u202e\u2066evil",
    "\u200b\u200d\ufeff", "\u2028\u2029\x85", "\ud83d", "\udc00\ud800", "\U0010ffff", "\ufffe\uffff", "e\u0301" * 50,
    "Z\u0300\u0301\u0302\u0303" * 40, "\u0130\u0131\u1e9e\ufb03", "\U0001d518\U0001d52b ✨👩\u200d👩\u200d👧",
    "[bold red]markup[/bold red]",
    "[/]", "[link=file:///etc/passwd]x[/link]", "<script>alert(1)</script>", "</script><b id=fuzz>",
    "{{ 7*7 }}{% raw %}",
    "%s%n%d {0} {x!r} ${HOME} `id`", "../../../etc/passwd", "/dev/null", "~/x", "C:\\x", "con", ".", "..", "-", "--",
    "--help", "'; DROP TABLE--", '"', "\\", "\\u0000", "nan", "inf", "None", "null", "true", "0", "-1", "1e400", "_",
    "____", "(A)", "A", "<|user|>", "<|end|>", "<s>", "</s>", "<unk>", "<0x0A>", "▁", "#### ", "####", "[header]",
)  # fmt: skip
LONG = ("x" * 100_000, "a " * 40_000, "é" * 30_000, "\n" * 20_000, "((((((((" * 4000, "\u0301" * 20_000, "9" * 6000)


def text(random: Random) -> str:
    """One of them, or of several put together."""
    kind = random.random()
    if kind < 0.1:
        return random.choice(LONG)
    if kind < 0.3:
        return "".join(random.choices(ODD, k=random.randrange(2, 6)))
    if kind < 0.45:
        return "".join(chr(random.choice((random.randrange(128), random.randrange(0xD7FF)))) for _ in range(30))
    return random.choice(ODD)


def json_text(random: Random) -> str:
    """A JSON text, or nearly one, in place of any value."""
    kind = random.random()
    if kind < 0.35:
        return random.choice(NUMBERS)
    if kind < 0.6:
        return _quoted(text(random))
    if kind < 0.7:
        depth = random.choice((2, 50, 150, 199, 201, 1000, 100_000))
        left, right = random.choice((("[", "]"), ('{"a":', "}"), ('[{"b":', "}]")))
        return left * depth + "1" + right * depth
    return random.choice(
        (
            "null", "true", "false", "[]", "{}", "[null]", "[[]]", '{"":0}', "[1,2,3]", '["a","b"]',
            '[1,"a",null,true]',
            '{"a":1}', '{"text":"x","label":"A"}', "[" + "0," * 50_000 + "0]", "[0.5]", "[-1]", '["A"]', '{"1":2}',
            "undefined", "'single'", "/* c */ 1", "1 // c", "[1,]", '{"a":1,}', '{"a":1,"a":2}', '"\t"', '"unended',
            "\x00", "(1)", "b'x'", "TRUE", "nil", "[1 2]", '"\\ud83d"', '"\\x41"', '"\\u12"',
        )
    )  # fmt: skip


def _quoted(value: str) -> str:
    """As a JSON string, escaped; half surrogates stay escapes."""
    import json

    return json.dumps(value)


def name(random: Random) -> str:
    """Of a file, as a system takes it: no slash, no null byte, not empty, at most 255 bytes."""
    value = text(random).replace("/", "_").replace("\0", "_").encode("utf-8", "replace")[:200].decode(errors="ignore")
    return value if value not in {"", ".", ".."} else "odd"
