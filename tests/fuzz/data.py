"""Malformed data files of every task that reads published ones."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from random import Random

from tests.fuzz.ggufs import evaluated, planned
from tests.support.choice_rows import write
from tests.support.fuzz import corpus, kinds, texts
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged, other_json, other_lines

EVALUATED = 0.06
"""Share of the cases that the engine answers; the others end with the plan."""
SHOTS = {"mmlu": 2}
PLAIN = ("drop", "truthfulqa_mc1", "truthfulqa_mc2", "bbh", "bbh_direct", "challenge", "agieval", "humaneval")
"""Tasks whose worked examples are not counted."""


def prepared(random: Random, place: Place) -> tuple[str, Path, list[Path]]:
    """A task, its folder of data, to be damaged, and the files in it."""
    task = random.choice(sorted(corpus.TASKS))
    files = corpus.TASKS[task]
    if random.random() < 0.1 and task == "bbh":
        task = "bbh_direct"
    folder = write(place.inputs, files)
    return task, folder, [folder / name for name in sorted(files)]


def read(task: str, folder: Path, place: Place, random: Random, rows: int | None = None, *options: str) -> Case:
    """A command that reads the rows: of the plan, ``rows`` is how many requests it has, where that is known."""
    shots = [] if task in PLAIN else ["--shots", str(SHOTS.get(task, random.choice((0, 1))))]
    return asked(task, folder, place, random, rows, *shots, *options)


def asked(task: str, folder: Path, place: Place, random: Random, rows: int | None, *options: str) -> Case:
    """The same with no other options than these."""
    model = place.base / "llama.gguf"
    if random.random() < EVALUATED:
        return evaluated(place, model, task, random, *options, data=folder)
    argv = ["orin-run", "plan", task, "--data", str(folder), "--model", str(model), "--device", "orin-32gb", "--json"]

    def right(outcome) -> str | None:
        wrong = planned(outcome)
        if wrong or rows is None:
            return wrong
        plan = json.loads(outcome.out)
        found = plan["requests"] + sum(plan.get("skipped", {}).values())
        return None if found == rows else f"{found} requests of {rows} rows"

    return Case([*argv, *options], right=right, fails='"fits": false')


def values(random: Random, place: Place) -> Case:
    """Any value of a JSON file or of a line."""
    task, folder, files = prepared(random, place)
    path = random.choice([path for path in files if path.suffix in {".json", ".jsonl"}] or files)
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        path.write_bytes(other_lines(content, random))
    elif path.suffix == ".json":
        path.write_bytes(other_json(content, random))
    else:
        path.write_bytes(damaged(content, content, random))
    return read(task, folder, place, random)


def contents(random: Random, place: Place) -> Case:
    """Bytes of any file."""
    task, folder, files = prepared(random, place)
    path, other = random.choice(files), random.choice(files)
    path.write_bytes(damaged(path.read_bytes(), other.read_bytes(), random))
    return read(task, folder, place, random)


def odd_texts(random: Random, place: Place) -> Case:
    """Sound files whose texts are odd; what is there is asked."""
    task, folder, files = prepared(random, place)
    path = random.choice(files)
    old = path.read_text("utf-8")
    words = [word for word in ("Where", "Who", "Ann", "Ice", "cold", "flies", "cars", "Cooking", "sings", "hot",
    "Open", "Hit",
                               "Al", "red", "glad", "pigs", "cats", "what", "odd", "Is", "team", "points", "apples",
                               "Tom", "q") if word in old]  # fmt: skip
    new = texts.text(random)
    escaped = (
        json.dumps(new)[1:-1]
        if path.suffix in {".json", ".jsonl"}
        else new.replace('"', "'").encode("utf-8", "replace").decode()
    )
    path.write_text(old.replace(random.choice(words or ["."]), escaped), "utf-8")
    return read(task, folder, place, random)


def lines(random: Random, place: Place) -> Case:
    """Rows that stand twice, in another order, with other line ends or empty lines between them."""
    task, folder, files = prepared(random, place)
    path = random.choice(files)
    old = path.read_bytes().splitlines(keepends=True)
    kind = random.randrange(7)
    if kind == 0:
        new = old * random.choice((2, 3, 500))
    elif kind == 1:
        new = old[::-1]
    elif kind == 2:
        new = [
            line.rstrip(b"\n") + random.choice((b"\r\n", b"\r", b"\n\n", b" \n", b"\x0b\n", b"\xe2\x80\xa8\n"))
            for line in old
        ]
    elif kind == 3:
        new = [b"\n" * 3, *old, b"\n" * 3]
    elif kind == 4:
        new = [*old[:-1], old[-1].rstrip(b"\n")]
    elif kind == 5:
        new = [*old, random.choice((b"{", b"\0", b"\xff", b"x", b"[]", b"{}", b"null", b",", b"\xef\xbb\xbf"))]
    else:
        new = [line.replace(b", ", b",\t").replace(b'": ', b'" :  ') for line in old]
    path.write_bytes(b"".join(new))
    return read(task, folder, place, random)


def file_kind(random: Random, place: Place) -> Case:
    """Something else in the place of a file or a folder of files."""
    task, folder, files = prepared(random, place)
    path = random.choice(files)
    while random.random() < 0.25 and path.parent != folder:
        path = path.parent
    kinds.put(path, random, random.choice(kinds.KINDS[:-3]) if path.suffix == "" else None)
    return read(task, folder, place, random)


def names(random: Random, place: Place) -> Case:
    """Files under other names: packed or not, of another form, one in the place of another."""
    task, folder, files = prepared(random, place)
    path = random.choice(files)
    content = path.read_bytes()
    kind = random.randrange(7)
    if kind == 0:
        path.with_name(path.name + ".gz").write_bytes(
            random.choice((content, gzip.compress(content), gzip.compress(content)[:-9]))
        )
        if random.random() < 0.7:
            path.unlink()
    elif kind == 1:
        path.write_bytes(gzip.compress(content))
    elif kind == 2:
        path.rename(path.with_suffix(random.choice((".json", ".parquet", ".csv", ".txt", ".JSONL", ""))))
    elif kind == 3:
        path.write_bytes(random.choice(files).read_bytes())
    elif kind == 4:
        path.rename(path.with_name(texts.name(random)))
    elif kind == 5:
        path.write_bytes(gzip.compress(random.choice((b"\n", b" ", b"{}\n", b"\0")) * (80 << 20), 1))
        path.rename(path.with_name(path.name + ".gz"))
    else:
        other = random.choice(sorted(corpus.TASKS))
        path.write_bytes(next(iter(corpus.TASKS[other].values())).encode())
    return read(task, folder, place, random)


def hub_forms(random: Random, place: Place) -> Case:
    """Copies of the hub's files: parquet, damaged or with other columns, shards that are missing."""
    task, hub, split = random.choice(
        (("gsm8k", "gsm8k/main", "test"), ("winogrande", "winogrande/winogrande_xl", "validation"), ("boolq", "boolq",
        "validation"),
         ("piqa", "piqa/plain_text", "validation"), ("hellaswag", "hellaswag/data", "validation"))
    )  # fmt: skip
    folder = place.inputs / hub
    folder.mkdir(parents=True)
    rows = {
        "gsm8k": {"question": "How many?", "answer": "#### 3"},
        "winogrande": {"sentence": "Ann met _ .", "option1": "Eve", "option2": "Bo", "answer": "1"},
        "boolq": {"question": "is it", "answer": True, "passage": "It is."},
        "piqa": {"goal": "Go", "sol1": "a", "sol2": "b", "label": 0},
        "hellaswag": {"activity_label": "A", "ctx_a": "b", "ctx_b": "c", "endings": list("abcd"), "label": "1"},
    }[task]
    row = dict(rows)
    if random.random() < 0.5:
        key = random.choice(sorted(row))
        row[key] = random.choice((None, 1, -1, 1.5, True, "", [], ["a"], {"x": 1}, b"\xff", 1 << 60, "x" * 100_000))
        if random.random() < 0.2:
            del row[key]
    n = random.choice((1, 2, 3))
    for i in range(n):
        name = f"{split}-{i:05}-of-{n:05}.parquet"
        content = _parquet(row, random.choice((0, 1, 3, 200)))
        if random.random() < 0.3:
            content = damaged(content, content, random)
        (folder / name).write_bytes(content)
        if random.random() < 0.1:
            (folder / name).unlink()
    if task == "gsm8k":
        write(place.inputs, {"gsm8k/train.jsonl": corpus.TASKS["gsm8k"]["gsm8k/train.jsonl"]})
    return read(task, place.inputs, place, random)


def _parquet(row: dict[str, object], n: int) -> bytes:
    import io

    import pyarrow as pa
    from pyarrow import parquet

    table = pa.Table.from_pylist([row] * max(1, n)).slice(0, n)
    with io.BytesIO() as file:
        parquet.write_table(table, file, compression="none")
        return file.getvalue()


def folders(random: Random, place: Place) -> Case:
    """An odd --data."""
    task = random.choice(sorted(corpus.TASKS))
    kind = random.randrange(6)
    data = place.inputs / "data"
    if kind == 0:
        shutil.copytree(place.base / "data" / "boolq", data)
        kinds.put(
            data,
            random,
            random.choice(
                ("fifo", "loop", "dangling", "unreadable", "empty", "device", "to_zero", "to_folder", "socket")
            ),
        )
    elif kind == 1:
        data.mkdir()
        data.chmod(random.choice((0o000, 0o400, 0o100)))
    elif kind == 2:
        data = Path(
            random.choice(
                ("", ".", "/", "/dev/null", "/proc/self/fd", "x" * 5000, "a\nb", "\udcff", "~", "/proc/1/root")
            )
        )
    elif kind == 3:
        data.symlink_to(place.base / "data")
    elif kind == 4:
        data = place.base / "data" / next(iter(corpus.TASKS[task])).split("/")[0]
    else:
        data = place.base / "data" / random.choice(("nothing", "boolq", "boolq/dev.jsonl"))
    return read(task, data, place, random)
