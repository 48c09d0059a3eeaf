"""A page of several runs."""

from __future__ import annotations

from pathlib import Path

from eval.report.facts import differing
from tests.support.pages import item, page_of, write


def test_runs_stand_side_by_side(tmp_path: Path) -> None:
    """Two runs of one task in one table, told apart by as much of their paths as it takes."""
    first = write(tmp_path / "a" / "run", [item(i) for i in range(12)])
    second = write(tmp_path / "b" / "run", [item(i, correct=True, scores={"acc": 1.0}) for i in range(12)])
    page = page_of(first, second)
    assert "t: 2 runs compared" in page.text
    assert "a/run 12 75.00 %" in page.text
    assert "b/run 12 100.00 %" in page.text


def test_what_differs_stands_at_the_top(tmp_path: Path) -> None:
    """Settings first, then model and machine; not what is the same, when and where the runs were made, or not said."""
    settings = {"limit": 100, "shots": 5, "chat": False, "splits": {"t": "dev"}}
    header = {"engine": "llama.cpp", "model": {"name": "a.gguf", "types": {"F16": 3}}, "settings": settings}
    other = {**header, "model": {"name": "b.gguf", "types": {"F16": 3}}, "settings": {**settings, "limit": None}}
    more = {"time": "later", "command": "other words", "options": {"data": "elsewhere"}, "gpu_layers": "3/3"}
    items = [item(i) for i in range(4)]
    runs = [write(tmp_path / "a", items, header=header), write(tmp_path / "b", items, header={**other, **more})]
    assert differing(runs) == {"limit": [100, None], "file": ["a.gguf", "b.gguf"]}
    page = page_of(*runs)
    assert "What differs a b limit 100 \N{EN DASH} file a.gguf b.gguf" in page.text
    assert page.text.index("What differs a b") < page.text.index("75.00 %")
    assert "not asked the same" not in page.text
    assert "What differs" not in page_of(runs[0], runs[0]).text
    assert "What differs" not in page_of(runs[0]).text


def test_runs_that_were_asked_otherwise_are_named(tmp_path: Path) -> None:
    """With what was not the same: their accuracies are not of the same prompts."""
    items = [item(i) for i in range(4)]
    headers = [{"engine": "x", "settings": {"shots": shots}} for shots in (None, 5)]
    first, other = (write(tmp_path / f"s{n}", items, header=header) for n, header in enumerate(headers))
    said = "s0 and s1 were not asked the same: different --shots: default and 5"
    assert said in page_of(first, other).text
