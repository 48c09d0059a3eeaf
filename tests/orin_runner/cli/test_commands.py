"""The command line as a user meets it: processes, exit statuses, one line per mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from eval.runs.run import Run
from orin_runner.cli.main import app
from orin_runner.machine.sensors import find_sensors
from tests.support.checkpoints import phi3
from tests.support.commands import convert, orin_run, refused
from tests.support.paths import REFERENCE
from tests.support.rails import AGX_ORIN, rails

pytestmark = pytest.mark.usefixtures("quiet_state")


@pytest.fixture(scope="module")
def quiet_state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state folder of the tests' own, so that nobody's last model is overwritten."""
    folder = tmp_path_factory.mktemp("state")
    os.environ["XDG_STATE_HOME"] = str(folder)
    os.environ.pop("ORIN_MODEL", None)
    return folder


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path, quiet_state: Path) -> Path:
    """The tiny model converted through the command line and made the default."""
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    done = convert(str(tiny), str(out), "--make-default")
    assert done.returncode == 0, done.stderr
    assert "0 values altered" in done.stdout
    assert (quiet_state / "orin-run" / "last-model").read_text().strip() == str(out)
    return out


def test_the_whole_path(gguf: Path, tiny: Path, tmp_path: Path) -> None:
    """Evaluate on the default model, reference, diff; a drop over the limit is exit status 1."""
    run, reference = tmp_path / "run", tmp_path / "reference"
    done = orin_run("eval", "exam", "--limit", "24", "--out", str(run), "-v")
    assert done.returncode == 0, done.stderr
    first, second, *_ = done.stderr.splitlines()
    assert first.startswith(f"model {gguf}: 0.01 GiB")
    assert second.startswith("the last make convert: granite_swa, window 256")
    assert "24" in done.stdout
    done = orin_run("reference", "exam", "--limit", "24", "--model", str(tiny), "--out", str(reference))
    assert done.returncode == 0, done.stderr
    assert "transformers" in (reference / "report.html").read_text(encoding="utf-8")
    done = orin_run("diff", str(run), str(reference))
    assert done.returncode == 0, (done.stdout, done.stderr)
    assert "24/24" in done.stdout
    assert (
        "drop of average accuracy: +0.00 points; the same checkpoint (proof: verified); 0 values altered" in done.stdout
    )
    found = json.loads(orin_run("diff", str(run), str(reference), "--json").stdout)
    assert found["same_checkpoint"] is True
    assert found["tasks"]["exam"]["items"] == 24
    spoil(run)
    done = orin_run("diff", str(run), str(reference))
    assert done.returncode == 1
    assert "more than 0.5" in done.stderr
    assert orin_run("diff", str(run), str(reference), "--max-drop", "100").returncode == 0


def spoil(run: Path) -> None:
    """Make every answer of a run wrong."""
    path = run / "predictions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    wrong = ({**row, "prediction": "?", "correct": False, "scores": dict.fromkeys(row["scores"], 0.0)} for row in rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in wrong))


def test_names_others_may_rely_on(gguf: Path, tmp_path: Path) -> None:
    """``report.json`` and ``predictions.jsonl`` as docs/run-folder.md promises."""
    out = tmp_path / "run"
    done = orin_run("eval", "exam", "--limit", "8", "--model", str(gguf), "--out", str(out), "--json")
    printed = json.loads(done.stdout)
    task = Run.open(out).report["tasks"]["exam"]
    assert printed["tasks"]["exam"] == task
    measured = Run.open(out).report["measured"]
    assert printed["measured"] == measured
    assert measured["samples"] == len((out / "samples.jsonl").read_text().splitlines())
    assert measured["peak_host_mib"] > 50, "two processes with NumPy and llama.cpp"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"{task['tokens']['computed']:,}" in page
    assert Run.open(out).header["model"]["checkpoint_sha256"] in page
    assert task["items"] == 8
    assert {"accuracy", "stderr", "items_per_s", "computed_tokens_per_s"} <= set(task)
    assert {"sent", "unique", "computed"} <= set(task["tokens"])
    clocks = {"load", "data", "tokenize", "plan", "prefill", "decode", "score", "challenge 2024", "challenge 2023"}
    assert clocks <= set(task["clocks"])
    header = Run.open(out).header
    assert header["model"]["altered_values"] == 0
    assert header["model"]["window"] == 256
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 8
    for row in rows:
        assert {"task", "id", "prediction", "target", "correct", "margin", "n_tokens"} <= set(row)
        assert (row["logprobs"] is None) != (row["text"] is None)


def test_a_run_is_metered(gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine with a Jetson's rails: its watts in samples, report, page and print, and how far the run was."""
    sysfs = rails(tmp_path / "sys", AGX_ORIN)
    monkeypatch.setattr("orin_runner.cli.metered.find_sensors", lambda **known: find_sensors(**known, ina3221=sysfs))
    out = tmp_path / "run"
    done = CliRunner().invoke(
        app, ["eval", "exam", "--limit", "8", "--no-draft", "--model", str(gguf), "--out", str(out), "-v"]
    )
    assert done.exit_code == 0, done.output
    run = Run.open(out)
    assert run.samples[-1].done == 8
    assert run.samples[-1].computed > 0
    assert {sample.reading.watts for sample in run.samples} == {27.2}
    assert run.report["measured"]["mean_watts"] == 27.2
    assert run.report["measured"]["power_source"] == "INA3221 VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0"
    assert "power 27.2 W on average, 27.2 W at most" in done.stdout
    assert "27.2 W</b> on average" in (out / "report.html").read_text(encoding="utf-8")


def test_a_run_is_held_against_the_machines_limit(gguf: Path, tmp_path: Path) -> None:
    """Full batches on the run's own context, and the task's share of their rate; nothing of it where not asked."""
    out = tmp_path / "run"
    arguments = ("eval", "exam", "--limit", "8", "--model", str(gguf))
    done = orin_run(*arguments, "--out", str(out), "--measure-limit")
    assert done.returncode == 0, done.stderr
    run = Run.open(out)
    task, rate = run.report["tasks"]["exam"], run.report["prompt_rate"]
    assert rate["tokens_per_call"] == run.header["memory"]["settings"]["n_batch"]
    assert rate["calls"] >= 3
    assert rate["seconds"] >= 3
    assert rate["tokens_per_s"] == rate["calls"] * rate["tokens_per_call"] / rate["seconds"]
    assert task["device"]["answer_tokens"] == task["tokens"]["computed"] > task["tokens"]["unique"]
    share = task["device"]["answer_tokens"] / task["device"]["answer_s"] / rate["tokens_per_s"]
    assert task["share_of_prompt_rate"] == pytest.approx(share)
    said = f"{share:.0%} of this machine's prompt rate ({rate['tokens_per_s']:,.0f} tokens/s)"
    assert f"exam: {said}" in done.stdout
    assert f"prompt rate ({rate['tokens_per_s']:,.0f} tokens/s)" in (out / "report.html").read_text(encoding="utf-8")
    done = orin_run(*arguments, "--out", str(tmp_path / "other"), "--json")
    assert "prompt rate" not in (tmp_path / "other" / "report.html").read_text(encoding="utf-8")
    assert "prompt_rate" not in json.loads(done.stdout)
    assert "share_of_prompt_rate" not in done.stdout


def test_a_dropped_window_is_explained(tiny: Path, tmp_path: Path) -> None:
    """The plain layout is converted with a warning, and eval counts the prompts it concerns."""
    out = tmp_path / "plain.gguf"
    done = convert(str(tiny), str(out), "--window", "off")
    assert "sliding window 256 DROPPED" in done.stdout
    done = orin_run("eval", "exam", "--limit", "16", "--model", str(out), "--out", str(tmp_path / "run"))
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    beyond = sum(row["n_tokens"] > 256 for row in rows)
    assert beyond
    what = f"{beyond} of 16 exam prompts, with their choices, are longer than the model's 256-token sliding window"
    assert what in done.stderr
    assert "--window exact" in done.stderr


class TestMistakes:
    """One clear line, exit status 2, nothing half-written."""

    def test_unknown_task(self, gguf: Path) -> None:
        refused(orin_run("eval", "exams", "--model", str(gguf)), "unknown task 'exams'; did you mean 'exam'?")

    def test_no_model_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        refused(orin_run("eval", "exam"), "no model is named and none has been converted; --model FILE.gguf")

    def test_model_from_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORIN_MODEL", "/nowhere.gguf")
        refused(orin_run("eval", "exam"), "/nowhere.gguf does not exist")

    def test_not_a_gguf(self, tmp_path: Path) -> None:
        path = tmp_path / "x.gguf"
        path.write_bytes(b"PK\x03\x04 something else")
        refused(orin_run("eval", "exam", "--model", str(path)), "x.gguf is not a GGUF file")

    @pytest.mark.parametrize("share", [0.0005, 0.02, 0.5, 0.999])
    def test_truncated_gguf(self, gguf: Path, tmp_path: Path, share: float) -> None:
        """Cut within the header, the vocabulary, the data, and just before the end."""
        path = tmp_path / "x.gguf"
        data = gguf.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        refused(orin_run("eval", "exam", "--model", str(path)), "x.gguf is truncated")

    def test_output_folder_holds_a_run(self, gguf: Path, tmp_path: Path) -> None:
        arguments = ("eval", "exam", "--limit", "4", "--model", str(gguf), "--out", str(tmp_path / "run"))
        assert orin_run(*arguments).returncode == 0
        before = (tmp_path / "run" / "predictions.jsonl").read_bytes()
        refused(orin_run(*arguments), "already holds a run; name another folder with --out")
        assert (tmp_path / "run" / "predictions.jsonl").read_bytes() == before

    def test_malformed_row(self, gguf: Path, tmp_path: Path) -> None:
        path = tmp_path / "data.jsonl"
        path.write_text('{"message": [{"role": "user", "content": "x"}], "answer": "y"}\n{"message": "hi"}\n')
        out = tmp_path / "run"
        done = orin_run("eval", "challenge", "--data", str(path), "--model", str(gguf), "--out", str(out))
        refused(done, "data.jsonl, line 2: 'message' is 'hi'")
        assert not out.exists()

    def test_prompt_longer_than_the_context(self, gguf: Path, tmp_path: Path) -> None:
        path = tmp_path / "data.jsonl"
        row = {"message": [{"role": "user", "content": "long " * 5000}], "answer": "y"}
        path.write_text(json.dumps(row) + "\n")
        out = tmp_path / "run"
        asked = ("eval", "challenge", "--data", str(path), "--model", str(gguf), "--out", str(out))
        refused(orin_run(*asked, "--too-long", "refuse"), "longer than the model's 4,096 tokens of context")
        assert not out.exists()

    def test_answer_letter_that_is_not_one_token(self, tmp_path: Path, tiny: Path) -> None:
        """A tokenizer without the piece for a space and a letter."""
        directory = phi3(tmp_path / "m", tiny)
        path = directory / "tokenizer.json"
        tokenizer = json.loads(path.read_text())
        merges = tokenizer["model"]["merges"]
        tokenizer["model"]["merges"] = [m for m in merges if "".join(m) not in ("▁A", "▁B")]
        path.write_text(json.dumps(tokenizer))
        out = tmp_path / "m.gguf"
        assert convert(str(directory), str(out)).returncode == 0
        done = orin_run("eval", "exam", "--model", str(out), "--out", str(tmp_path / "run"))
        refused(done, "the answer ' A' is not one token after 'Answer:'")
        assert not (tmp_path / "run").exists()

    def test_quantized_gguf(self, tmp_path: Path) -> None:
        import numpy as np
        from gguf import GGMLQuantizationType, GGUFWriter

        path = tmp_path / "q.gguf"
        writer = GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_block_count(1)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(32)
        writer.add_head_count(1)
        data = np.zeros((2, 34), dtype=np.uint8)
        writer.add_tensor("token_embd.weight", data, raw_dtype=GGMLQuantizationType.Q8_0)
        for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file):
            step()
        writer.close()
        refused(orin_run("eval", "exam", "--model", str(path)), "is quantized: 1 of its 1 tensors are Q8_0")

    def test_different_checkpoints(self, gguf: Path, tiny: Path, tmp_path: Path) -> None:
        """Two models' runs can be aligned, but the difference would not mean what it says."""
        other = phi3(tmp_path / "m", tiny)
        out = tmp_path / "m.gguf"
        assert convert(str(other), str(out)).returncode == 0
        for path, name in ((gguf, "a"), (out, "b")):
            arguments = ("--limit", "2", "--model", str(path), "--out", str(tmp_path / name))
            assert orin_run("eval", "exam", *arguments).returncode == 0
        refused(orin_run("diff", str(tmp_path / "a"), str(tmp_path / "b")), "come from different checkpoints")

    def test_converting_a_missing_folder(self, tmp_path: Path) -> None:
        done = convert(str(tmp_path / "nope"), str(tmp_path / "x.gguf"))
        refused(done, "nope is not a folder; name a checkpoint folder or a hub id")
        assert list(tmp_path.iterdir()) == []

    def test_lossy_outtype(self, tiny: Path, tmp_path: Path) -> None:
        done = convert(str(tiny), str(tmp_path / "x.gguf"), "--outtype", "f16")
        refused(done, "do not survive f16 (largest error")
        assert list(tmp_path.iterdir()) == []

    def test_unknown_option(self) -> None:
        assert orin_run("eval", "exam", "--modle", "x").returncode == 2

    def test_a_repeated_task_is_run_once(self, gguf: Path, tmp_path: Path) -> None:
        done = orin_run("eval", "exam", "exam", "--limit", "3", "--model", str(gguf), "--out", str(tmp_path / "run"))
        assert done.returncode == 0, done.stderr
        assert len(Run.open(tmp_path / "run").predictions) == 3

    def test_reference_of_an_incomplete_checkpoint(self, tiny: Path, tmp_path: Path) -> None:
        """transformers would fill in random values and go on."""
        shutil.copytree(tiny, tmp_path / "hf")
        weights = load_file(tmp_path / "hf" / "model.safetensors")
        del weights["model.layers.3.mlp.down_proj.weight"]
        save_file(weights, tmp_path / "hf" / "model.safetensors", metadata={"format": "pt"})
        done = orin_run("reference", "exam", "--model", str(tmp_path / "hf"), "--out", str(tmp_path / "run"))
        assert done.returncode == 2
        assert "missing tensor model.layers.3.mlp.down_proj.weight" in done.stderr
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(("line", "message"), [(b"\xff\xfe\n", "line 2: not UTF-8"), (None, "has no rows")])
    def test_rows_that_cannot_be_read(self, gguf: Path, tmp_path: Path, line: bytes | None, message: str) -> None:
        row = {"message": [{"role": "user", "content": "a"}], "answer": "a"}
        data = tmp_path / "rows.jsonl"
        data.write_bytes(b"" if line is None else json.dumps(row).encode() + b"\n" + line)
        out = tmp_path / "run"
        refused(
            orin_run("eval", "challenge", "--data", str(data), "--model", str(gguf), "--out", str(out)),
            message,
        )
        assert not out.exists()

    def test_output_that_is_a_file_or_a_folder(self, gguf: Path, tiny: Path, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_text("mine")
        refused(orin_run("eval", "exam", "--model", str(gguf), "--out", str(file)), "is a file, not a folder")
        folder = tmp_path / "out.gguf"
        folder.mkdir()
        refused(convert(str(tiny), str(folder)), "is a folder")
        refused(convert(str(tiny), str(file / "out.gguf")), "")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out.gguf"]

    @pytest.mark.parametrize("damage", ["run.json", "report.json", "predictions.jsonl", "shots"])
    def test_diff_of_a_damaged_or_other_run(self, tmp_path: Path, damage: str) -> None:
        reference = REFERENCE / "float32"
        run = shutil.copytree(reference, tmp_path / "run")
        if damage == "predictions.jsonl":
            (run / damage).unlink()
        elif damage == "shots":
            header = json.loads((run / "run.json").read_text())
            header["settings"]["shots"] = 5
            (run / "run.json").write_text(json.dumps(header))
        else:
            (run / damage).write_text("{")
        refused(orin_run("diff", str(run), str(reference)), "--shots" if damage == "shots" else damage)

    def test_diff_warns_of_other_token_ids(self, tmp_path: Path) -> None:
        reference = REFERENCE / "float32"
        run = shutil.copytree(reference, tmp_path / "run")
        text = (run / "predictions.jsonl").read_text().replace('"tokens_sha256": "', '"tokens_sha256": "x')
        (run / "predictions.jsonl").write_text(text)
        done = orin_run("diff", str(run), str(reference))
        assert "480 of 480 exam prompts have other token ids" in done.stderr
