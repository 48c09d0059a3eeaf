"""A run in three shards and put together is the run in one piece; shards that do not make one are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.runs.run import Run
from tests.support.commands import orin_run

TASK = ("eval", "exam", "--limit", "60", "--max-new-tokens", "8")


@pytest.fixture(scope="module")
def runs(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``whole``, and ``1`` to ``3`` of three."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in [("whole", ()), *((str(k), ("--shard", f"{k}/3")) for k in (1, 2, 3))]:
        done = orin_run(*TASK, "--model", str(tiny_gguf), "--out", str(folder / name), *more)
        assert done.returncode == 0, done.stderr
    return folder


def merged(*folders: Path, out: Path) -> Any:
    return orin_run("merge", *map(str, folders), "--out", str(out))


def test_merged_shards_are_the_whole_run(runs: Path, tmp_path: Path) -> None:
    """Every item with its answer and log-probabilities, accuracy, groups and metrics; every distinct token once."""
    done = merged(*(runs / str(k) for k in (3, 1, 2)), out=tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    one, together = Run.open(runs / "whole"), Run.open(tmp_path / "merged")
    assert set(one.predictions) == set(together.predictions)
    for key, prediction in one.predictions.items():
        other = together.predictions[key]
        assert (prediction.prediction, prediction.text) == (other.prediction, other.text)
        assert prediction.tokens_sha256 == other.tokens_sha256
    before, after = (run.report["tasks"]["exam"] for run in (one, together))
    for key in ("accuracy", "stderr", "items", "failed", "metrics", "groups", "rows", "split"):
        assert before[key] == after[key], key
    assert before["tokens"]["sent"] == after["tokens"]["sent"]
    # Texts that begin alike in two shards are counted in both.
    assert before["tokens"]["unique"] <= after["tokens"]["unique"] <= 1.01 * before["tokens"]["unique"]
    parts = [Run.open(runs / str(k)) for k in (1, 2, 3)]
    shards = [part.report["tasks"]["exam"] for part in parts]
    shared = sum(part.header["shard"]["shared"]["exam"] for part in parts)
    assert shared > 0
    assert after["tokens"]["unique"] == sum(shard["tokens"]["unique"] for shard in shards) - shared
    assert after["tokens"]["computed"] == sum(shard["tokens"]["computed"] for shard in shards)
    assert after["clocks"]["challenge 2023"] == max(shard["clocks"]["challenge 2023"] for shard in shards)
    assert max(shard["items"] for shard in shards) < 0.6 * before["items"]
    # It is a run as any other.
    done = orin_run("diff", str(tmp_path / "merged"), str(runs / "whole"))
    assert done.returncode == 0, done.stderr
    assert "60/60" in done.stdout
    assert orin_run("report", str(tmp_path / "merged")).returncode == 0


def test_a_shard_is_resumed_as_one(runs: Path, tmp_path: Path, tiny_gguf: Path) -> None:
    """Which one it is ``run.json`` says."""
    shutil.copytree(runs / "2", tmp_path / "2")
    path = tmp_path / "2" / "predictions.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    arguments = [*TASK, "--model", str(tiny_gguf), "--out", str(tmp_path / "2"), "--resume"]
    done = orin_run(*arguments, "--shard", "1/3")
    assert done.returncode == 2
    assert "holds a run with --shard 2/3, not 1/3" in done.stderr
    done = merged(*(tmp_path / "2", runs / "1", runs / "3"), out=tmp_path / "merged")
    assert done.returncode == 2
    assert f"{tmp_path / '2'} is not complete" in done.stderr
    done = orin_run(*arguments)
    assert done.returncode == 0, done.stderr
    assert merged(*(tmp_path / "2", runs / "1", runs / "3"), out=tmp_path / "merged").returncode == 0


def header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / "run.json").read_text())
        change(value)
        (folder / "run.json").write_text(json.dumps(value))

    return apply


def tokens(**counts: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        value = json.loads((folder / "report.json").read_text())
        value["tasks"]["exam"]["tokens"].update(counts)
        (folder / "report.json").write_text(json.dumps(value))

    return apply


def doubled(folder: Path) -> None:
    """An item of the first shard in this one as well."""
    line = (folder.parent / "1" / "predictions.jsonl").read_text().splitlines()[0]
    path = folder / "predictions.jsonl"
    path.write_text("\n".join([line, *path.read_text().splitlines()[1:]]) + "\n")


@pytest.mark.parametrize(
    ("names", "change", "said"),
    [
        ("12", None, "of 3 shards 3 is missing; name the folders of all of them"),
        ("3", None, "of 3 shards 1, 2 is missing"),
        ("1223", None, "are both shard 2/3; leave one out"),
        ("1w3", None, "is no shard; orin-run eval TASK --shard 1/2 makes one"),
        ("123", header(lambda run: run["model"].update(sha256="0" * 64)), "model.sha256 differ"),
        ("123", header(lambda run: run["settings"].update(limit=61)), "settings (limit) differ"),
        ("123", header(lambda run: run["settings"].update(chat=True)), "settings (chat) differ"),
        ("123", header(lambda run: run["shard"].update(of=4)), "shard (of) differ"),
        ("123", header(lambda run: run["shard"].update(items={"exam": 59})), "shard (items) differ"),
        ("123", header(lambda run: run["shard"]["questions"].update(exam="0")), "shard (questions) differ"),
        ("123", header(lambda run: run["model"].update(chat_template_sha256="0")), "model.chat_template_sha256 differ"),
        ("123", header(lambda run: run.update(engine="transformers")), "engine differ"),
        ("123", header(lambda run: run["shard"].update(index=0)), "run.json"),
        ("123", header(lambda run: run["shard"].update(items=[])), "run.json"),
        ("123", doubled, "exam"),
        ("123", lambda folder: (folder / "report.json").unlink(), "is not complete; orin-run eval"),
        ("123", tokens(sent=(1 << 53) - 1), "the shards together: 'tasks.exam.tokens.sent'"),
    ],
)
def test_shards_that_make_no_whole_are_refused(
    runs: Path, tmp_path: Path, names: str, change: Callable[[Path], None] | None, said: str
) -> None:
    """Missing, twice, foreign, altered, overlapping, unfinished: in one line, and nothing is written."""
    folders = []
    for name in names:
        folder = tmp_path / name
        if not folder.exists():
            shutil.copytree(runs / name.replace("w", "whole"), folder)
        folders.append(folder)
    if names == "1223":
        shutil.copytree(folders[1], tmp_path / "2 again")
        folders[2] = tmp_path / "2 again"
    if change is not None:
        change(folders[1])
    done = merged(*folders, out=tmp_path / "merged")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
    assert not (tmp_path / "merged").exists()


def test_tokens_of_a_shard_whose_items_failed_are_not_less_than_none(runs: Path, tmp_path: Path) -> None:
    """It has counted none of what it shares with the shard before it."""
    folders = [runs / "1", Path(shutil.copytree(runs / "2", tmp_path / "2")), runs / "3"]
    tokens(unique=0)(folders[1])
    done = merged(*folders, out=tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    found = [Run.open(folder) for folder in (*folders, tmp_path / "merged")]
    one, _, three, together = (run.report["tasks"]["exam"]["tokens"]["unique"] for run in found)
    shared = [run.header["shard"]["shared"]["exam"] for run in found[:3]]
    assert min(shared[1:]) > 0
    assert together == one - shared[0] + three - shared[2]


def test_the_folder_must_be_empty(runs: Path, tmp_path: Path) -> None:
    """Nothing is overwritten."""
    (tmp_path / "kept").write_text("")
    done = merged(*(runs / str(k) for k in (1, 2, 3)), out=tmp_path)
    assert done.returncode == 2
    assert "is not an empty folder" in done.stderr


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "1/", "/3", "a/b", "1/3/3", "-1/3", "1/99999", "²/3", ""])
def test_what_is_no_shard_is_refused(tmp_path: Path, shard: str) -> None:
    """Before anything is loaded."""
    done = orin_run("eval", "exam", "--model", "nowhere.gguf", "--out", str(tmp_path / "run"), "--shard", shard)
    assert done.returncode == 2
    assert "is not one of several parts" in done.stderr
    assert not (tmp_path / "run").exists()


def test_more_parts_than_questions(tmp_path: Path, tiny_gguf: Path) -> None:
    """One that nothing is left for says so."""
    done = orin_run(
        *("eval", "exam", "--limit", "2", "--model", str(tiny_gguf)),
        *("--out", str(tmp_path / "run"), "--shard", "3/3"),
    )
    assert done.returncode == 2
    assert "leave nothing for this one" in done.stderr
    assert not (tmp_path / "run").exists()
