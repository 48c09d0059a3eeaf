"""What ``eval`` says and does of a model whose data, header or manifest is not what its conversion left."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.runs.writer import RunWriter
from orin_runner import pipeline
from orin_runner.cli.run_proof import RunProof
from orin_runner.console import Notes
from orin_runner.errors import RunError, UserError
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import examine
from tests.support.altered import copied, data_places, flip, manifest_of, rewritten, value_place
from tests.support.choice_rows import jsonl, write
from tests.support.commands import orin_run, refused

TENSOR = "blk.2.ffn_down.weight"
WRONG = f"the data of tensor {TENSOR} is not what the manifest says"
ITEMS = "4"
SHARED = {"title": "Ice", "answer": True, "passage": "They say that the boat is cold, and colder the longer. " * 30}
"""A question whose prompt begins with more tokens than a kept state has at least."""


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return out


@pytest.fixture(scope="module")
def altered(tmp_path_factory: pytest.TempPathFactory, converted: Path) -> Path:
    """A copy with one flipped bit in its data."""
    out = copied(converted, tmp_path_factory.mktemp("altered"))
    flip(out, data_places(out)[TENSOR][100])
    return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, converted: Path) -> Path:
    """A run with the default options."""
    out = tmp_path_factory.mktemp("run") / "run"
    done = evaluated(converted, out, "-v")
    assert done.returncode == 0, done.stderr
    assert "proof: from the header only, until its data has been compared beside the run" in done.stderr
    assert "proof: verified" in done.stdout.splitlines()
    return out


@pytest.fixture(scope="module")
def refuted(tmp_path_factory: pytest.TempPathFactory, altered: Path) -> Path:
    """A run with the altered file, whose check went on beside it."""
    out = tmp_path_factory.mktemp("refuted") / "run"
    done = evaluated(altered, out)
    assert done.returncode == 1, (done.stdout, done.stderr)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert WRONG in line
    assert "begin the run anew" in line
    assert "Traceback" not in done.stderr
    return out


def evaluated(model: Path, out: Path, *options: str | Path) -> Any:
    return orin_run("eval", "exam", "--model", model, "--limit", ITEMS, "--out", out, *options)


def model_of(run: Path) -> dict[str, Any]:
    header: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = header["model"]
    return found


def cut_short(run: Path, folder: Path) -> Path:
    """A copy of a run that lacks its last answer and its report."""
    out = Path(shutil.copytree(run, folder))
    lines = (out / "predictions.jsonl").read_bytes().splitlines(keepends=True)
    (out / "predictions.jsonl").write_bytes(b"".join(lines[:-1]))
    (out / "report.json").unlink()
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_says_that_its_model_is_verified(run: Path) -> None:
    """In run.json and on the page."""
    assert (model_of(run)["proof"], model_of(run)["proof_detail"]) == ("verified", None)
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "proof" in page
    assert "verified" in page


def test_altered_data_ends_a_run_and_taints_its_folder(refuted: Path, run: Path, converted: Path) -> None:
    """run.json and the page say so; nobody goes on with the answers or compares them, even with a sound file."""
    found = model_of(refuted)
    assert (found["proof"], found["proof_detail"]) == ("refuted", WRONG)
    assert found["altered_values"] is None
    assert f"its answers count for nothing: {WRONG}" in (refuted / "report.html").read_text(encoding="utf-8")
    before = content(refuted)
    refused(evaluated(converted, refuted, "--resume"), WRONG)
    for pair in ((refuted, run), (run, refuted)):
        done = orin_run("diff", *pair)
        refused(done, WRONG)
        assert "the same checkpoint" not in done.stdout
    assert content(refuted) == before


@contextmanager
def proving(model: Path, out: Path) -> Iterator[tuple[RunProof, RunWriter]]:
    """A run that has begun, its check beside it."""
    with RunProof(Notes(), examine(GGUFFile.open(model)), verify=None, mixes=False) as proof:
        header = {"model": proof.before_answers(on_gpu=False).keys}
        with RunWriter(out, header) as writer:
            yield proof, writer


@pytest.mark.parametrize(
    ("on_gpu", "shared", "cpus", "expected"),
    [(False, False, 16, 1), (True, False, 16, 4), (True, False, 2, 1), (True, True, 16, 1)],
)
def test_several_threads_read_beside_a_gpu_with_memory_of_its_own(
    converted: Path, monkeypatch: pytest.MonkeyPatch, on_gpu: bool, shared: bool, cpus: int, expected: int
) -> None:
    """Beside a run on the CPU, or on a GPU that shares its memory, one does."""
    asked: list[int] = []
    monkeypatch.setattr(
        "orin_runner.model.proof.DataCheck.start", lambda _self, n_threads=1, **_: asked.append(n_threads)
    )
    monkeypatch.setattr("orin_runner.cli.run_proof.cpu_threads", lambda: cpus)
    monkeypatch.setattr("orin_runner.cli.run_proof.shares_memory", lambda: shared)
    with RunProof(Notes(), examine(GGUFFile.open(converted)), verify=None, mixes=False) as proof:
        proof.before_answers(on_gpu=on_gpu)
    assert asked == [expected]


def test_what_is_left_of_a_check_is_waited_for(tmp_path: Path, altered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is faster than the check says what it has found, too."""
    read = os.preadv

    def slowly(*arguments: Any) -> int:
        time.sleep(0.01)
        return read(*arguments)

    monkeypatch.setattr("orin_runner.model.proof.os.preadv", slowly)
    with proving(altered, tmp_path / "run") as (proof, writer):
        with pytest.raises(RunError, match=WRONG), proof.told(writer):
            proof.wait()
        assert model_of(tmp_path / "run")["proof"] == "refuted"


def test_a_kill_leaves_what_was_known(tmp_path: Path, converted: Path) -> None:
    """run.json says that the data is verified as soon as that is so."""
    with proving(converted, tmp_path / "run") as (proof, writer):
        assert model_of(tmp_path / "run")["proof"] == "from the header only"
        with proof.told(writer):
            proof.wait()
            proof.poll()
            assert model_of(tmp_path / "run")["proof"] == "verified"


def test_ctrl_c_ends_the_waiting(tmp_path: Path, converted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answers are there; their model is not proven."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with proving(converted, tmp_path / "run") as (proof, writer):
        monkeypatch.setattr("orin_runner.model.proof.wait_for", interrupted)
        monkeypatch.setattr("orin_runner.model.proof.Future.done", lambda _: False)
        with proof.told(writer):
            proof.wait()
    assert model_of(tmp_path / "run")["proof"] == "from the header only"


def test_verify_refuses_altered_data_before_the_first_answer(tmp_path: Path, altered: Path) -> None:
    done = evaluated(altered, tmp_path / "run", "--verify")
    refused(done, WRONG)
    assert list(tmp_path.iterdir()) == []


def test_verify_waits_for_the_verdict(tmp_path: Path, converted: Path) -> None:
    """It stands in the first lines."""
    done = evaluated(converted, tmp_path / "run", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().index("proof: verified") < 3
    assert model_of(tmp_path / "run")["proof"] == "verified"


def test_verify_refuses_what_nothing_proves(tmp_path: Path, converted: Path) -> None:
    model = copied(converted, tmp_path / "model")
    manifest_of(model).unlink()
    refused(evaluated(model, tmp_path / "run", "--verify"), "manifest tiny.gguf.manifest.json is missing")
    assert not (tmp_path / "run").exists()


def test_without_verification_the_header_is_believed(tmp_path: Path, altered: Path, run: Path) -> None:
    """And every place says so: first lines, result, run.json, page, diff."""
    out = tmp_path / "run"
    done = evaluated(altered, out, "--no-verify")
    assert done.returncode == 0, done.stderr
    line = "proof: from the header only (the data was not compared with the manifest)"
    assert line in done.stderr.splitlines()
    assert line in done.stdout.splitlines()
    assert model_of(out)["proof"] == "from the header only"
    assert "from the header only" in (out / "report.html").read_text(encoding="utf-8")
    done = orin_run("diff", out, run, "--max-drop", "100")
    assert done.returncode == 0, done.stderr
    assert "the same checkpoint (proof of the run: from the header only, of the reference: verified)" in done.stdout
    done = orin_run("diff", run, run)
    assert "the same checkpoint (proof: verified)" in done.stdout


@pytest.mark.parametrize("option", ["--resume", "--prompt-cache"])
def test_answers_that_stand_beside_others_come_of_verified_data(
    tmp_path: Path, run: Path, altered: Path, converted: Path, option: str
) -> None:
    """A run is not gone on with, and no prompt cache is filled, with altered data; nothing is changed."""
    out = tmp_path / "run"
    options = ["--prompt-cache", tmp_path / "cache"]
    if option == "--resume":
        out, options = cut_short(run, out), ["--resume"]
    before = content(out) if out.exists() else None
    refused(evaluated(altered, out, *options), WRONG)
    assert (content(out) if out.exists() else None) == before
    assert not (tmp_path / "cache").exists()
    done = evaluated(converted, out, *options)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines().index("proof: verified") < 3
    assert model_of(out)["proof"] == "verified"


@pytest.mark.parametrize("unproven", ["--no-verify", "no manifest"])
def test_what_an_unproven_file_leaves_in_a_prompt_cache_is_not_for_a_proven_one(
    tmp_path: Path, tiny: Path, unproven: str
) -> None:
    """Both name the same manifest. The unproven file has its own states again, the proven one computes anew."""
    proven = tmp_path / "tiny.gguf"
    convert(Checkpoint.open(tiny), proven, Options(window="off"))  # a window keeps no states
    model = copied(proven, tmp_path / "altered")
    flip(model, data_places(model)[TENSOR][100])
    options = ["--prompt-cache", tmp_path / "cache"]
    if unproven == "no manifest":
        manifest_of(model).unlink()
    else:
        options.append(unproven)
    data = write(tmp_path / "data", {"boolq/dev.jsonl": jsonl(*({**SHARED, "question": f"is it {i}"} for i in (1, 2)))})

    def computed(file: Path, out: Path, *more: str | Path) -> tuple[str, int]:
        done = orin_run("eval", "boolq", "--data", data, "--model", file, "--out", out, *more)
        assert done.returncode == 0, done.stderr
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
        return model_of(out)["proof"], report["tasks"]["boolq"]["tokens"]["computed"]

    whole = computed(proven, tmp_path / "0")[1]
    assert computed(model, tmp_path / "1", *options) == ("from the header only", whole)
    assert computed(model, tmp_path / "2", *options)[1] < whole
    assert computed(proven, tmp_path / "3", "--prompt-cache", tmp_path / "cache") == ("verified", whole)
    assert computed(proven, tmp_path / "4", "--prompt-cache", tmp_path / "cache")[1] < whole


def test_a_resumed_run_is_proven_as_its_weakest_part(tmp_path: Path, run: Path, converted: Path) -> None:
    """Either part may be the weaker one."""
    model = copied(converted, tmp_path / "model")
    one = cut_short(run, tmp_path / "one")
    manifest_of(model).unlink()
    done = evaluated(model, one, "--resume")
    assert done.returncode == 0, done.stderr
    assert model_of(one)["proof"] == "from the header only"
    assert "is missing" in model_of(one)["proof_detail"]
    assert evaluated(converted, tmp_path / "whole", "--no-verify").returncode == 0
    other = cut_short(tmp_path / "whole", tmp_path / "other")
    done = evaluated(converted, other, "--resume")
    assert done.returncode == 0, done.stderr
    assert "proof: verified" in done.stderr.splitlines()
    assert model_of(other)["proof"] == "from the header only"


def test_one_flipped_bit_in_the_stop_tokens_is_refused_everywhere(tmp_path: Path, converted: Path) -> None:
    """By every command that opens a model, and by the pipeline, before anything is run."""
    model = copied(converted, tmp_path / "model")
    flip(model, value_place(model, "orin.generation.stop_token_ids"))
    message = "the key orin.generation.stop_token_ids has another value"
    refused(evaluated(model, tmp_path / "run"), message)
    refused(orin_run("plan", "exam", "--model", model), message)
    refused(orin_run("selftest", "--model", model), message)
    refused(orin_run("lm-eval", "--tasks", "arc_easy", "--model", model, "--out", tmp_path / "run"), message)
    with pytest.raises(UserError, match=message):
        pipeline("text-generation", model)
    assert not (tmp_path / "run").exists()


def test_an_edited_manifest_is_refused(tmp_path: Path, converted: Path) -> None:
    model = copied(converted, tmp_path / "model")
    manifest = manifest_of(model)
    manifest.write_bytes(manifest.read_bytes() + b" ")
    refused(evaluated(model, tmp_path / "run"), "it is another file's, or changed")
    assert not (tmp_path / "run").exists()


def test_an_older_manifest_is_said_in_one_line(tmp_path: Path, converted: Path) -> None:
    """Format 1 knows no digests of the keys: the file runs, and says how to prove it."""

    def older(manifest: dict[str, Any]) -> None:
        manifest["format"] = 1
        del manifest["metadata_sha256"], manifest["tensor_table_sha256"]

    model = copied(converted, tmp_path / "model")
    rewritten(model, older)
    done = evaluated(model, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("proof")]
    assert line.startswith("proof: from the header only")
    assert "convert again" in line
    assert model_of(tmp_path / "run")["proof"] == "from the header only"


def test_the_template_is_named_by_its_digest(run: Path, tiny: Path) -> None:
    """As the checkpoint has it, so that runs with another template are not compared."""
    template = json.loads((tiny / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    assert model_of(run)["chat_template_sha256"] == sha256(template.encode()).hexdigest()
