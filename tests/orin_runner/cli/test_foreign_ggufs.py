"""GGUFs of other converters through eval, plan, diff, report and inspect: tiny files, made as these tools make them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader

from tests.support.commands import convert, orin_run, refused
from tests.support.families import FAMILIES
from tests.support.foreign import quantized, rewritten

ITEMS = ("exam", "--limit", "8")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> Path:
    """The tiny model as this tool converts it."""
    out = tmp_path_factory.mktemp("ours") / "tiny.gguf"
    assert convert(tiny, out).returncode == 0
    return out


@pytest.fixture(scope="module")
def foreign(ours: Path) -> Path:
    """The same weights and vocabulary, without a key that this tool alone writes."""
    return rewritten(ours, ours.with_name("foreign.gguf"))


@pytest.fixture(scope="module")
def q8(ours: Path) -> Path:
    """Our file quantized by llama.cpp, which keeps all keys: it still says that no value was altered."""
    return quantized(ours, ours.with_name("q8.gguf"))


@pytest.fixture(scope="module")
def runs(ours: Path, foreign: Path, q8: Path) -> Path:
    """A run of each, and their folder."""
    folder = ours.parent / "runs"
    for name, path, more in (
        ("ours", ours, ()),
        ("foreign", foreign, ()),
        ("q8", q8, ("--allow-quantized",)),
    ):
        done = orin_run("eval", *ITEMS, "--model", path, "--out", folder / name, *more)
        assert done.returncode == 0, done.stderr
        (folder / f"{name}.err").write_text(done.stderr, encoding="utf-8")
    return folder


def predictions(run: Path) -> dict[str, dict[str, Any]]:
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {item["id"]: item for item in map(json.loads, lines)}


def model(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "run.json").read_text(encoding="utf-8"))["model"]
    return found


class TestWithoutOurKeys:
    """llama.cpp's vocabulary of the file stands in for the tokenizer."""

    def test_answers_are_those_of_the_file_with_its_tokenizer(self, runs: Path) -> None:
        """Prompts, texts and log-probabilities; one line says whose ids they are."""
        ours, foreign = predictions(runs / "ours"), predictions(runs / "foreign")
        assert ours.keys() == foreign.keys()
        for key, item in ours.items():
            for name in ("tokens_sha256", "prediction", "text", "logprobs"):
                assert item[name] == foreign[key][name], (key, name)
        said = (runs / "foreign.err").read_text(encoding="utf-8")
        assert said.count("llama.cpp's own vocabulary of this file (llama, default)") == 1
        assert "llama.cpp's own vocabulary" not in (runs / "ours.err").read_text(encoding="utf-8")

    def test_the_run_its_page_and_diff_say_whose_ids_they_are(self, runs: Path) -> None:
        assert model(runs / "ours")["tokenizer"] == "huggingface"
        found = model(runs / "foreign")
        assert found["tokenizer"] == "llama.cpp"
        assert (found["altered_values"], found["proof"], found["lossy"]) == (None, "none", False)
        assert found["tokenizer_sha256"][:12] in (runs / "foreign" / "report.html").read_text(encoding="utf-8")
        done = orin_run("diff", runs / "foreign", runs / "ours")
        assert done.returncode == 0, done.stderr
        assert "8/8" in done.stdout
        assert f"the tokenizers differ: llama.cpp {found['tokenizer_sha256'][:12]}" in done.stderr
        shown = json.loads(orin_run("diff", runs / "foreign", runs / "ours", "--json").stdout)
        assert (shown["same_tokenizer"], shown["same_checkpoint"]) == (False, None)

    def test_the_plan_is_the_same(self, ours: Path, foreign: Path) -> None:
        plans = [json.loads(orin_run("plan", *ITEMS, "--model", path, "--json").stdout) for path in (ours, foreign)]
        assert plans[0]["longest"] == plans[1]["longest"]
        assert plans[0]["terms"]["weights"] == plans[1]["terms"]["weights"]

    def test_a_named_tokenizer_is_the_converters(self, foreign: Path, runs: Path, tiny: Path, tmp_path: Path) -> None:
        """The digest is the one of the tokenizer that the converter would have put into the file."""
        done = orin_run("eval", *ITEMS, "--model", foreign, "--tokenizer", tiny, "--out", tmp_path / "run")
        assert done.returncode == 0, done.stderr
        assert model(tmp_path / "run")["tokenizer_sha256"] == model(runs / "ours")["tokenizer_sha256"]
        done = orin_run("diff", tmp_path / "run", runs / "ours")
        assert done.returncode == 0
        assert "tokenizers differ" not in done.stderr
        again = orin_run("eval", "--resume", "--out", tmp_path / "run")
        assert "nothing is left to go on with" in again.stderr, again.stderr
        other = orin_run("eval", "--tokenizer", tiny, "--resume", "--out", runs / "foreign")
        refused(other, "holds a run with tokenizer ")


class TestQuantized:
    """Q8_0, as llama.cpp makes it of our own file."""

    @pytest.mark.parametrize("command", [("eval", *ITEMS), ("plan", *ITEMS), ("selftest",)])
    def test_it_is_refused_without_the_option(self, command: tuple[str, ...], q8: Path, tmp_path: Path) -> None:
        more = ("--out", tmp_path / "run") if command[0] == "eval" else ()
        done = orin_run(*command, "--model", q8, *more)
        refused(done, "is quantized: ")
        assert "Q8_0; --allow-quantized runs it" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_all_that_a_run_leaves_is_marked(self, runs: Path, q8: Path, ours: Path) -> None:
        """It does not pass for our file, whose keys it has."""
        found = model(runs / "q8")
        assert found["lossy"] is True
        assert found["types"]["Q8_0"] == sum(t.tensor_type.name == "Q8_0" for t in GGUFReader(q8).tensors) > 0
        assert (found["altered_values"], found["proof"]) == (None, "none")
        assert found["sha256"] != model(runs / "ours")["sha256"]
        report = json.loads((runs / "q8" / "report.json").read_text(encoding="utf-8"))
        assert report["lossy"] is True
        assert any("a run of it is no submission" in line for line in report["warnings"])
        assert "lossy: the model is quantized (Q8_0)" in (runs / "q8" / "report.html").read_text(encoding="utf-8")
        assert "lossy" not in (runs / "ours" / "report.html").read_text(encoding="utf-8")

    def test_diff_says_what_it_costs(self, runs: Path) -> None:
        """Of both types by name, whichever of the two is the run."""
        for run, reference, costs in (("q8", "ours", "+0.00"), ("ours", "q8", "-0.00")):
            done = orin_run("diff", runs / run, runs / reference)
            assert done.returncode == 0, done.stderr
            (line,) = (line for line in done.stdout.splitlines() if line.startswith("quantization, "))
            assert "Q8_0" in line.split(" against ")[0]
            assert "BF16" in line.split(" against ")[1].split(":")[0]
            assert f"costs {costs} points" in line.replace("-0.00 points", f"{costs} points")
        assert "the same checkpoint" in done.stdout
        assert "quantization" not in orin_run("diff", runs / "ours", runs / "foreign").stdout

    def test_a_plan_has_the_quantized_weights(self, q8: Path) -> None:
        done = orin_run("plan", *ITEMS, "--model", q8, "--allow-quantized", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["terms"]["weights"] == sum(int(t.n_bytes) for t in GGUFReader(q8).tensors)


class TestBadInput:
    """One line, status 2, nothing written."""

    def refuses(self, message: str, tmp_path: Path, *arguments: str | Path) -> None:
        before = sorted(tmp_path.iterdir())
        refused(orin_run("eval", *ITEMS, "--out", tmp_path / "run", *arguments), message)
        assert sorted(tmp_path.iterdir()) == before

    def test_the_tokenizer_of_another_model(self, foreign: Path, tmp_path: Path, tiny: Path) -> None:
        """Fewer tokens, of which the first is another; more than the model has; one piece that is another."""
        other = FAMILIES["SmolLM2"].build(tmp_path / "smollm")
        self.refuses("is not the tokenizer of", tmp_path, "--model", foreign, "--tokenizer", other)
        large = tmp_path / "large"
        large.mkdir()
        tokenizer = json.loads((tiny / "tokenizer.json").read_text(encoding="utf-8"))
        tokenizer["added_tokens"][-1]["id"] = 3072
        (large / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        self.refuses(
            "has a token 3072, the embeddings only 3072 rows", tmp_path, "--model", foreign, "--tokenizer", large
        )
        renamed = tmp_path / "renamed"
        renamed.mkdir()
        content = (tiny / "tokenizer.json").read_text(encoding="utf-8").replace("<|user|>", "<|human|>")
        (renamed / "tokenizer.json").write_text(content, encoding="utf-8")
        self.refuses("'<|human|>', and the file's '<|user|>'", tmp_path, "--model", foreign, "--tokenizer", renamed)

    def test_no_tokenizer_there(self, foreign: Path, tmp_path: Path) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        self.refuses("has neither tokenizer.json", tmp_path, "--model", foreign, "--tokenizer", empty)
        self.refuses("is no folder", tmp_path, "--model", foreign, "--tokenizer", tmp_path / "none")

    def test_what_llama_cpp_cannot_load(self, ours: Path, tmp_path: Path) -> None:
        """An architecture that it does not have, with our tokenizer and without."""
        for name, without in (("a.gguf", ()), ("b.gguf", ("orin.", "tokenizer.huggingface.json"))):
            path = rewritten(ours, tmp_path / name, without=(*without, "orin.manifest"), architecture="unheard_of")
            self.refuses("llama.cpp cannot", tmp_path, "--model", path)

    def test_vocabularies_that_llama_cpp_does_not_know(self, foreign: Path, tmp_path: Path) -> None:
        kind = "tokenizer.ggml.model"
        none = rewritten(foreign, tmp_path / "none.gguf", without=("tokenizer.",), changed={kind: "no_vocab"})
        self.refuses("has no vocabulary (tokenizer.ggml.model is no_vocab); --tokenizer", tmp_path, "--model", none)
        other = rewritten(foreign, tmp_path / "other.gguf", changed={kind: "no_vocab"})
        self.refuses("has no vocabulary of llama.cpp's", tmp_path, "--model", other)
        unheard = rewritten(foreign, tmp_path / "unheard.gguf", changed={kind: "unheard_of"})
        self.refuses("unheard_of", tmp_path, "--model", unheard)


class TestInspect:
    """What ``orin-run inspect`` shows of each."""

    @staticmethod
    def shown(path: Path, *more: str) -> dict[str, Any]:
        done = orin_run("inspect", path, "--json", *more)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def test_our_file(self, ours: Path) -> None:
        found = self.shown(ours, "--verify")
        manifest = json.loads(ours.with_name("tiny.gguf.manifest.json").read_text(encoding="utf-8"))
        assert (found["proof"], found["refused"], found["quantized"]) == ("verified", [], [])
        assert found["tokenizer"] == "huggingface"
        assert found["tokenizer_sha256"] == manifest["tokenizer"]["sha256"]
        assert (found["context_length"], found["window"], found["window_honoured"]) == (4096, 256, True)
        assert [token["id"] for token in found["stop_tokens"]] == [3000, 3001, 3007]
        assert found["origin"]["checkpoint_sha256"] == manifest["checkpoint"]["sha256"]
        assert self.shown(ours)["proof"] == "from the header only"

    def test_a_file_of_another_converter(self, foreign: Path) -> None:
        found = self.shown(foreign)
        assert (found["tokenizer"], found["proof"], found["refused"]) == ("llama.cpp", "none", [])
        reader = GGUFReader(foreign)
        assert found["types"] == {
            name: {
                "tensors": sum(t.tensor_type.name == name for t in reader.tensors),
                "bytes": sum(int(t.n_bytes) for t in reader.tensors if t.tensor_type.name == name),
            }
            for name in {t.tensor_type.name for t in reader.tensors}
        }
        by = {token["text"]: token["by"] for token in found["stop_tokens"]}
        assert by["<|endoftext|>"] == "tokenizer.ggml.eos_token_id"
        assert by["<|end|>"] == "tokenizer.ggml.eot_token_id"

    def test_what_eval_refuses(self, q8: Path, ours: Path, foreign: Path, tmp_path: Path) -> None:
        """Each reason on a line of its own: quantized, no vocabulary, not loadable, not what its manifest says."""
        assert ["--allow-quantized" in line for line in self.shown(q8)["refused"]] == [True]
        none = rewritten(foreign, tmp_path / "n.gguf", without=("tokenizer.",), architecture="unheard_of")
        lines = self.shown(none)["refused"]
        assert len(lines) == 2
        assert "no vocabulary" in lines[0]
        assert "llama.cpp cannot load" in lines[1]
        changed = rewritten(ours, tmp_path / "c.gguf", without=(), changed={"general.name": "phi-3 other"})
        manifest = ours.with_name("tiny.gguf.manifest.json").read_bytes()
        changed.with_name("c.gguf.manifest.json").write_bytes(manifest)
        found = self.shown(changed)
        assert found["proof"] == "refuted"
        assert "the key general.name has another value" in found["refused"][0]

    def test_a_window_that_the_graph_drops(self, tmp_path: Path) -> None:
        """Phi-3 as llama.cpp's own converter lays it out; in words as well."""
        FAMILIES["Phi-3 4k"].build(tmp_path / "ck")
        assert convert(tmp_path / "ck", tmp_path / "m.gguf", "--window", "off").returncode == 0
        path = rewritten(tmp_path / "m.gguf", tmp_path / "foreign.gguf")
        found = self.shown(path)
        assert (found["architecture"], found["window"], found["window_honoured"]) == ("phi3", 64, False)
        done = orin_run("inspect", path)
        assert "64 tokens, dropped: llama.cpp's phi3 graph does not honour it" in done.stdout
        assert "eval refuses    nothing" in done.stdout

    def test_damage_is_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(8))
        refused(orin_run("inspect", tmp_path / "m.gguf"), "is big-endian")
