"""``pipeline("text-generation", model="model.gguf")``: the part of transformers' pipeline that a greedy run needs.

The calling script keeps its shape: conversations or texts in, ``[{"generated_text": ...}]`` per row out, as a list for
a list and as an iterator for a data set. All rows of a call are answered together, so that the prefix tree sees them
all. What cannot be honoured (sampling, beams) is refused by name instead of being ignored.

Protocol: transformers' ``TextGenerationPipeline`` (``return_full_text``, nesting of the result).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from eval.encoding import encode_docs
from eval.tasks.challenge import choices_in
from eval.tasks.doc import Doc, Message
from orin_runner.engine.engine import Progress, RunStats
from orin_runner.errors import UserError
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import Needs
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import Generated, GenerateRequest, Unfit, context_tokens
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor
from orin_runner.workers.worker import Job

DEFAULT_NEW_TOKENS = 256
"""As transformers' text-generation pipeline has it."""
GREEDY = {
    "do_sample": (False, None),
    "num_beams": (1, None),
    "num_return_sequences": (1, None),
    "temperature": (None, 0, 1),
    "top_k": (None,),
    "top_p": (None, 1),
    "repetition_penalty": (None, 1),
}
"""Arguments that mean greedy decoding at these values, and something else at any other."""
NO_EFFECT = frozenset({"batch_size", "num_workers", "use_cache", "clean_up_tokenization_spaces"})
"""Arguments that do not change what comes out: the engine makes its own batches."""

Row = list[dict[str, Any]]


class TextGeneration:
    """A model that answers.

    Args:
        model: a GGUF made by ``python -m convert``.
        draft: verify the choices a prompt lists instead of decoding them; never changes a text.
        device_bytes: memory to plan for instead of what is free.

    Attributes:
        stats: what the last call cost.

    Raises:
        UserError: the file is not such a GGUF, or does not fit into memory.
    """

    def __init__(self, model: str | Path, *, draft: bool = True, device_bytes: int | None = None) -> None:
        file = GGUFFile.open(Path(model))
        self._tokenizer = Tokenizer.from_gguf(file)
        self._n_positions = file.n_ctx_train
        # Nothing is known of the rows yet: plan for the longest that fits, in steps of llama.cpp's own.
        lengths = [*range(256, file.n_ctx_train, 256), file.n_ctx_train]
        job = Job(
            model=file.path,
            needs=Needs(longest=file.n_ctx_train, row_share=0.25, generated=True),
            lengths=lengths,
            device_bytes=device_bytes,
            share=1.0,
            n_threads=cpu_threads(),
            draft=draft,
        )
        self.notes: list[str] = []
        self._supervisor = Supervisor(job, self.notes.append)
        try:
            self._supervisor.start()
        except DoesNotFitError as error:
            raise UserError(f"{file.path} does not fit: {error.plan.advice}", "see orin-run plan") from error

    @property
    def stats(self) -> RunStats:
        return self._supervisor.stats

    def close(self) -> None:
        """End the worker and free its memory."""
        self._supervisor.close()

    def __enter__(self) -> TextGeneration:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(
        self,
        inputs: Any,
        *,
        max_new_tokens: int = DEFAULT_NEW_TOKENS,
        return_full_text: bool | None = None,
        **arguments: Any,
    ) -> Row | list[Row] | Iterator[Row]:
        """Greedy texts.

        Args:
            inputs: a text, a conversation (a list of ``{"role", "content"}``), a list of either, or a data set of
                either (anything with a length and an index, or an iterator).
            max_new_tokens: bound on each text.
            return_full_text: with the prompt in front; transformers' default is True.
            arguments: transformers' own; refused where they ask for anything but greedy decoding.

        Returns:
            ``[{"generated_text": ...}]`` for a single input, a list of these for a list, an iterator for a data set.

        Raises:
            UserError: an argument cannot be honoured, or an input is too long for the context.
        """
        _check(arguments)
        full = return_full_text is None or return_full_text
        if isinstance(inputs, str) or _is_chat(inputs):
            (row,) = self._answers([inputs], max_new_tokens, full)
            return row
        if isinstance(inputs, list | tuple):
            return list(self._answers(inputs, max_new_tokens, full))
        return self._answers(inputs, max_new_tokens, full)

    def _answers(self, inputs: Iterable[Any], max_new_tokens: int, full: bool) -> Iterator[Row]:
        indexed: Any = inputs
        rows = [indexed[i] for i in range(len(indexed))] if hasattr(inputs, "__getitem__") else list(inputs)
        docs = [_doc(i, row, max_new_tokens) for i, row in enumerate(rows)]
        requests = [question.request for question in encode_docs(docs, self._tokenizer)]
        limit = min(self._supervisor.limit, self._n_positions)
        for i, request in enumerate(requests):
            if len(request.prompt) > limit:
                raise UserError(
                    f"input {i + 1} has {len(request.prompt)} tokens, {limit} fit", "shorten it, or free memory"
                )
        fitting = [_bounded(request, limit) for request in requests]
        texts: dict[int, str] = {}
        following = 0
        for event in self._supervisor.run(fitting):
            if isinstance(event, Progress):
                continue
            if isinstance(event[1], Unfit):
                raise MemoryError(f"input {event[0] + 1} {event[1].reason}")
            assert isinstance(event[1], Generated)
            texts[event[0]] = self._tokenizer.decode(event[1].tokens)
            while following in texts:
                yield [{"generated_text": _result(rows[following], texts.pop(following), full)}]
                following += 1


def pipeline(task: str, model: str | Path, **options: Any) -> TextGeneration:
    """A ``TextGeneration``, called as transformers' ``pipeline`` is.

    Args:
        task: ``"text-generation"``.
        model: a GGUF made by ``python -m convert``.
        options: ``draft`` and ``device_bytes`` of ``TextGeneration``.

    Raises:
        UserError: another task, or an option there is none of.
    """
    if task != "text-generation":
        raise UserError(f"the pipeline {task!r} does not exist here", "use 'text-generation'")
    unknown = sorted(set(options) - {"draft", "device_bytes"})
    if unknown:
        raise UserError(
            f"pipeline() does not take {', '.join(unknown)}", "weights, types and tokenizer come from the GGUF"
        )
    return TextGeneration(model, **options)


def _check(arguments: dict[str, Any]) -> None:
    for name, value in arguments.items():
        if name in NO_EFFECT:
            continue
        if name not in GREEDY:
            raise UserError(f"{name} is not supported", f"known: max_new_tokens, return_full_text, {', '.join(GREEDY)}")
        if value not in GREEDY[name]:
            raise UserError(f"{name}={value} is not greedy decoding", "only greedy texts can be exact: leave it out")


def _is_chat(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(m, dict) and "role" in m for m in value)


def _doc(i: int, row: Any, max_new_tokens: int) -> Doc:
    if not isinstance(row, str) and not _is_chat(row):
        raise UserError(f"input {i + 1} is neither a text nor a conversation: {type(row).__name__}")
    prompt: str | tuple[Message, ...] = row if isinstance(row, str) else tuple(row)
    return Doc(
        id=str(i),
        group="",
        prompt=prompt,
        mode="generate",
        choices=choices_in(row if isinstance(row, str) else str(row[-1]["content"])),
        labels=(),
        target="",
        max_new_tokens=max_new_tokens,
    )


def _bounded(request: Any, limit: int) -> GenerateRequest:
    """``request`` with no more new tokens than fit behind its prompt."""
    assert isinstance(request, GenerateRequest)
    over = context_tokens(request) - limit
    if over <= 0:
        return request
    return GenerateRequest(request.prompt, request.stop, request.max_new_tokens - over, request.candidates)


def _result(row: str | Sequence[Message], text: str, full: bool) -> Any:
    if not full:
        return text
    return row + text if isinstance(row, str) else [*row, {"role": "assistant", "content": text}]
