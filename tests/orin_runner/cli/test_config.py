"""``--config``: options in a file, mistakes in it, and the one that every run writes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from eval.runs.run import RUN_CONFIG
from orin_runner.cli.config import keys_of, read_config, toml_text, tomllib
from orin_runner.cli.main import app
from orin_runner.errors import UserError
from tests.support.commands import orin_run, refused

GROUP: Any = typer.main.get_command(app)
EVAL = GROUP.commands["eval"]
OWN = [
    {"prompt": "The capital of France is", "answer": "Paris"},
    {"prompt": "Two and two is", "answer": ["four", "4"]},
    {"prompt": "A fish is", "answer": "trout"},
]


def params(*words: str) -> dict[str, Any]:
    """What ``eval`` would be called with, as far as a command line is read."""
    found: dict[str, Any] = EVAL.make_context("eval", list(words)).params
    return found


def file(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    return sorted(found, key=lambda row: (row["task"], row["id"]))


def test_a_run_is_repeated_by_its_own_file(tmp_path: Path, tiny_gguf: Path) -> None:
    """In another folder and environment, with paths that were relative: the same is asked and answered, and written."""
    (there := tmp_path / "there").mkdir()
    (there / "published").mkdir()
    (elsewhere := tmp_path / "elsewhere").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in OWN)
    (there / "mine é.jsonl").write_text(lines, encoding="utf-8")
    for suffix in ("", ".manifest.json"):
        shutil.copy(f"{tiny_gguf}{suffix}", there / f"m.gguf{suffix}")
    words = ["exam", "mine é.jsonl", "--first", "3", "--max-new-tokens", "5", "--no-draft", "--too-long", "skip"]
    words += ["--model", "m.gguf", "--gpus", "auto", "--no-verify", "--log-items", "--prompt-cache", "cache"]
    done = orin_run("eval", *words, "--out", "first", "-q", cwd=there, env={"ORIN_DATA": "published"})
    assert done.returncode == 0, done.stderr
    config = there / "first" / RUN_CONFIG
    done = orin_run("eval", "--config", config, "--out", "again", "-q", cwd=elsewhere, env={"ORIN_DATA": ""})
    assert done.returncode == 0, done.stderr
    first, again = there / "first", elsewhere / "again"
    assert rows(first) == rows(again) != []
    assert config.read_text(encoding="utf-8") == (again / RUN_CONFIG).read_text(encoding="utf-8")
    assert (again / "items.jsonl.gz").exists()
    settings = [json.loads((run / "run.json").read_text())["settings"] for run in (first, again)]
    assert {key for key in settings[0] if settings[0][key] != settings[1][key]} == {"prompt_cache"}
    assert tomllib.loads(config.read_text(encoding="utf-8")) == {
        "tasks": ["exam", str(there / "mine é.jsonl")],
        "model": str(there / "m.gguf"),
        "data": str(there / "published"),
        "first": "3",
        "verify": False,
        "draft": False,
        "max-new-tokens": 5,
        "too-long": "skip",
        "prompt-cache": str(there / "cache"),
        "log-items": True,
    }


def test_a_resumed_run_keeps_its_file(tmp_path: Path, tiny_gguf: Path) -> None:
    """And where the file is missing it is written."""
    out = tmp_path / "run"
    first = orin_run("eval", "exam", "--limit", "4", "--model", tiny_gguf, "--out", out, "-q")
    assert first.returncode == 0, first.stderr
    before = (out / RUN_CONFIG).read_bytes()
    predictions = out / "predictions.jsonl"
    predictions.write_bytes(predictions.read_bytes()[:-20])
    assert orin_run("eval", "--resume", "--out", out, "--device", "900M", "-q").returncode == 0
    assert (out / RUN_CONFIG).read_bytes() == before
    assert b"device" not in before


def test_the_nearest_place_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line, then file, then the run that is resumed, then the environment."""
    monkeypatch.setenv("ORIN_DATA", "/environment")
    config = file(tmp_path, 'tasks = ["mmlu"]\ndata = "/file"\nlimit = 7\nshots = "phi3"\ndraft = false\nchat = true\n')
    found = params("--config", config)
    assert {name: found[name] for name in ("limit", "shots", "draft", "chat")} == {
        "limit": "7",
        "shots": "phi3",
        "draft": False,
        "chat": True,
    }
    assert (list(found["tasks"]), found["data"]) == (["mmlu"], Path("/file"))
    found = params("boolq", "piqa", "--config", config, "--limit", "9", "--draft", "--data", "/typed")
    assert (list(found["tasks"]), found["data"]) == (["boolq", "piqa"], Path("/typed"))
    assert (found["limit"], found["draft"], found["shots"]) == ("9", True, "phi3")
    (run := tmp_path / "run").mkdir()
    options = {"data": "/run", "device": "5G", "tasks": ["drop"], "gpus": "1"}
    (run / "run.json").write_text(json.dumps({"settings": {"limit": 3}, "options": options}))
    found = params("--resume", "--out", str(run), "--config", file(tmp_path, 'data = "/file"\ngpus = 2\n'))
    assert (found["data"], found["gpus"], found["device"], found["limit"]) == (Path("/file"), "2", "5G", "3")
    assert list(found["tasks"]) == ["drop"]
    assert params("mmlu", "--config", file(tmp_path, ""))["data"] == Path("/environment")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("limt = 3", "'limt' is no option; did you mean 'limit'?"),
        ("max_new_tokens = 3", "'max_new_tokens' is no option; did you mean 'max-new-tokens'?"),
        ("named_tokenizer = 'x'", "'named_tokenizer' is no option; did you mean 'tokenizer'?"),
        ("zzz = 3", "'zzz' is no option; orin-run eval --help lists the options"),
        ("[limits]\nfirst = 3", "'limits' is no option; did you mean 'limit'?"),
        ("config = 'other.toml'", "'config' is no option"),
        ("chat = 'yes'", "chat is true or false, not 'yes'; without quotes"),
        ("draft = 0", "draft is true or false, not 0"),
        ("limit = true", "limit is a text or a number, not True"),
        ("limit = [3]", "limit is a text or a number, not [3]"),
        ("device = {size = 3}", "device is a text or a number, not {'size': 3}"),
        ("tasks = 3", 'tasks is a list of names, not 3; such as ["mmlu", "boolq"]'),
        ("tasks = ['mmlu', 3]", "tasks is a list of names, not ['mmlu', 3]"),
        ("max-new-tokens = 0", "Invalid value for '--max-new-tokens'"),
        ("max-new-tokens = 1.5", "Invalid value for '--max-new-tokens'"),
        ("too-long = 'cut'", "Invalid value for '--too-long'"),
    ],
)
def test_mistakes_name_file_and_key(text: str, message: str, tmp_path: Path) -> None:
    config = file(tmp_path, text)
    with pytest.raises(UserError) as refusal:
        params("exam", "--config", config)
    assert str(refusal.value).startswith(f"{config}: ")
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("limit = \n", "line 1, column 9"),
        ("tasks = ['mmlu']\nlimit 3\n", "line 2"),
        ("limit = 3\nlimit = 4\n", "line 2"),
        ("limit = inf", "--limit is a number of questions"),
        ("scoring = 'words'", "--scoring is letters or text, not 'words'"),
        ("device = 'fast'", "--device fast is neither a device"),
        ("tasks = ['exam', 'mmlo']", "unknown task 'mmlo'; did you mean 'mmlu'?"),
        ("model = 'nothing.gguf'", "nothing.gguf does not exist"),
        ("shard = '4/3'", "--shard"),
        ("resume = true", "--resume needs --out"),
    ],
)
def test_other_mistakes_name_the_file(text: str, said: str, tmp_path: Path, tiny_gguf: Path) -> None:
    """Those that TOML's reader finds, with the line, and those that are found later."""
    config = file(tmp_path, text)
    words = [] if "tasks" in text else ["exam"]
    words += [] if "model" in text else ["--model", str(tiny_gguf)]
    done = CliRunner().invoke(app, ["eval", *words, "--config", config, *([] if "resume" in text else ["--out", "x"])])
    assert isinstance(done.exception, UserError)
    assert str(done.exception).startswith(config)
    assert said in str(done.exception)


def test_what_was_typed_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    """Nor what the file has nothing to do with."""
    config = file(tmp_path, "limit = 3\nmax-new-tokens = 4\n")
    for words in (("--limit", "x"), ("--max-new-tokens", "x"), ("--scoring", "words")):
        done = CliRunner().invoke(app, ["eval", "exam", "--config", config, *words])
        assert isinstance(done.exception, UserError)
        assert words[0] in str(done.exception)
        assert config not in str(done.exception)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for name, said in (("nothing.toml", "nothing.toml: No such file"), (".", "is a folder, not a file")):
        refused(orin_run("eval", "exam", "--config", name, cwd=tmp_path), said)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"limit = '\xff'")
    refused(orin_run("eval", "exam", "--config", binary), f"{binary} is not TOML: ")
    assert [path.name for path in tmp_path.iterdir()] == ["binary.toml"]


def test_the_reference_takes_one_as_well(tmp_path: Path) -> None:
    config = file(tmp_path, 'tasks = "piqa"\nmodel = "/checkpoint"\ndtype = "bfloat16"\nbatch-tokens = 9\n')
    found = GROUP.commands["reference"].make_context("reference", ["--config", config]).params
    assert (list(found["tasks"]), found["model"]) == (["piqa"], Path("/checkpoint"))
    assert (found["dtype"], found["batch_tokens"]) == ("bfloat16", 9)


def test_every_option_is_a_key() -> None:
    """But the one that names the file."""
    options = [name for param in EVAL.params if param.param_type_name == "option" for name in param.opts]
    wanted = {name.removeprefix("--") for name in options if name.startswith("--")}
    assert {*keys_of(EVAL)} == wanted - {"config"} | {"tasks"}


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z]+(-[a-z]+)*", fullmatch=True),
        st.one_of(
            TEXTS,
            st.booleans(),
            st.integers(-(2**63), 2**63 - 1),
            st.floats(allow_nan=False, allow_infinity=False),
            st.lists(TEXTS),
        ),
    )
)
def test_what_is_written_is_read(values: dict[str, Any]) -> None:
    assert tomllib.loads(toml_text(values)) == values


def test_a_name_that_is_no_unicode_leaves_a_file_that_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(toml_text({"model": os.fsdecode(b"a\xff.gguf")}), encoding="utf-8")
    assert read_config(path, EVAL) == {"model": "a?.gguf"}
