"""The items of runs as the page's browser reads them."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from eval.report.item_data import item_data, packed
from eval.runs.items import ITEMS
from eval.runs.run import Run
from orin_runner.errors import UserError
from tests.support.pages import item, log, write

SHOTS = "Answer each question.\n\nHow many?\nAnswer: B\n\n"


def data_of(*runs: Run) -> dict[str, Any]:
    return item_data(runs, [run.directory.name for run in runs])


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


def prompt_of(data: dict[str, Any], at: int, columns: dict[str, Any] | None = None) -> str:
    """What the browser shows: what is shared, and what follows."""
    columns = data["items"] if columns is None else columns
    place = columns["beginning"][at]
    return ("" if place is None else data["beginnings"][place]) + columns["prompt"][at]


def test_a_run_without_prompts_has_what_its_predictions_have(tmp_path: Path) -> None:
    """Item 2 stands before item 10 whenever it was answered; noise of 0.03 makes one near-tie of the margins."""
    items = [item(10, margin=0.02), item(2, text="so", logprobs=None, truncated=4), item(0, failed="no memory")]
    items.append(item(1, skipped="too long", scores={}))
    found = data_of(write(tmp_path / "r", items))
    columns, own = found["items"], found["runs"][0]["items"]
    assert columns["id"] == ["subject_0/0", "subject_1/1", "subject_1/10", "subject_2/2"]
    assert [found["groups"][place] for place in columns["group"]] == [
        "subject_0",
        "subject_1",
        "subject_1",
        "subject_2",
    ]
    assert [found["tasks"][place] for place in columns["task"]] == ["t"] * 4
    assert columns["n_tokens"] == [10, 11, 20, 12]
    for unknown in ("prompt", "beginning", "choices", "labels", "right"):
        assert columns[unknown] == [None] * 4
    assert own["near_tie"] == [False, False, True, False]
    assert own["text"] == [None, None, None, "so"]
    assert own["truncated"] == [0, 0, 0, 4]
    assert own["failed"] == ["no memory", None, None, None]
    assert own["skipped"] == [None, "too long", None, None]
    assert own["logprobs"][2:] == [[-0.2, -2.5], None]
    assert found["runs"][0]["metrics"] == {"t": ["acc", "acc_norm"]}
    assert own["scores"][2] == [1.0, 0.0]


def test_what_prompts_begin_with_is_written_once_for_a_group(tmp_path: Path) -> None:
    """Whole lines of it; each prompt is what was asked, word for word."""
    prompts = [f"{SHOTS}How old is {name}?\nAnswer:" for name in ("Ann", "Anna")] + ["How far?\nAnswer:"]
    run = write(tmp_path / "r", [item(0), item(3), item(1)])
    asked = [{"prompt": text, "choices": [" A", " B"], "labels": ["A", "B"], "right": ["A"]} for text in prompts]
    asked[1]["right"] = ["A", "B"]
    found = data_of(log(run, *asked))
    assert [prompt_of(found, at) for at in range(3)] == prompts
    assert found["beginnings"] == [SHOTS]
    assert found["items"]["beginning"] == [0, 0, None]
    assert found["items"]["choices"][0] == [" A", " B"]
    assert found["items"]["right"] == [None, ["A", "B"], None], "the target alone is not said again"


def test_questions_stand_in_their_order(tmp_path: Path) -> None:
    """That of ``items.jsonl.gz``; an item that is not in it comes last, with what is known of it."""
    run = write(tmp_path / "r", [item(7), item(1), item(4)])
    path = run.directory / ITEMS
    log(run, {"prompt": "x"}, {"prompt": "y"}, {"prompt": "z"})
    path.write_bytes(gzip.compress(b"".join(gzip.decompress(path.read_bytes()).splitlines(keepends=True)[:2])))
    found = data_of(run)
    assert found["items"]["id"] == ["subject_1/7", "subject_1/1", "subject_1/4"]
    assert found["items"]["prompt"] == ["x", "y", None]


def test_a_choice_may_have_its_own_prompt(tmp_path: Path) -> None:
    found = data_of(
        log(write(tmp_path / "r", [item(0)]), {"prompts": ["Ann went", "Bob went"], "choices": [" home"] * 2})
    )
    assert found["items"]["prompt"] == [["Ann went", "Bob went"]]
    assert found["items"]["beginning"] == [None]


def test_runs_share_the_questions(tmp_path: Path) -> None:
    """Items of either run; a prompt is said again only where another run was asked otherwise."""
    first = log(write(tmp_path / "a", [item(0), item(1)]), {"prompt": "same"}, {"prompt": "short"})
    second = log(
        write(tmp_path / "b", [item(0, prediction="B"), item(1), item(2)]),
        {"prompt": "same"},
        {"prompt": "longer"},
        {"prompt": "new"},
    )
    found = data_of(first, second)
    assert found["items"]["id"] == ["subject_0/0", "subject_1/1", "subject_2/2"]
    assert found["items"]["prompt"] == ["same", "short", "new"]
    assert [run["items"]["prompt"] for run in found["runs"]] == [[None] * 3, [None, "longer", None]]
    assert [run["items"]["answer"] for run in found["runs"]] == [["B", "A", None], ["B", "A", "A"]]
    assert [run["name"] for run in found["runs"]] == ["a", "b"]


def test_packed_data_can_be_read_and_hides_nothing(tmp_path: Path) -> None:
    """Markup stays as it is, the packing has none; what a reader could not see is spelled out, lines are kept."""
    evil = '</script><b>\u202e\x1b\ud800\n"'
    run = write(tmp_path / "r", [item(0)])
    found = data_of(log(run, {"prompt": "x"}))
    found["items"]["prompt"] = [evil]
    text = packed(found)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=")
    assert unpacked(text)["items"]["prompt"] == ['</script><b>\\u202e\\x1b\\ud800\n"']
    assert packed(found) == text, "the same page from the same run"


def test_no_items_are_no_columns(tmp_path: Path) -> None:
    assert data_of(write(tmp_path / "r", []))["items"] == {}


@pytest.mark.parametrize(
    "content",
    [b"no gzip", gzip.compress(b'{"task": 1}\n'), gzip.compress(b"{}\n")[:-4], gzip.compress(b"[\n")],
    ids=["no gzip", "no item", "cut off", "no JSON"],  # packed bytes have the time in them
)
def test_a_damaged_file_is_said_to_be(tmp_path: Path, content: bytes) -> None:
    """By its name, with what to do."""
    run = write(tmp_path / "r", [item(0)])
    (run.directory / ITEMS).write_bytes(content)
    with pytest.raises(UserError, match=ITEMS) as raised:
        data_of(run)
    assert raised.value.hint is not None
    assert "--log-items" in raised.value.hint
