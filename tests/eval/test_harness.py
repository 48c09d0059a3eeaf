"""The engine as lm-evaluation-harness's model answers what the harness's ``hf`` model answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("lm_eval", reason="the lm-eval extra is not installed")

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from convert.checkpoint import Checkpoint
from convert.convert import Options, convert
from eval.encoding import encode_docs
from eval.harness.evaluation import Evaluation
from eval.harness.model import HarnessModel, stops_and_bound
from eval.predict import predict
from eval.runs.prediction import Prediction
from eval.tasks.base import LETTERS, LoadOptions
from eval.tasks.doc import Doc
from eval.tasks.registry import get_task
from eval.truncation import TooLong
from orin_runner.errors import UserError
from orin_runner.model.chat_template import ChatTemplate
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Failed
from tests.support.checkpoints import llama
from tests.support.commands import orin_run
from tests.support.harness import asked, local_config, local_task
from tests.support.harness_cases import REAL, WRITTEN, real_case, written_case
from tests.support.started import started

ROUNDING = {"abs": 0.05, "rel": 5e-3}
"""How far log-probabilities of a BF16 GGUF may be from those of transformers in float32: llama.cpp multiplies BF16
weights with activations rounded to BF16, which have eight bits."""
N_NEW = 24
NEAR_TIE = 0.1
"""Two tokens so close may change places: each can be off by the absolute part of the rounding."""


OFFLINE = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> GGUFFile:
    out = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    convert(Checkpoint.open(tiny), out, Options())
    return GGUFFile.open(out)


@pytest.fixture
def ours(gguf: GGUFFile) -> Iterator[HarnessModel]:
    model = HarnessModel(gguf, lambda requests: started(gguf, requests))
    yield model
    model.close()


@pytest.fixture(scope="module")
def theirs(tiny: Path) -> HFLM:
    return HFLM(pretrained=str(tiny), device="cpu", dtype="float32", batch_size=8)


def predictions(gguf: GGUFFile, task: str, docs: Sequence[Doc]) -> list[Prediction]:
    """What our own evaluation makes of ``docs``."""
    tokenizer = Tokenizer.from_gguf(gguf)
    questions = encode_docs(docs, tokenizer)
    requests = [question.request for question in questions]
    found: dict[int, Prediction] = {}
    with started(gguf, requests) as runner:
        for i, result in runner.run(requests):
            assert not isinstance(result, Failed)
            found[i] = predict(get_task(task), questions[i], result, tokenizer)
    return [found[i] for i in range(len(docs))]


def instances(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


PAIRS = [
    ("The market opens", " at nine."),
    ("The market opens ", "at nine."),
    ("Question: who?\nAnswer:", " B"),
    ("", "An empty context"),
    ("line\n\n", "after blank lines"),
    ("Die Straße heißt", " Königsallee 北京"),
]


def test_log_likelihoods_are_those_of_hf(ours: HarnessModel, theirs: HFLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """White space at the context's end, no context, several bytes per character, one too long for the context."""
    monkeypatch.setattr(theirs, "_max_length", 512)
    ours.max_length = 512
    requests = instances("loglikelihood", [*PAIRS, ("one two three four five " * 120, "six seven")])
    expected = theirs.loglikelihood(requests, disable_tqdm=True)
    found = ours.loglikelihood(requests)
    assert [x for x, _ in found] == pytest.approx([x for x, _ in expected], **ROUNDING)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


def test_rolling_log_likelihoods_are_those_of_hf(
    ours: HarnessModel, theirs: HFLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short text, and one of three contexts' length; windows overlap by one token."""
    monkeypatch.setattr(theirs, "_max_length", 128)
    ours.max_length = 128
    requests = instances("loglikelihood_rolling", [("A short text.",), ("The clerk reads the list again. " * 40,)])
    assert len(ours._encode([requests[1].args[0]])[0]) > 2 * 128
    expected = theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests) == pytest.approx(expected, **ROUNDING)


def test_a_longer_list_gets_a_longer_context(ours: HarnessModel, theirs: HFLM) -> None:
    """The runner is planned for the first list and started anew for the second."""
    for text in ("short", "a longer one " * 100):
        requests = instances("loglikelihood", [(text, " end")])
        ((found, _),) = ours.loglikelihood(requests)
        ((expected, _),) = theirs.loglikelihood(requests, disable_tqdm=True)
        assert found == pytest.approx(expected, **ROUNDING)
        first = ours._runner
    assert ours.loglikelihood(requests)
    assert ours._runner is first


def test_too_long_requests_are_said(
    ours: HarnessModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A context that loses its beginning is warned of; a continuation that cannot fit is refused."""
    ours.max_length = 16
    monkeypatch.setattr(logging.getLogger("lm_eval"), "propagate", True)
    ours.loglikelihood(instances("loglikelihood", [("word " * 40, " end"), ("word", " end")]))
    assert "1 of 2 requests are longer than the model's 16 tokens" in caplog.text
    with pytest.raises(UserError, match="a continuation has"):
        ours.loglikelihood(instances("loglikelihood", [("word", " end" * 40)]))
    with pytest.raises(UserError, match="max_gen_toks=16 leaves no room"):
        ours.generate_until(instances("generate_until", [("word", {"max_gen_toks": 16})]))


def test_too_long_requests_are_refused_where_that_is_wanted(gguf: GGUFFile) -> None:
    """Before anything is loaded; contexts of scores and of texts."""
    model = HarnessModel(gguf, lambda _: pytest.fail("nothing is asked"), TooLong.REFUSE)
    model.max_length = 16
    with pytest.raises(UserError, match="1 of 2 requests are longer than the model's 16 tokens; --too-long truncate"):
        model.loglikelihood(instances("loglikelihood", [("word " * 40, " end"), ("word", " end")]))
    with pytest.raises(UserError, match="1 of 1 requests are longer"):
        model.generate_until(instances("generate_until", [("word " * 12, {"max_gen_toks": 8})]))


def test_texts_are_those_of_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """Chats, stop strings, and a text that max_gen_toks ends."""
    chats = [[{"role": "user", "content": text}] for text in ("Who is the oldest?", "choices: ['a red hat', 'a pen']")]
    prompts = [theirs.apply_chat_template(chat) for chat in chats]
    assert [ours.apply_chat_template(chat) for chat in chats] == prompts
    arguments = [
        *[(prompt, {"until": [], "max_gen_toks": 24}) for prompt in prompts],
        *[(prompt, {"until": ["e", "<|end|>"], "max_gen_toks": 24, "do_sample": False}) for prompt in prompts],
        ("The market opens", {"until": "\n\n", "max_gen_toks": 5}),
    ]
    requests = instances("generate_until", arguments)
    assert ours.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_a_begun_answer_is_continued_as_with_hf(ours: HarnessModel, theirs: HFLM) -> None:
    """gen_prefix with a chat template: the last message stays open."""
    chat = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The best answer is"}]
    expected = theirs.apply_chat_template(chat, add_generation_prompt=False)
    assert ours.apply_chat_template(chat, add_generation_prompt=False) == expected


def leave_each_other_at_a_tie(model: HFLM, prompt: str, a: str, b: str) -> bool:
    """Whether the first token that differs was nearly as likely as the other one."""
    before, x, y = (model.tok_encode(text) for text in (prompt, prompt + a, prompt + b))
    same = next(i for i, (s, t) in enumerate(zip(x, y, strict=False)) if s != t)
    assert same >= len(before)
    (p, _), (q, _) = model._loglikelihood_tokens([(("", ""), x[:same], [z[same]]) for z in (x, y)], disable_tqdm=True)
    return abs(p - q) < NEAR_TIE


@pytest.mark.parametrize("task", [*REAL, *WRITTEN])
def test_our_items_agree_with_hf(
    task: str, tmp_path: Path, request: pytest.FixtureRequest, gguf: GGUFFile, theirs: HFLM
) -> None:
    """Our task on the engine and the harness's on its ``hf`` model: the same choice or text, save at near-ties."""
    if task in REAL:
        case = real_case(task, request.getfixturevalue("orin_data"), 8)
    else:
        case = written_case(task, tmp_path / "data")
    built = local_task(case.yaml, case.splits, tmp_path / "rows", 0)
    docs = get_task(task).load(LoadOptions(case.data, limit=len(case.rows), shots=0)).docs
    found = predictions(gguf, task, [replace(doc, max_new_tokens=N_NEW) for doc in docs])
    if docs[0].mode == "generate":
        for instance in built.instances:
            instance.arguments[1]["max_gen_toks"] = N_NEW
        expected = theirs.generate_until(built.instances, disable_tqdm=True)
        for doc, a, text in zip(docs, found, expected, strict=True):
            assert a.text == text or leave_each_other_at_a_tie(theirs, doc.prompt, a.text, text)
        return
    scores = iter(theirs.loglikelihood(built.instances, disable_tqdm=True))
    flips = 0
    for doc, a, choices in zip(docs, found, asked(built), strict=True):
        sums = [next(scores)[0] for _ in choices]
        assert a.logprobs == pytest.approx(sums, **ROUNDING)
        flips += np.argmax(a.logprobs) != np.argmax(sums)
        assert a.target == doc.target
    # Sums that agree up to rounding choose the same, save where two of them nearly tie.
    assert flips <= len(docs) // 8


@pytest.mark.parametrize("begins_with_bos", [False, True])
def test_tokens_are_those_of_hf(
    begins_with_bos: bool, tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where context and continuation are split; BOS neither twice before a rendered chat nor in a continuation."""
    directory = llama(tmp_path / "llama", tiny) if begins_with_bos else tiny
    convert(Checkpoint.open(directory), tmp_path / "llama.gguf", Options())
    ours = HarnessModel(GGUFFile.open(tmp_path / "llama.gguf"), lambda _: pytest.fail("nothing is asked"))
    theirs = HFLM(pretrained=str(directory), device="cpu", dtype="float32")
    for text in ("The market", "<s>The market", " <s> x"):
        assert ours._encode([text])[0].tolist() == theirs.tok_encode(text)
    pairs = [*PAIRS, ("<s>Who?", " me"), ("", "<s>begins")]
    seen: list[Any] = []
    monkeypatch.setattr(theirs, "_loglikelihood_tokens", lambda requests, **_: seen.extend(requests))
    theirs.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
    assert [(a.tolist(), b.tolist()) for a, b in ours._pairs(pairs)] == [(a, b) for _, a, b in seen]


def test_a_template_without_system_messages_gets_none(
    ours: HarnessModel, theirs: HFLM, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with hf, and it is said."""
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}[{{ m['content'] }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    )
    monkeypatch.setattr(theirs.tokenizer, "chat_template", template)
    monkeypatch.setattr(ours._tokenizer, "_template", ChatTemplate(template, {}, "tiny.gguf"))
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    monkeypatch.setattr(logging.getLogger("lm_eval"), "propagate", True)
    assert ours.apply_chat_template(chat) == theirs.apply_chat_template(chat) == "[Who?]>"
    assert "takes no system message" in caplog.text
    with pytest.raises(UserError, match="no system"):
        ours._tokenizer.chat(chat)


def test_what_memory_cannot_hold_is_refused(gguf: GGUFFile) -> None:
    """No request is cut because of memory: that would change its answer."""

    class Small:
        max_context = 4

        def close(self) -> None:
            pass

    model = HarnessModel(gguf, lambda _: Small())
    with pytest.raises(UserError, match=r"needs \d+ tokens of context, memory allows 4"):
        model.loglikelihood(instances("loglikelihood", [("one two three four five six", " end")]))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"do_sample": True}, "do_sample=True"),
        ({"temperature": 0.7}, "temperature=0.7"),
        ({"num_beams": 4}, "num_beams=4"),
        ({"do_sample": False, "repetition_penalty": 1.3}, "repetition_penalty=1.3"),
    ],
)
def test_only_greedy_generation_is_taken(arguments: dict[str, Any], named: str) -> None:
    """Sampling, beams and penalties are refused by name."""
    with pytest.raises(UserError, match=named):
        stops_and_bound(arguments)


def test_sampling_arguments_without_sampling_are_harmless() -> None:
    """``do_sample: false`` decides, as in transformers."""
    assert stops_and_bound({"do_sample": False, "temperature": 0.0, "top_p": 0.9, "until": "."}) == (["."], 256)


def test_the_command_gives_our_own_tasks_number(tmp_path: Path, gguf: GGUFFile) -> None:
    """The exam's letters as a harness task on local rows, run from the command line: accuracy and log-probabilities."""
    docs = [doc for doc in get_task("exam").load(LoadOptions()).docs if doc.group == "letters"][::2]
    rows = [{"prompt": doc.prompt, "letter": LETTERS.index(doc.target)} for doc in docs]
    config = local_config("mmlu/default/mmlu_anatomy.yaml", {"test": rows}, tmp_path / "rows")
    for key in ("description", "fewshot_config", "include", "task_alias"):
        config.pop(key, None)
    config.update(task="exam_letters", doc_to_text="{{prompt}}", doc_to_target="{{letter}}")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "exam_letters.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    out = tmp_path / "out"
    options = ["--tasks", "exam_letters", "--include_path", str(tmp_path / "tasks"), "--log_samples"]
    done = orin_run("lm-eval", "--model", str(gguf.path), "--out", str(out), *options, env=OFFLINE)
    assert done.returncode == 0, done.stderr
    assert "exam_letters" in done.stdout
    again = orin_run("lm-eval", "--model", str(gguf.path), "--out", str(out), *options, env=OFFLINE)
    assert again.returncode == 2
    assert "already holds results" in again.stderr

    own = predictions(gguf, "exam", docs)
    results = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(own) == 60
    accuracy = sum(prediction.correct for prediction in own) / len(own)
    assert results["results"]["exam_letters"]["acc,none"] == accuracy
    tokens = results["config"]["tokens"]
    assert tokens["computed"] <= 1.01 * tokens["unique"] < tokens["sent"]
    samples = (out / "samples_exam_letters.jsonl").read_text(encoding="utf-8").splitlines()
    for line, prediction in zip(samples, own, strict=True):
        found = [float(response[0][0]) for response in json.loads(line)["resps"]]
        assert found == pytest.approx(prediction.logprobs)


def test_options_that_are_the_engines_are_refused(tmp_path: Path) -> None:
    """Nothing the engine decides is silently ignored; unknown tasks are one line."""
    for option in ("--model_args", "--batch_size", "--output_path", "--use_cache"):
        with pytest.raises(UserError, match=option):
            Evaluation.of(["--tasks", "x", option, "a=1" if option == "--model_args" else "1"], tmp_path)
    with pytest.raises(UserError, match="Tasks not found: no_such_task"):
        Evaluation.of(["--tasks", "no_such_task"], tmp_path / "out")
    with pytest.raises(UserError, match="--tasks '' names no task"):
        Evaluation.of(["--tasks", ""], tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: " + "[" * 1000, "flow"),
        ("a: &a [*a]", "Unknown config shape"),
        ("task: x\ndataset_path: [1]\n", "cannot ask"),
    ],
)
def test_a_task_file_that_is_none_is_one_line(ours: HarnessModel, tmp_path: Path, text: str, said: str) -> None:
    """Whatever the harness raises at it, before the first request."""
    path = tmp_path / "task.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as raised:
        Evaluation.of(["--tasks", str(path)], tmp_path / "out").run(ours)
    assert len(str(raised.value).splitlines()) == 1
