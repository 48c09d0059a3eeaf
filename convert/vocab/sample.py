"""A text of many scripts, on which llama.cpp's own vocabulary is compared with the checkpoint's tokenizer."""
# ruff: noqa: RUF001 - letters that look like others are what it is for

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from pathlib import Path

import tokenizers

LINES = (
    "Which of the following is NOT a property of enzymes? They're proteins; they've an active site, I'd say.",
    "WE'LL SEE WHAT HE'S DONE, DON'T YOU THINK? I'M SURE YOU'RE RIGHT, THEY'D SAY.",
    "camelCaseName HTTPServer snake_case_name kebab-case-name iPhone15Pro McDonald's",
    "1 12 123 1234 12345 1,234,567.89 0x1F 3.14159 1e-10 2024-12-31 23:59:59 +49 (0)30 123456",
    "²³¹ ½ ¾ Ⅷ ① ٣٤٥ १२३४ ๑๒๓ 百二十三",
    "Übergrößenträger naïve façade œuvre Ångström señor Čeština žluťoučký kůň Türkçe İstanbul ığdır",
    "Tiếng Việt có dấu: Nguyễn, phở, Đà Nẵng. Polski: zażółć gęślą jaźń. Íslenska: Þórður",
    "Широкая электрификация южных губерний даст мощный толчок. Київ — столиця України.",
    "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Αθήνα 2004",
    "שלום עולם, מה שלומך היום? בְּרֵאשִׁית בָּרָא",
    "مرحبا بالعالم، كيف حالك اليوم؟ السَّلَامُ عَلَيْكُمْ ۱۲۳",
    "हिन्दी में लिखा हुआ एक वाक्य। क्या आप ठीक हैं? বাংলা ভাষা தமிழ் மொழி తెలుగు",
    "ภาษาไทยไม่มีการเว้นวรรคระหว่างคำ ລາວ မြန်မာဘာသာ ភាសាខ្មែរ",
    "漢字とひらがなとカタカナ。東京都は日本の首都です。１２３ＡＢＣ",
    "中文没有空格，所以分词很难。繁體中文也是一樣。",
    "한국어 문장입니다. 서울은 대한민국의 수도이다. ㅋㅋㅋ",
    "ქართული ენა Հայերեն አማርኛ ትግርኛ ᏣᎳᎩ ᓀᐦᐃᔭᐍᐏᐣ བོད་སྐད",
    "e\u0301 versus é; A\u030a versus Å; \ufb01 ligature; zero\u200bwidth; soft\u00adhyphen; no\u00a0break; \ufeffmark",
    "Emoji: 😀 👍🏽 👨‍👩‍👧‍👦 🇩🇪 ❤️ ☺ ✓ → ⇒ ∑ ∫ √ ≠ ≤ ∞ ℝ ∀x∈S",
    "\U0001d49c\U0001d4b7\U0001d4b8 \U00010330\U00010331 𝟙𝟚𝟛 \U0002000b",
    "def f(x: int) -> dict[str, int]:\n    return {'a': x ** 2, \"b\": -x}  # a comment\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { if (a[i] != b[i] && !c) { return i << 2 | ~mask; } } // done",
    '<div class="x" id=\'y\'>&nbsp;&lt;p&gt;</div>\n<!-- note -->\n{"key": [1, 2.5, null, true]}\n',
    "SELECT * FROM t WHERE a LIKE '%b%' -- all\n;\t\\frac{1}{2} $x^2$ \\\\ https://example.org/a?b=c&d=%20#e",
    "one two  three   four     five        six",
    "   leading, trailing   ",
    "\n\nlines\n\n\nand\r\nreturns\r\rand\ttabs\t\t\tand \n mixed \t \n  \n end\n",
    "...!!! ??? --- === *** ### ___ ~~~ ``` ... \u2026 \u2014 \u2013 \u201ctwo\u201d \u2018one\u2019 \u00abin\u00bb",
    "a.b,c;d:e!f?g(h)i[j]k{l}m/n\\o|p@q#r$s%t^u&v*w_x-y+z=1~2`3'4\"5<6>7",
    "Answer: (B)\nAnswer: B.\n A\n B\nQuestion: 7 × 8 = ?\nChoices:\nA. 54\nB. 56",
)
"""Each is encoded by itself."""

Tokenize = Callable[[Path, Sequence[str]], list[list[int]]]
"""Token ids of texts by llama.cpp's own vocabulary of a GGUF, without BOS and EOS."""


def reread(serialized: str) -> tokenizers.Tokenizer:
    """The checkpoint's ``tokenizers.Tokenizer``, as the runner reads it.

    Raises:
        Exception: it cannot be read, or cannot encode ``LINES``; whatever the library raises then.
    """
    tokenizer = tokenizers.Tokenizer.from_str(serialized)
    tokenizer.no_truncation()
    tokenizer.no_padding()  # Rust ends the process where there is no memory for the length
    for line in LINES:
        tokenizer.encode(line)
    return tokenizer


def cut_otherwise(path: Path, serialized: str, tokenize: Tokenize) -> tuple[int, int]:
    """How many of the checkpoint's pieces of ``LINES`` llama.cpp's vocabulary does not have, and of how many.

    Args:
        path: the GGUF.
        serialized: the checkpoint's ``tokenizers.Tokenizer``.
        tokenize: llama.cpp's.
    """
    tokenizer = reread(serialized)
    ours = [tokenizer.encode(line, add_special_tokens=False).ids for line in LINES]
    differing = 0
    for a, b in zip(ours, tokenize(path, LINES), strict=True):
        blocks = SequenceMatcher(None, a, b, autojunk=False).get_matching_blocks()
        differing += len(a) - sum(block.size for block in blocks)
    return differing, sum(len(ids) for ids in ours)
