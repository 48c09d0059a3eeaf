"""Data files that are missing, empty, damaged, no files, or packed to burst: one line that names file and row."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pytest
from pyarrow import parquet

from eval.data import text_file
from eval.data.digests import changed_files
from eval.data.readers import read_csv, read_json_list, read_parquet, read_rows
from eval.tasks.base import LoadOptions
from eval.tasks.registry import get_task
from orin_runner.errors import UserError
from tests.support.choice_rows import GOLDEN, jsonl, write
from tests.support.damage import damaged_bytes, damaged_json
from tests.support.published import FILES, SHOTS

ALL = {
    task: files | dict([GOLDEN[task].train]) if task in GOLDEN and GOLDEN[task].shot else files
    for task, files in FILES.items()
}
"""With the worked examples."""
PLAIN = {"drop", "truthfulqa_mc1", "truthfulqa_mc2", "bbh", "bbh_direct", "challenge", "agieval", "humaneval"}
"""Tasks that have no worked examples, or always the same."""
PLACES = [
    (task, name)
    for task, files in ALL.items()
    for name in files
    if task not in {"mmlu", "bbh"} or any(subject in name for subject in ("anatomy", "virology", "snarks"))
]


def load(task: str, data: Path) -> int:
    shots = SHOTS.get(task, 1 if task not in PLAIN else None)
    return len(get_task(task).load(LoadOptions(data, shots=shots)).docs)


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """A pipe that is waited for ends the test."""
    signal.alarm(60)
    yield
    signal.alarm(0)


@pytest.mark.parametrize(("task", "name"), PLACES)
def test_every_file_is_expected_and_has_rows(task: str, name: str, tmp_path: Path) -> None:
    """Each that is empty, has blank lines only, or is missing is named: no subject, round or example is left out."""
    data = write(tmp_path, ALL[task])
    assert load(task, data) > 0
    for text in ("", "\n\n"):
        (data / name).write_text(text, encoding="utf-8")
        with pytest.raises(UserError, match=re.escape(Path(name).name)):
            load(task, data)
    (data / name).unlink()
    with pytest.raises(UserError, match=re.escape(Path(name).name) if task != "challenge" else "holds no .jsonl file"):
        load(task, data)


EMPTY = {
    "rows.jsonl": b"",
    "list.json": b"[]",
    "list.json.gz": gzip.compress(b"[]"),
    "lines.jsonl.gz": gzip.compress(b""),
}


@pytest.mark.parametrize("name", EMPTY)
def test_files_without_rows(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(EMPTY[name])
    with pytest.raises(UserError, match=f"{name} has no rows"):
        list(read_rows(tmp_path / name))


def test_a_parquet_file_without_rows(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"a": pa.array([], pa.string())}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has no rows"):
        list(read_rows(tmp_path / "a.parquet"))


@pytest.mark.parametrize("kind", ["pipe", "folder", "loop", "device"])
@pytest.mark.parametrize(("task", "name"), [(task, next(iter(files))) for task, files in FILES.items()])
def test_what_is_no_file_is_named_and_not_waited_for(task: str, name: str, kind: str, tmp_path: Path) -> None:
    """The digests of published files look at it, too."""
    path = write(tmp_path, ALL[task]) / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    for look in (load, lambda task, data: changed_files(task, data) or load(task, data)):
        with pytest.raises((UserError, OSError)) as error:
            look(task, tmp_path)
        assert path.name in str(error.value)
        assert len(str(error.value).splitlines()) == 1


def test_a_pipe_as_the_challenges_file(tmp_path: Path) -> None:
    """As a shell's <(...) gives one."""
    os.mkfifo(tmp_path / "rows.jsonl")
    with pytest.raises(UserError, match=r"rows\.jsonl is a pipe"):
        load("challenge", tmp_path / "rows.jsonl")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"question": "\\ud83d", "answer": "#### 1"}', "not valid JSON"),
        (b'{"question": "x", "answer": "#### 1", "n": NaN}', "not valid JSON"),
        (b'{"question": "x", "answer": "#### 1", "n": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b'{"question": ' + b"[" * 5000 + b"]" * 5000 + b"}", "not valid JSON"),
        (b'{"question": "\xff", "answer": "#### 1"}', "not UTF-8"),
        (b'{"question": "\xed\xa0\xbd", "answer": "#### 1"}', "not UTF-8"),
        (b"\0" * 40, "NUL"),
        (b'{"question": "' + b"x" * (text_file.MAX_LINE + 1) + b'", "answer": "#### 1"}', "longer than 16 MiB"),
    ],
    ids=["half a surrogate pair", "NaN", "5,000 digits", "deep", "no UTF-8", "a surrogate's bytes", "NUL", "long"],
)
def test_rows_that_are_no_strict_json_are_named(line: bytes, said: str, tmp_path: Path) -> None:
    """By file and line, before anything else is made of them."""
    data = write(tmp_path, FILES["gsm8k"])
    path = data / "gsm8k" / "test.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(UserError, match=f"test.jsonl, line 4: .*{said}") as error:
        load("gsm8k", data)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("task", "name", "row", "said"),
    [
        ("arc_easy", "arc_easy/test.jsonl", {"text": ["a"], "label": ["A"]}, "1 choices leave nothing to choose"),
        ("arc_easy", "arc_easy/test.jsonl", {"text": [], "label": []}, "the answer is 'A', not one of"),
        ("arc_easy", "arc_easy/test.jsonl", {"text": ["a", "b"], "label": ["A", "A"]}, "2 choices have 1 different"),
        ("arc_easy", "arc_easy/test.jsonl", {"text": ["a", "b"], "label": ["A"]}, "2 choices have 1 different"),
    ],
)
def test_choices_that_leave_no_choice(
    task: str, name: str, row: dict[str, list[str]], said: str, tmp_path: Path
) -> None:
    """One, none, or two with the same label."""
    write(tmp_path, {name: jsonl({"question": "q", "choices": row, "answerKey": "A"})})
    with pytest.raises(UserError, match=f"line 1: {said}"):
        get_task(task).load(LoadOptions(tmp_path))


def test_two_questions_of_one_name(tmp_path: Path) -> None:
    """A file and its packed copy: each item would be written twice."""
    content = FILES["challenge"]["cechallenge2024/test_dataset.jsonl"]
    write(tmp_path, {"cechallenge2024/test_dataset.jsonl": content})
    (tmp_path / "cechallenge2024" / "test_dataset.jsonl.gz").write_bytes(gzip.compress(content.encode()))
    with pytest.raises(UserError, match="two questions are called test_dataset/1"):
        load("challenge", tmp_path)


@pytest.mark.parametrize("form", ["one line", "lines", "list"])
def test_a_gzip_bomb_is_refused(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What unpacks to more than a hundred times its size, beyond what any file may have; a data set does not."""
    monkeypatch.setattr(text_file, "FREE_BYTES", 1 << 16)
    row = json.dumps({"a": "x" * 100}).encode()
    content = {
        "one line": b" " * (1 << 22),
        "lines": (row + b"\n") * 40_000,
        "list": b"[" + row + (b"," + row) * 40_000,
    }
    path = tmp_path / "bomb.json.gz"
    path.write_bytes(gzip.compress(content[form]))
    read: list[int] = []
    lines = text_file.lines_of

    def counted(of: Path) -> Iterator[bytes]:
        for line in lines(of):
            read.append(len(line))
            yield line

    monkeypatch.setattr(text_file, "lines_of", counted)
    with pytest.raises(UserError, match=r"bomb\.json\.gz has more than .* unpacked"):
        list(read_json_list(path))
    assert sum(read) <= 2 * max(1 << 16, 100 * path.stat().st_size), "a file is looked at, and read"
    rows = [json.dumps({"a": f"{Random(i).random()}"}) for i in range(10_000)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    assert len(list(read_json_list(path))) == 10_000


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json"])
def test_a_file_that_is_too_large_is_not_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line of 2 GiB, of which the disk holds nothing."""
    path = tmp_path / name
    path.touch()
    os.truncate(path, 2 << 30)
    monkeypatch.setattr(text_file, "_decoded", lambda *_: pytest.fail("it is read"))
    with pytest.raises(UserError, match="has more than 1024 MiB"):
        list(read_csv(path, 6) if path.suffix == ".csv" else read_rows(path))


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv", "rows.json", "rows.jsonl.gz"])
def test_a_file_of_line_ends_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is looked at, however few bytes they are."""
    monkeypatch.setattr(text_file, "MAX_LINES", 1000)
    path = tmp_path / name
    for n, message in ((1001, "has more than 1,000 lines"), (1000, "has no rows|is not valid JSON")):
        content = b"\n" * n
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        with pytest.raises(UserError, match=message):
            list(read_csv(path, 6) if path.suffix == ".csv" else read_rows(path))


@pytest.mark.parametrize(
    ("values", "form"),
    [
        ([0], pa.timestamp("s", "Nowhere/Nope")),
        ([0], pa.timestamp("us", "+99:99")),
        ([1 << 62], pa.timestamp("us", "UTC")),
        ([1 << 62], pa.duration("s")),
        ([(1 << 31) - 1], pa.date32()),
    ],
    ids=str,
)
def test_times_that_python_does_not_know_are_one_line(values: list[int], form: pa.DataType, tmp_path: Path) -> None:
    """In whatever column: a zone of no such name, a year beyond 9999."""
    column = pa.array(values, pa.int32() if form == pa.date32() else pa.int64()).view(form)
    parquet.write_table(pa.table({"a": pa.array(["x"]), "b": column}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet is not a whole parquet file: ."):
        list(read_parquet(tmp_path / "a.parquet"))


def test_a_parquet_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One long text that stands for a million rows."""
    monkeypatch.setattr(text_file, "FREE_BYTES", 1 << 20)
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), pa.array(["x" * 10_000]))
    parquet.write_table(pa.table({"a": text.cast(pa.dictionary(pa.int32(), pa.string()))}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has more than .* unpacked"):
        list(read_parquet(tmp_path / "a.parquet"))


@pytest.mark.parametrize("task", FILES)
def test_damaged_files_load_or_are_named(task: str, tmp_path: Path) -> None:
    """Bits, pieces and JSON values, by chance: rows, or one line and nothing else."""
    random = Random(f"damage {task}")
    files = ALL[task]
    data = write(tmp_path, files)
    for _ in range(40):
        name = random.choice(list(files))
        content = files[name].encode()
        is_json = ".json" in name and random.random() < 0.7
        lines = content.splitlines(keepends=True)
        if is_json and name.endswith("l"):
            content = b"".join([*lines[:-1], damaged_json(lines[-1], random)])
        else:
            content = damaged_json(content, random) if is_json else damaged_bytes(content, random)
        (data / name).write_bytes(content)
        said = ""
        try:
            load(task, data)
        except UserError as error:
            said = str(error)
        assert len(said.splitlines()) <= 1, content[:200]
        assert len(said) < 3000, content[:200]
        (data / name).write_text(files[name], encoding="utf-8")


SCENE = {"activity_label": "A", "ctx_a": "", "ctx_b": "b", "endings": list("abcd"), "label": 1}
SLOW = {
    "hellaswag": (
        {"hellaswag/hellaswag_val.jsonl": jsonl({**SCENE, "ctx_a": "[" * 1_000_000 + "\n[x] " + "[" * 1_000_000})},
        "[" * 1_000_000 + "\n " + "[" * 1_000_000 + " B",
    ),
    "drop": (
        {
            "drop/drop_v0_dev.jsonl": jsonl(
                {"context": "Passage: p" + "\nQuestion: q" * 300_000 + "\nAnswer:", "ref_text": "7"}
            )
        },
        "p" + "\nQuestion: q" * 299_999 + " q",
    ),
}


@pytest.mark.parametrize("task", SLOW)
def test_what_begins_a_million_times_and_never_ends_is_read_in_a_moment(task: str, tmp_path: Path) -> None:
    """A pattern that looks for the end from each beginning on would take hours."""
    files, end = SLOW[task]
    (doc,) = get_task(task).load(LoadOptions(write(tmp_path, files), shots=None)).docs
    assert doc.prompt.endswith(end)


def test_a_million_questions_without_an_answer_are_one_line(tmp_path: Path) -> None:
    row = {"context": "Passage: p" + "\nQuestion: q\nAnswer: " * 300_000, "ref_text": "7"}
    with pytest.raises(UserError, match="line 1: 'context' is not a passage, a question and 'Answer:'"):
        load("drop", write(tmp_path, {"drop/drop_v0_dev.jsonl": jsonl(row)}))
