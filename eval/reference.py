"""The same questions answered by Hugging Face transformers. The only module that imports torch.

Prompts are padded on the left and batched by length. Log-probabilities come from one forward pass over prompt and
continuation, text from ``generate(do_sample=False)`` with the checkpoint's own generation config.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, StoppingCriteriaList

from convert.checkpoint import Checkpoint
from eval.evaluate import Prepared
from eval.predict import predict
from eval.report.section import task_report
from eval.runs.prediction import Prediction
from eval.runs.run import RunWriter
from orin_runner.errors import UserError
from orin_runner.model.tokenizer import Message
from orin_runner.requests import Generated, GenerateRequest, Request, Result, Scored, ScoreRequest, Tokens

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
STOP_TEXT_TOKENS = 32
"""Tokens at a text's end in which a stop text is looked for after each step; every one is shorter."""


class HFEncoder:
    """A checkpoint's tokenizer as transformers loads it (``eval.encoding.Encoder``)."""

    def __init__(self, directory: Path, stop: frozenset[int]) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self.stop = stop

    @property
    def has_chat_template(self) -> bool:
        return self._tokenizer.chat_template is not None

    def chat(self, messages: Sequence[Message]) -> str:
        return str(self._tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))

    def encode(self, texts: Sequence[str], *, special: bool = True) -> list[Tokens]:
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=special, return_attention_mask=False, verbose=False)
        return [np.array(ids, dtype=np.int32) for ids in encoded["input_ids"]]

    def decode(self, tokens: Tokens) -> str:
        return str(self._tokenizer.decode(tokens.tolist(), skip_special_tokens=True))

    def holds(self, tokens: Tokens, texts: Sequence[str]) -> bool:
        """Whether the text of ``tokens``, special tokens by their names, has one of ``texts`` in it."""
        text = str(self._tokenizer.decode(tokens.tolist()))
        return any(wanted in text for wanted in texts)


class Reference:
    """A checkpoint loaded by transformers.

    Args:
        directory: the checkpoint folder.
        dtype: a key of ``DTYPES``. The model is loaded in it, not cast afterwards: casting would also round the rotary
            frequencies, whose error grows with position.
        device: a torch device; None picks CUDA where there is one.
        window: keep the model's sliding window; False computes what a runtime without it would.

    Raises:
        UserError: not a checkpoint, or one transformers cannot load.
    """

    def __init__(self, directory: Path, dtype: str, device: str | None = None, *, window: bool = True) -> None:
        self.checkpoint = Checkpoint.open(directory)
        self.dtype = dtype
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        if self.device.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {self.device}: torch finds no CUDA device here", "--device cpu")
        overrides: dict[str, Any] = {} if window else {"sliding_window": None}
        try:
            model, loading = AutoModelForCausalLM.from_pretrained(
                directory, dtype=DTYPES[dtype], output_loading_info=True, **overrides
            )
            self.model = model.to(self.device).eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"transformers cannot load {directory}: {str(error).splitlines()[0]}") from error
        # transformers would go on with random values; a reference must not.
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if loading.get(what):
                first = min(str(key) for key in loading[what])
                raise UserError(f"{directory}: {what.replace('_keys', '')} tensor {first}", "complete the checkpoint")
        stop = self.model.generation_config.eos_token_id
        stops = stop if isinstance(stop, list) else [] if stop is None else [stop]
        try:
            self.encoder = HFEncoder(directory, frozenset(stops))
        except (OSError, ValueError) as error:
            raise UserError(f"no tokenizer in {directory}: {str(error).splitlines()[0]}") from error
        self.n_positions = int(self.model.config.max_position_embeddings)
        self.computed = 0

    def header(self) -> dict[str, Any]:
        """What ``run.json`` says of the model and its environment."""
        digest = self.checkpoint.digest({name: t.sha256() for name, t in self.checkpoint.tensors.items()})
        return {
            "engine": "transformers",
            "model": {
                "name": self.checkpoint.directory.resolve().name,
                "checkpoint_sha256": digest,
                "dtype": self.dtype,
                "window": self.checkpoint.config.get("sliding_window"),
                "window_honoured": getattr(self.model.config, "sliding_window", None) is not None,
            },
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
            "device": torch.cuda.get_device_name() if self.device.startswith("cuda") else "CPU",
        }

    def run(self, requests: Sequence[Request], batch_tokens: int) -> Iterator[tuple[int, Result]]:
        """Answer every request.

        Args:
            requests: what is asked.
            batch_tokens: padded tokens per forward pass.

        Yields:
            (index of the request, its result), each exactly once.
        """
        score = [i for i, request in enumerate(requests) if isinstance(request, ScoreRequest)]
        generate = [i for i, request in enumerate(requests) if isinstance(request, GenerateRequest)]
        for indices, answer in ((score, self._score), (generate, self._generate)):
            for batch in _by_length(requests, indices, batch_tokens):
                yield from answer([(i, requests[i]) for i in batch])

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
    def _score(self, batch: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Result]]:
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
            yield i, Scored(tuple(found), tuple(greedy))

    @torch.no_grad()
    def _generate(self, batch: Sequence[tuple[int, Request]]) -> Iterator[tuple[int, Result]]:
        requests = [request for _, request in batch if isinstance(request, GenerateRequest)]
        ids, mask = self._pad([request.prompt for request in requests])
        limit = min(max(request.max_new_tokens for request in requests), self.n_positions - ids.shape[1])

        def ended(sequences: torch.Tensor, _scores: object, **_: object) -> torch.Tensor:
            tails = sequences[:, max(ids.shape[1], sequences.shape[1] - STOP_TEXT_TOKENS) :].cpu().numpy()
            n = sequences.shape[1] - ids.shape[1]
            done = [
                n >= request.max_new_tokens or (bool(request.until) and self.encoder.holds(tail, request.until))
                for tail, request in zip(tails, requests, strict=True)
            ]
            return torch.tensor(done, device=sequences.device)

        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=limit,
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
        for k, (i, request) in enumerate(batch):
            assert isinstance(request, GenerateRequest)
            row = new[k, : request.max_new_tokens]
            stops = np.flatnonzero(np.isin(row, list(request.stop)))
            n = int(stops[0]) if len(stops) else len(row)
            end = self._text_end(row[:n], request.until)
            by_token = bool(len(stops)) and end is None
            n = n if end is None else end
            steps = n + by_token
            yield (
                i,
                Generated(
                    tokens=row[:n].astype(np.int32),
                    stopped=by_token or end is not None,
                    margin=float(lead[k, :steps].min()),
                    logprob=float(best[k, :steps].sum()),
                    decode_steps=max(0, steps - 1),
                    drafted=0,
                ),
            )

    def _text_end(self, tokens: npt.NDArray[np.int64], until: Sequence[str]) -> int | None:
        """How many of ``tokens`` it takes until their text holds a stop text; None where it holds none."""
        if not until:
            return None
        n = bisect_left(range(len(tokens) + 1), 1, key=lambda n: self.encoder.holds(tokens[:n].astype(np.int32), until))
        return n if n <= len(tokens) else None


def _by_length(requests: Sequence[Request], indices: Sequence[int], batch_tokens: int) -> Iterator[list[int]]:
    """Groups of similar length whose padded size stays within ``batch_tokens`` (single requests may exceed it)."""

    def size(i: int) -> int:
        request = requests[i]
        rows = len(request.continuations) if isinstance(request, ScoreRequest) else 1
        return len(request.prompt) * rows

    batch: list[int] = []
    for i in sorted(indices, key=lambda i: len(requests[i].prompt), reverse=True):
        if batch and (len(batch) + 1) * size(batch[0]) > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def evaluate_reference(
    prepared: Prepared,
    reference: Reference,
    writer: RunWriter,
    clocks: dict[str, float],
    batch_tokens: int,
    on_done: Callable[[int], None],
) -> dict[str, Any]:
    """Run a prepared task on ``reference`` and write its predictions; returns its section of ``report.json``."""
    requests = [question.request for question in prepared.questions]
    predictions: dict[int, Prediction] = {}
    before, computed = time.perf_counter(), reference.computed
    for i, result in reference.run(requests, batch_tokens):
        predictions[i] = predict(prepared.task, prepared.questions[i], result, reference.encoder)
        writer.write(predictions[i])
        on_done(len(predictions))
    seconds = time.perf_counter() - before
    sent = sum(len(request.prompt) for request in requests)
    tokens = {"sent": sent, "unique": sent, "computed": reference.computed - computed, "checked": 0}
    ordered = [predictions[i] for i in range(len(requests))]
    return task_report(ordered, tokens, {**clocks, **prepared.clocks, "prefill": seconds}, 0, 0.0)
