"""The same questions answered by Hugging Face transformers. The only module that imports torch.

Prompts are padded on the left and batched by length, so that no row shortens another. Log-probabilities come from one
forward pass over prompt and continuation, text from ``generate(do_sample=False)`` with the checkpoint's own generation
config.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import AutoModelForCausalLM, StoppingCriteriaList

from convert.checkpoint import Checkpoint
from convert.vocab.special_tokens import read_generation_config, stop_tokens
from convert.vocab.vocabulary import library_errors
from eval.evaluate import Prepared
from eval.hf_encoder import HFEncoder
from eval.predict import predict, unanswered
from eval.report.section import task_report
from eval.runs.prediction import Prediction
from eval.runs.writer import RunWriter
from eval.sent_tokens import distinct_tokens, sent_paths
from orin_runner.errors import RunError, UserError, first_line
from orin_runner.model.gguf_digests import text_digest
from orin_runner.requests import (
    NOT_FINITE,
    Failed,
    Generated,
    GenerateRequest,
    Request,
    Result,
    Scored,
    ScoreRequest,
    Tokens,
    longest_path,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
DEVICE = re.compile(r"(cpu|cuda)(:\d+)?")
STOP_TEXT_TOKENS = 32
"""Tokens at a text's end in which a stop text is looked for after each step; every one is shorter."""


class Reference:
    """A checkpoint loaded by transformers.

    Args:
        directory: the checkpoint folder.
        dtype: a key of ``DTYPES``. The model is loaded in it, not cast afterwards: casting would also round the rotary
            frequencies, whose error grows with position.
        device: a torch device; None picks CUDA where there is one.
        window: keep the model's sliding window; False computes what a runtime without it would.

    Attributes:
        n_positions: longest sequence the model is made for.
        computed: tokens that the last run put through the model for its answers, prompts and texts. Padding is none of
            them, nor is what runs along behind a text that has ended.
        clocks: seconds of the last run, ``prefill`` for scores and ``decode`` for texts, with what the reader of the
            results did meanwhile.

    Raises:
        UserError: not a checkpoint, or one transformers cannot load.
    """

    def __init__(self, directory: Path, dtype: str, device: str | None = None, *, window: bool = True) -> None:
        self.checkpoint = Checkpoint.open(directory)
        self.dtype = dtype
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if not DEVICE.fullmatch(self.device):
            raise UserError(f"unknown device {self.device!r}", "--device is cpu or cuda, cuda:1 the second GPU")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {self.device}: torch finds no CUDA device here", "--device cpu")
        transformers.utils.logging.disable_progress_bar()  # the program's own is the one that is shown
        overrides: dict[str, Any] = {} if window else {"sliding_window": None}
        with library_errors(f"transformers cannot load {directory}"):
            model, loading = AutoModelForCausalLM.from_pretrained(
                directory, dtype=DTYPES[dtype], output_loading_info=True, trust_remote_code=False, **overrides
            )
            self.model = model.to(self.device).eval()
        # transformers would go on with random values; a reference must not.
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if loading.get(what):
                first = min(str(key) for key in loading[what])
                raise UserError(f"{directory}: {what.replace('_keys', '')} tensor {first}", "complete the checkpoint")
        self.encoder = HFEncoder(directory, frozenset(), self.model.config.vocab_size)
        # Not config.json's, which transformers takes where there is no generation config: the GGUF has the tokenizer's.
        stop = stop_tokens(read_generation_config(directory), self.encoder.eos, self.model.config.vocab_size)
        self.encoder.stop = frozenset(stop)
        generation = self.model.generation_config
        generation.eos_token_id = stop or None
        if (generation.pad_token_id or 0) < 0:  # LLaMA-1's way to say that there is none
            generation.pad_token_id = None
        self.n_positions = int(self.model.config.max_position_embeddings)
        self.computed = 0
        self.clocks: dict[str, float] = {}

    def header(self) -> dict[str, Any]:
        """What ``run.json`` says of the model and its environment."""
        digest = self.checkpoint.digest({name: t.sha256() for name, t in self.checkpoint.tensors.items()})
        return {
            "engine": "transformers",
            "model": {
                "name": self.checkpoint.directory.resolve().name,
                "checkpoint_sha256": digest,
                "chat_template_sha256": text_digest(self.encoder.chat_template),
                "tokenizer": "huggingface",
                "tokenizer_sha256": self.encoder.tokenizer_sha256,
                "dtype": self.dtype,
                "window": self.checkpoint.config.get("sliding_window"),
                "window_honoured": getattr(self.model.config, "sliding_window", None) is not None,
            },
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "device": torch.cuda.get_device_name() if self.device.startswith("cuda") else "CPU",
        }

    def run(self, requests: Sequence[Request], batch_tokens: int) -> Iterator[tuple[int, Result | Failed]]:
        """Answer every request.

        Args:
            requests: what is asked.
            batch_tokens: padded prompt tokens per forward pass, at most; a single request may exceed it.

        Yields:
            (index of the request, its result), each exactly once; that it failed where its logits are not finite.

        Raises:
            RunError: torch cannot compute a batch, most often for lack of memory.
        """
        self.computed, self.clocks = 0, {}
        kinds = (("prefill", ScoreRequest, self._score), ("decode", GenerateRequest, self._generate))
        for stage, kind, answer in kinds:
            before = time.perf_counter()
            indices = [i for i, request in enumerate(requests) if isinstance(request, kind)]
            try:
                for batch in _batches(requests, indices, batch_tokens, self.n_positions):
                    yield from answer([(i, requests[i]) for i in batch])
            except RuntimeError as error:
                reason = f"torch cannot compute a batch: {first_line(error)}"
                raise RunError(f"{reason}; a lower --batch-tokens needs less memory") from error
            self.clocks[stage] = time.perf_counter() - before

    def _pad(self, rows: Sequence[Tokens]) -> tuple[torch.Tensor, torch.Tensor]:
        length = max(len(row) for row in rows)
        ids = np.zeros((len(rows), length), dtype=np.int64)
        mask = np.zeros((len(rows), length), dtype=np.int64)
        for k, row in enumerate(rows):
            ids[k, length - len(row) :] = row
            mask[k, length - len(row) :] = 1
        self.computed += int(mask.sum())
        return torch.from_numpy(ids).to(self.device), torch.from_numpy(mask).to(self.device)

    @torch.no_grad()
    def _score(self, batch: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Result | Failed]]:
        rows: list[Tokens] = []
        asked: list[list[int]] = []  # per request, the row each continuation is read from
        for _, request in batch:
            assert isinstance(request, ScoreRequest)
            known: dict[bytes, int] = {}
            for continuation in request.continuations:
                suffix = continuation[:-1]
                if suffix.tobytes() not in known:
                    known[suffix.tobytes()] = len(rows)
                    rows.append(np.concatenate([request.prompt, suffix]))
            asked.append([known[c[:-1].tobytes()] for c in request.continuations])
        ids, mask = self._pad(rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        keep = max(n for _, r in batch if isinstance(r, ScoreRequest) for n in r.n_scored)
        logits = self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, logits_to_keep=keep, use_cache=False
        ).logits.double()
        logprobs = torch.log_softmax(logits, dim=-1).cpu().numpy()
        for (i, request), row_of in zip(batch, asked, strict=True):
            assert isinstance(request, ScoreRequest)
            found, greedy = [], []
            for continuation, n, row in zip(request.continuations, request.n_scored, row_of, strict=True):
                tail, wanted = logprobs[row, -n:], continuation[-n:]
                found.append(tail[np.arange(n), wanted])
                greedy.append(bool(np.array_equal(tail.argmax(-1), wanted)))
            finite = all(np.isfinite(each).all() for each in found)
            yield i, Scored(tuple(found), tuple(greedy)) if finite else Failed(NOT_FINITE)

    @torch.no_grad()
    def _generate(self, batch: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Result | Failed]]:
        requests = [request for _, request in batch if isinstance(request, GenerateRequest)]
        bounds = [_bound(request, self.n_positions) for request in requests]
        if not any(bounds):
            nothing = Generated(
                np.empty(0, np.int32), stopped=False, margin=np.inf, logprob=0.0, decode_steps=0, drafted=0
            )
            yield from ((i, nothing) for i, _ in batch)
            return
        ids, mask = self._pad([request.prompt for request in requests])

        def ended(sequences: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
            tails = sequences[:, max(ids.shape[1], sequences.shape[1] - STOP_TEXT_TOKENS) :].cpu().numpy()
            n = sequences.shape[1] - ids.shape[1]
            done = [
                n >= bound
                or int(tail[-1]) in request.stop
                or (bool(request.until) and self.encoder.holds(tail, request.until))
                for tail, request, bound in zip(tails, requests, bounds, strict=True)
            ]
            return torch.tensor(done, device=sequences.device)

        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=max(bounds),
            stopping_criteria=StoppingCriteriaList([ended]),
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        new = out.sequences[:, ids.shape[1] :].cpu().numpy()
        logits = torch.stack(out.logits, dim=1).double()
        top = logits.topk(2, dim=-1).values
        lead = (top[..., 0] - top[..., 1]).cpu().numpy()
        best = torch.log_softmax(logits, dim=-1).max(dim=-1).values.cpu().numpy()
        finite = logits.isfinite().all(dim=-1).cpu().numpy()
        for k, (i, request) in enumerate(batch):
            assert isinstance(request, GenerateRequest)
            row = new[k, : bounds[k]]
            stops = np.flatnonzero(np.isin(row, list(request.stop)))
            n = int(stops[0]) if len(stops) else len(row)
            end = self._text_end(row[:n], request.until)
            by_token = bool(len(stops)) and end is None
            n = n if end is None else end
            steps = n + by_token
            decode_steps = max(0, steps - 1)  # the first token is the prompt's own
            self.computed += decode_steps
            if not finite[k, :steps].all():
                yield i, Failed(NOT_FINITE)
                continue
            yield (
                i,
                Generated(
                    tokens=row[:n].astype(np.int32),
                    stopped=by_token or end is not None,
                    margin=float(lead[k, :steps].min(initial=np.inf)),
                    logprob=float(best[k, :steps].sum()),
                    decode_steps=decode_steps,
                    drafted=0,
                ),
            )

    def _text_end(self, tokens: npt.NDArray[np.int64], until: Sequence[str]) -> int | None:
        """How many of ``tokens`` it takes until their text holds a stop text; None where it holds none."""
        if not until:
            return None
        n = bisect_left(range(len(tokens) + 1), 1, key=lambda n: self.encoder.holds(tokens[:n].astype(np.int32), until))
        return n if n <= len(tokens) else None


def _bound(request: GenerateRequest, n_positions: int) -> int:
    """Most tokens of a text: what is asked, as far as the model's context reaches."""
    return min(request.max_new_tokens, n_positions - len(request.prompt))


def _batches(
    requests: Sequence[Request], indices: Sequence[int], batch_tokens: int, n_positions: int
) -> Iterator[list[int]]:
    """Groups of similar length, the longest first.

    The padded size of a group of more than one stays within ``batch_tokens``. The texts of a group have all the room
    that each would have alone: the longest bound fits behind the longest prompt.
    """
    batch: list[int] = []
    width = n_rows = longest_text = 0
    for i in sorted(indices, key=lambda i: longest_path(requests[i]), reverse=True):
        request = requests[i]
        if isinstance(request, ScoreRequest):
            rows, text = len({tokens[:-1].tobytes() for tokens in request.continuations}), 0
        else:
            rows, text = 1, _bound(request, n_positions)
        if batch and (width * (n_rows + rows) > batch_tokens or width + max(longest_text, text) > n_positions):
            yield batch
            batch, n_rows, longest_text = [], 0, 0
        if not batch:
            width = longest_path(request)
        batch.append(i)
        n_rows, longest_text = n_rows + rows, max(longest_text, text)
    if batch:
        yield batch


def evaluate_reference(
    prepared: Prepared,
    reference: Reference,
    writer: RunWriter,
    clocks: dict[str, float],
    batch_tokens: int,
    on_done: Callable[[int], None],
    process_clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Run a prepared task on ``reference`` and write its predictions.

    Args:
        clocks: seconds already spent for this run (``start``, ``load``).
        on_done: called with the number of items that are answered.
        process_clock: seconds since the process began, those spent on other tasks left out.

    Returns:
        The task's section of ``report.json``.
    """
    requests = [question.request for question in prepared.questions]
    skipped = prepared.skipped_predictions()
    for prediction in skipped:
        writer.write(prediction)
    predictions: dict[int, Prediction] = {}
    paths: list[Tokens] = []
    judged = 0.0
    began = time.perf_counter()
    for i, result in reference.run(requests, batch_tokens):
        before = time.perf_counter()
        question = prepared.questions[i]
        if isinstance(result, Failed):
            predictions[i] = unanswered(prepared.task, question, result.reason)
        else:
            predictions[i] = predict(prepared.task, question, result, reference.encoder)
            paths += sent_paths(requests[i], result)
        writer.write(predictions[i])
        judged += time.perf_counter() - before
        on_done(len(skipped) + len(predictions))
    spent = {**clocks, **prepared.clocks, "inference": time.perf_counter() - began, **reference.clocks, "score": judged}
    if process_clock is not None:
        spent["process"] = process_clock()
    tokens = {
        "sent": sum(map(len, paths)),
        "unique": distinct_tokens(paths),
        "computed": reference.computed,
        "checked": 0,
    }
    ordered = [predictions[i] for i in range(len(requests))]
    return task_report([*ordered, *skipped], tokens, spent) | prepared.source
