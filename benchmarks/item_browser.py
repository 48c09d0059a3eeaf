"""How long the report's browser of items takes in a real browser: to open, to search, to sort.

    python -m benchmarks.item_browser [--items 14042] [--rounds 3]

The items are made up: prompts of five worked examples and a question, as MMLU's are long. Needs Chromium.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from tests.support import browser
from tests.support.pages import item, log, whole, write

WORDS = 3000
"""Of the vocabulary that prompts are made of."""
SCRIPT = """
const opened = performance.now(), at = (id) => document.getElementById(id);
const took = (name, event, values) => values.map((value) => {
  const before = performance.now();
  at(name).value = value;
  at(name).dispatchEvent(new Event(event));
  at("list")?.getBoundingClientRect();
  return performance.now() - before;
});
return {
  opened,
  search: Math.max(...took("search", "input", ["w7", "w7 w99", "w1 w2 w3", '"w5 w6"', "nothing", ""])),
  sort: Math.max(...took("order", "change", [...at("order").options].map((option) => option.value))),
};
"""


def page(folder: Path, n: int) -> Path:
    """The report of a run with ``n`` items."""
    rng = random.Random(0)
    words = [f"w{k}" for k in range(WORDS)]
    shots = {k: "\n\n".join(" ".join(rng.choices(words, k=60)) for _ in range(5)) for k in range(57)}
    asked = [
        {"prompt": f"{shots[k % 57]}\n\n{' '.join(rng.choices(words, k=60))}", "choices": list("ABCD")}
        for k in range(n)
    ]
    run = log(write(folder / "run", [item(k, group=f"subject_{k % 57}") for k in range(n)]), *asked)
    found = folder / "page.html"
    found.write_text(whole(run), encoding="utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=14_042)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = page(Path(folder), args.items)
        print(f"{args.items:,} items, page of {found.stat().st_size / 1e6:.1f} MB")
        for width in (1280, 390):
            for _ in range(args.rounds):
                chromium = browser.Browser(Path(tempfile.mkdtemp(dir=folder)))
                seen = chromium.show(found, width, script=SCRIPT)
                chromium.close()
                said = ", ".join(f"{name} {value:.0f} ms" for name, value in seen.found.items())
                print(f"{width} px: {said}; {len(seen.console)} lines on the console")


if __name__ == "__main__":
    main()
