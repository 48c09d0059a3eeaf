"""What a real browser makes of a page, and of the browser of items in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eval.runs.run import Run
from tests.support import browser
from tests.support.pages import EVIL, TWO_GPUS, item, limited, log, metered, whole, write
from tests.support.paths import REFERENCE

pytestmark = pytest.mark.skipif(
    browser.CHROMIUM is None, reason="no Chromium here: apt-get install chromium, and the page is looked at in it"
)

READY = """
const page = document, at = (id) => page.getElementById(id);
const shown = () => [...page.querySelectorAll(".row")].map((row) => row.querySelector(".name").textContent);
const words = (element) => element.innerText.replace(/\\s+/g, " ").trim();
const search = (text) => { at("search").value = text; at("search").dispatchEvent(new Event("input")); };
const order = (name) => { at("order").value = name; at("order").dispatchEvent(new Event("change")); };
const key = (name, target = page.body, more = {}) =>
  target.dispatchEvent(new KeyboardEvent("keydown", { key: name, bubbles: true, ...more }));
"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    started = browser.Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()


def found_in(chromium: browser.Browser, folder: Path, script: str, *runs: Run, width: int = 1280) -> Any:
    """What ``script`` returns in the page of ``runs``, about whose items nothing is said on the console."""
    page = folder / "page.html"
    page.write_text(whole(*runs), encoding="utf-8")
    seen = chromium.show(page, width, script=READY + script)
    assert seen.console == []
    assert seen.loaded == []
    assert seen.scroll <= width
    return seen.found


def six(folder: Path) -> Run:
    """Six items, 0 and 4 wrong, with margins of 2.4, 2.39, … and prompts of which each has a word of its own."""
    run = write(folder / "six", [item(i, margin=2.4 - i / 100 if i < 5 else 0.01) for i in range(6)])
    words = ("apple", "banana split", "cherry", "date", "elder", "split a fig")
    return log(
        run, *({"prompt": f"Shot.\nEat {word}?", "choices": [" yes", " no"], "labels": ["A", "B"]} for word in words)
    )


def test_the_browser_tells_of_errors_and_overflow(chromium: browser.Browser, tmp_path: Path) -> None:
    """The instrument itself: a page with a failing script, too wide, that fetches something."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script>console.error('here')</script><p style='width:600px'>x<img src='http://127.0.0.1:9/x.png'>")
    seen = chromium.show(bad, 390, script="return document.images.length")
    assert any("here" in line for line in seen.console)
    assert seen.scroll >= 600 > seen.client == 390
    assert seen.loaded
    assert seen.found == 1


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("kind", ["single", "two", "failures", "empty", "reference", "metered", "metered two"])
def test_a_browser_shows_it_without_a_word(chromium: browser.Browser, tmp_path: Path, kind: str, width: int) -> None:
    """No console message, nothing fetched, no horizontal scroll; the picture is not blank."""
    long = "no_space_in_" * 60
    lost = [item(i, failed=long, prediction=EVIL, target=long, id=f"{long}{i}", group=long) for i in range(20)]
    memory = {"device": {"name": "CPU", "available": 1 << 30}, "terms": {"weights": 1 << 28}, "total": 1 << 28}
    header = {"engine": "llama.cpp", "command": long, "model": {"name": "m", "sha256": "0" * 64}, "memory": memory}
    items = [item(i) for i in range(40)]
    runs = {
        "single": lambda: [write(tmp_path / "r", items, header=header)],
        "two": lambda: [write(tmp_path / "r", items, header=header), write(tmp_path / long[:200], items[:30])],
        "failures": lambda: [write(tmp_path / "r", [*lost, *items[20:]], warnings=[long])],
        "empty": lambda: [write(tmp_path / "r", [], header=header)],
        "metered": lambda: [limited(metered(write(tmp_path / "r", items, header=header), 900, gpus=TWO_GPUS))],
        "metered two": lambda: [
            limited(metered(write(tmp_path / "r", items, header=header))),
            metered(write(tmp_path / long[:200], items[:30]), 50, known=False, gpus=TWO_GPUS),
            Run.open(REFERENCE / "float32"),
        ],
        "reference": lambda: [Run.open(REFERENCE / dtype) for dtype in ("float32", "bfloat16")],
    }[kind]()
    page, picture = tmp_path / "page.html", tmp_path / "page.png"
    page.write_text(whole(*runs), encoding="utf-8")
    seen = chromium.show(page, width, picture=picture)
    assert seen.console == []
    assert seen.loaded == []
    assert seen.client == width
    assert seen.scroll <= width
    assert picture.stat().st_size > 5000


def test_words_are_searched_in_any_order_and_phrases_as_they_stand(chromium: browser.Browser, tmp_path: Path) -> None:
    """In prompts and choices, not in the line that all prompts of a group begin with; no item is said to be none."""
    script = """
    const found = {};
    for (const text of ["cherry", "SPLIT eat", '"banana split"', "shot", "", "subject_1/4"]) {
      search(text);
      found[text] = [shown(), words(at("found"))];
    }
    search("nothing of the kind");
    return { ...found, none: [shown(), words(at("detail"))] };
    """
    found = found_in(chromium, tmp_path, script, six(tmp_path))
    assert found["cherry"] == [["subject_2/2"], "1 of 6 items"]
    assert found["SPLIT eat"][0] == ["subject_1/1", "subject_2/5"]
    assert found['"banana split"'][0] == ["subject_1/1"]
    assert found["shot"][0] == []
    assert found[""] == [[f"subject_{i % 3}/{i}" for i in range(6)], "6 items"]
    assert found["subject_1/4"][0] == ["subject_1/4"]
    assert found["none"] == [[], "No item fits."]


def test_filters_and_orders(chromium: browser.Browser, tmp_path: Path) -> None:
    """By task, group and what became of an item, several at once; by margin and length. Counts follow the search."""
    items = [item(i, margin=[0.5, 0.01, 3.0, 0.02, 2.0, 1.0][i], n_tokens=[5, 9, 1, 3, 2, 8][i]) for i in range(6)]
    items[2] = item(2, margin=3.0, n_tokens=1, truncated=9)
    items[3] = item(3, margin=None, n_tokens=3, failed="no memory", correct=False, logprobs=None)
    items += [item(6, skipped="too long", scores={}, margin=None), item(7, task="u", margin=0.9, n_tokens=7)]
    script = """
    const chips = [...page.querySelectorAll(".chip")].filter((chip) => !chip.hidden);
    const found = { counts: Object.fromEntries(chips.map((chip) => [chip.id, words(chip)])) };
    const ids = () => shown().map((name) => name.split("/")[1]).join("");
    for (const name of ["right", "wrong", "near-tie", "truncated", "failed", "skipped"]) {
      at(`only-${name}`).click();
      found[name] = ids();
      at(`only-${name}`).click();
    }
    at("only-right").click(); at("only-near-tie").click(); found.both = ids();
    at("only-wrong").click(); found.other = [ids(), at("only-right").ariaPressed]; at("clear").click();
    for (const name of ["narrow", "wide", "long", "short"]) { order(name); found[name] = ids(); }
    order("asked");
    at("by-task").value = 1; at("by-task").dispatchEvent(new Event("change")); found.task = ids(); at("clear").click();
    at("by-group").value = 0; at("by-group").dispatchEvent(new Event("change")); found.group = ids();
    found.hidden = at("only-skipped").hidden;
    return found;
    """
    found = found_in(chromium, tmp_path, script, write(tmp_path / "r", items))
    assert found["counts"] == {
        "only-right": "right 4",
        "only-wrong": "wrong 3",
        "only-near-tie": "near-tie 1",
        "only-truncated": "truncated 1",
        "only-failed": "failed 1",
        "only-skipped": "skipped 1",
    }
    assert (found["right"], found["wrong"]) == ("1257", "034")
    assert [found[name] for name in ("near-tie", "truncated", "failed", "skipped")] == ["1", "2", "3", "6"]
    assert found["both"] == "1", "of the wrong ones none is a near-tie"
    assert found["other"] == ["", "false"]
    assert found["narrow"] == "10754236", "unknown margins come last"
    assert found["wide"] == "24570136"
    assert (found["long"], found["short"]) == ("61570342", "24307516")
    assert (found["task"], found["group"]) == ("7", "036")
    assert found["hidden"] is False


def test_an_item_is_shown_whole(chromium: browser.Browser, tmp_path: Path) -> None:
    """Folded prompt with what is shared, choices with their log-probabilities, answer, target, margin, metrics."""
    script = """
    search("elder");
    const details = at("detail").querySelector("details");
    const found = { folded: !details.open, text: words(at("detail")) };
    key("p");
    found.unfolded = details.open && words(details.querySelector("pre"));
    found.target = words(at("detail").querySelector(".target th"));
    found.chosen = [...at("detail").querySelectorAll(".chosen")].map(words);
    return found;
    """
    found = found_in(chromium, tmp_path, script, six(tmp_path))
    assert found["folded"]
    assert found["unfolded"] == "Shot. Eat elder?"
    for said in ("subject_1/4", "14 tokens", "Eat elder?", "yes", "-0.140", "answer ✗ B", "target A", "margin 2.360"):
        assert said in found["text"], said
    assert "acc_norm 0" in found["text"]
    assert found["target"] == "A ✓"
    assert found["chosen"] == ["-2.500"], "B was answered"


def test_texts_and_reasons_are_shown(chromium: browser.Browser, tmp_path: Path) -> None:
    """Of a text what was written, word for word; why an item has no answer, and what its prompt lost."""
    items = [
        item(0, logprobs=None, text="first\nsecond", prediction="first", truncated=12),
        item(1, logprobs=None, failed="needs 5000 tokens", correct=False),
    ]
    script = """
    const found = [at("detail").innerText];
    key("j");
    return [...found, words(at("detail"))];
    """
    written, failed = found_in(chromium, tmp_path, script, write(tmp_path / "r", items))
    assert "first\nsecond" in written
    assert "12 tokens at the beginning" in written
    assert "failed needs 5000 tokens" in failed


def test_flips_come_first_where_runs_are_compared(chromium: browser.Browser, tmp_path: Path) -> None:
    """The widest margins before them; who alone is right; each run's answer beside the other's."""
    first = six(tmp_path)
    others = [item(i, margin=2.4 - i / 100) for i in range(5)]
    others[1] = item(1, prediction="B", correct=False, margin=0.2)
    others[4] = item(4, prediction="A", correct=True, margin=0.6)
    script = """
    const found = { order: shown(), text: words(at("detail")), heads: [...page.querySelectorAll(".chip")].map(words) };
    const ids = () => shown().map((name) => name.split("/")[1]).join("");
    for (const name of ["flipped", "right-0", "right-1", "right", "partly"]) {
      at(`only-${name}`).click(); found[name] = ids(); at(`only-${name}`).click();
    }
    return found;
    """
    found = found_in(chromium, tmp_path, script, first, write(tmp_path / "other", others))
    assert found["order"][:2] == ["subject_1/4", "subject_1/1"], "4 has moved by 2.96, 1 by 2.59"
    assert found["flipped"] == "41"
    assert (found["right-0"], found["right-1"]) == ("1", "4")
    assert (found["right"], found["partly"]) == ("23", "5"), "5 is in one run only"
    assert "answer ✗ B ✓ A" in found["text"]
    assert "only other right 1" in found["heads"]


def test_keys_lead_through_the_items(chromium: browser.Browser, tmp_path: Path) -> None:
    """Next and previous, first and last, into the search and out of it; Ctrl keeps its own meaning."""
    script = """
    const chosen = () => words(at("detail").querySelector("h3"));
    const found = [];
    key("j"); key("j"); key("k"); found.push(chosen());
    at("list").focus();
    key("End", at("list")); found.push(chosen());
    key("ArrowUp", at("list")); found.push(chosen());
    found.push(page.querySelector("#" + at("list").getAttribute("aria-activedescendant")).ariaSelected);
    key("Home", at("list")); found.push(chosen());
    key("j", page.body, { ctrlKey: true }); found.push(chosen());
    key("/"); found.push(page.activeElement.id);
    search("fig"); key("j", at("search")); found.push(chosen());
    key("Escape", at("search")); found.push(page.activeElement.id, words(at("found")));
    return found;
    """
    assert found_in(chromium, tmp_path, script, six(tmp_path)) == [
        "subject_1/1",
        "subject_2/5",
        "subject_1/4",
        "true",
        "subject_0/0",
        "subject_0/0",
        "search",
        "subject_2/5",
        "list",
        "6 items",
    ]


def test_on_a_phone_an_item_lies_above_the_list(chromium: browser.Browser, tmp_path: Path) -> None:
    """It opens with a tap and closes with its button; the next one is a tap away."""
    script = """
    const style = getComputedStyle(at("detail")), open = () => style.display !== "none" && style.position === "fixed";
    const found = [open()];
    page.querySelectorAll(".row")[2].click(); found.push(open(), words(at("detail").querySelector("h3")));
    at("detail").querySelector("[aria-label='next item']").click(); found.push(words(at("detail").querySelector("h3")));
    found.push(at("detail").scrollWidth <= at("detail").clientWidth);
    at("detail").querySelector(".close").click(); found.push(open());
    return found;
    """
    expected = [False, True, "subject_2/2", "subject_0/3", True, False]
    assert found_in(chromium, tmp_path, script, six(tmp_path), width=390) == expected


def test_only_rows_near_what_is_seen_are_drawn(chromium: browser.Browser, tmp_path: Path) -> None:
    """Of 3,000 items some dozens; those at the end once the list is there."""
    script = """
    const found = [page.querySelectorAll(".row").length < 60];
    at("list").scrollTop = at("list").scrollHeight;
    for (let i = 0; i < 50 && !shown().includes("subject_2/2999"); i += 1) await new Promise(requestAnimationFrame);
    return [...found, shown().includes("subject_2/2999"), page.querySelectorAll(".row").length < 60];
    """
    assert found_in(chromium, tmp_path, script, write(tmp_path / "r", [item(i) for i in range(3000)])) == [True] * 3


def test_numbers_on_the_page_lead_to_their_items(chromium: browser.Browser, tmp_path: Path) -> None:
    """A group's name, and the count of near-ties; what was chosen before is let go."""
    script = """
    search("fig");
    const found = [];
    for (const link of ['a[data-group="subject_1"]', 'a[data-only="near-tie"]']) {
      page.querySelector(link).click();
      found.push(shown());
    }
    return found;
    """
    found = found_in(chromium, tmp_path, script, six(tmp_path))
    assert found == [["subject_1/1", "subject_1/4"], ["subject_2/5"]]


def test_nothing_of_the_data_is_markup(chromium: browser.Browser, tmp_path: Path) -> None:
    """Neither in the list nor in an item: prompts, choices, answers, reasons, names of tasks, groups, metrics."""
    evil = item(0, prediction=EVIL, id=EVIL, group=EVIL, target=EVIL, task=EVIL, scores={"acc": 1.0, EVIL: 1.0})
    asked = {"prompt": EVIL + "</script>", "choices": [EVIL, EVIL], "labels": [EVIL, "B"], "right": [EVIL, "B"]}
    script = """
    const found = [...at("browser").querySelectorAll("img, script")].length;
    return [found, at("detail").innerText];
    """
    runs = [log(write(tmp_path / name, [evil]), asked) for name in ("a", "b")]
    count, text = found_in(chromium, tmp_path, script, *runs)
    assert count == 0
    assert text.count("console.error('ran')") >= 8
