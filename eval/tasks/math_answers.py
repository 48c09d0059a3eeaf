r"""Whether two texts end in the same mathematical answer, as AGIEval compares them.

Protocol: ``parse_math_answer`` and ``is_equiv`` of https://github.com/ruixiangcui/AGIEval (MIT), the latter after
https://github.com/hendrycks/math (MIT), as lm-evaluation-harness 0.4.13 has them (``tasks/agieval/utils.py``). Both
texts are treated alike, the right one too: of ``\frac{3}{4}`` without a ``$`` or an ``=`` only the last number, 4,
counts; and two texts without any answer are equal.
"""

from __future__ import annotations

import re

BOXED = "\\boxed"
DOLLARS = re.compile(r"\$(.*)\$")
NUMBER = re.compile(r"(?:\$)?\d+(?:\.\d+)?(?![\w\d])")


def equivalent(first: str, second: str) -> bool:
    """Whether both have the same answer, or both none."""
    one, other = answer_in(first), answer_in(second)
    if one is None or other is None:
        return one == other
    try:
        return normalized(one) == normalized(other)
    except ValueError:
        return one == other


def answer_in(text: str) -> str | None:
    """What stands in the last box, between dollar signs, behind the last ``=``, or the last number; None if nothing."""
    if BOXED in text:
        return _boxed(text)
    found = DOLLARS.findall(text)
    answer = _right_side(found[-1]) if found else ""
    if answer:
        return answer
    if "=" in text:
        return _right_side(text).rstrip(".").split("\\n")[0]
    return next(reversed(NUMBER.findall(text)), None)


def _right_side(text: str) -> str:
    return text.rpartition("=")[2].lstrip(" ") if "=" in text else text


def _boxed(text: str) -> str | None:
    start, depth = text.rfind(BOXED), 0
    for end in range(start, len(text)):
        depth += (text[end] == "{") - (text[end] == "}")
        if text[end] == "}" and depth == 0:
            content = text[start:end].removeprefix(BOXED + "{")
            return _right_side(content) if content != text[start:end] else None
    return None


def normalized(answer: str) -> str:
    """An answer in the one form that is compared.

    Raises:
        ValueError: a unit stands twice, or nothing stands behind a root or a fraction.
    """
    for old, new in (("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac")):
        answer = answer.replace(old, new)
    for gone in ("\\left", "\\right", "^{\\circ}", "^\\circ", "\\$"):
        answer = answer.replace(gone, "")
    answer = _without_unit(answer)
    for old, new in (("\\%", ""), ("\\%", ""), (" .", " 0."), ("{.", "{0.")):  # twice, as what is left may be one
        answer = answer.replace(old, new)
    if not answer:
        return answer
    if answer.startswith("."):
        answer = "0" + answer
    name, *values = answer.split("=")
    if len(values) == 1 and len(name) <= 2:
        answer = values[0]
    answer = _with_braced_fractions(_with_braced_roots(answer).replace(" ", ""))
    return _as_fraction("\\frac{1}{2}" if answer == "0.5" else answer)


def _without_unit(answer: str) -> str:
    parts = answer.split("\\text{ ")
    if len(parts) > 2:
        raise ValueError("two units")
    return parts[0]


def _with_braced_roots(answer: str) -> str:
    r"""``\sqrt3`` as ``\sqrt{3}``."""
    start, *roots = answer.split("\\sqrt")
    if not all(roots):
        raise ValueError("a root of nothing")
    return start + "".join("\\sqrt" + (root if root[0] == "{" else f"{{{root[0]}}}{root[1:]}") for root in roots)


def _with_braced_fractions(answer: str) -> str:
    r"""``\frac12`` and ``\frac1{2}`` as ``\frac{1}{2}``; all as it was where one has a numerator alone."""
    start, *fractions = answer.split("\\frac")
    found = start
    for fraction in fractions:
        if not fraction:
            raise ValueError("a fraction of nothing")
        if fraction[0] == "{":
            found += f"\\frac{fraction}"
        elif len(fraction) < 2:
            return answer
        else:
            above, below, rest = fraction[0], fraction[1], fraction[2:]
            found += f"\\frac{{{above}}}{'{' if below == '{' else f'{{{below}}}'}{rest}"
    return found


def _as_fraction(answer: str) -> str:
    r"""``3/4`` as ``\frac{3}{4}``, where both are whole numbers in their shortest form."""
    above, _, below = answer.partition("/")
    try:
        whole = answer == f"{int(above)}/{int(below)}"
    except ValueError:
        return answer
    return f"\\frac{{{int(above)}}}{{{int(below)}}}" if whole else answer
