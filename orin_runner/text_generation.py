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

from orin_runner.errors import RunError, UserError
from orin_runner.greedy_arguments import GREEDY
from orin_runner.machine.devices import cpu_threads
from orin_runner.machine.memory_plan import Needs
from orin_runner.model.candidates import candidates, choices_in
from orin_runner.model.chat_template import Message
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import examine
from orin_runner.requests import Failed, Generated, GenerateRequest, Tokens, begun
from orin_runner.runner import RunStats
from orin_runner.workers.messages import Job
from orin_runner.workers.supervisor import DoesNotFitError, Supervisor
from orin_runner.workers.vocabulary import own_tokenizer

DEFAULT_NEW_TOKENS = 256
"""As transformers' text-generation pipeline has it."""
NO_EFFECT = frozenset({"batch_size", "num_workers", "use_cache", "clean_up_tokenization_spaces"})
"""Arguments that do not change what comes out: the engine makes its own batches."""

Row = list[dict[str, Any]]


class TextGeneration:
    """A model that answers.

    Args:
        model: a GGUF. One that carries no Hugging Face tokenizer is used with llama.cpp's vocabulary of it.
        draft: verify the choices a prompt lists instead of decoding them; never changes a text.
        device_bytes: memory to plan for instead of what is free.

    Attributes:
        stats: what the last call cost.

    Raises:
        UserError: the file is no GGUF, quantized, without a vocabulary, or does not fit into memory.
    """

    def __init__(self, model: str | Path, *, draft: bool = True, device_bytes: int | None = None) -> None:
        file = GGUFFile.open(Path(model))
        file.need_full_precision("convert the original checkpoint")
        self._tokenizer = own_tokenizer(file)
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
        self.notes: list[str] = [examine(file).verdict.line]
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
        requests = self._requests(rows, max_new_tokens)
        texts: dict[int, str] = {}
        following = 0
        for i, result in self._supervisor.run(requests):
            if isinstance(result, Failed):
                raise RunError(f"input {i + 1} failed: {result.reason}")
            assert isinstance(result, Generated)
            texts[i] = self._tokenizer.decode(result.tokens)
            while following in texts:
                yield [{"generated_text": _result(rows[following], texts.pop(following), full)}]
                following += 1

    def _requests(self, rows: Sequence[Any], max_new_tokens: int) -> list[GenerateRequest]:
        """The rows as requests, with no more new tokens than fit behind each prompt."""
        if max_new_tokens < 1:
            raise UserError(f"max_new_tokens={max_new_tokens} leaves nothing to generate", "1 is the least")
        texts = [self._text(i, row) for i, row in enumerate(rows)]
        prompts: dict[int, Tokens] = {}
        for chat in (False, True):
            part = [i for i, row in enumerate(rows) if isinstance(row, str) is not chat]
            # A rendered conversation already has the special tokens the template wants.
            encoded = self._tokenizer.encode([texts[i] for i in part], special=not chat)
            # As transformers' pipeline has it, a text without a token begins with BOS.
            begun_with = (begun(prompt, self._tokenizer.prefix) for prompt in encoded)
            prompts.update(zip(part, begun_with, strict=True))
        fitting = min(self._supervisor.max_context, self._n_positions)
        requests = []
        for i, row in enumerate(rows):
            room = fitting - len(prompts[i])
            if room < 0:
                raise UserError(
                    f"input {i + 1} has {len(prompts[i])} tokens, {fitting} fit", "shorten it, or free memory"
                )
            choices = choices_in(row if isinstance(row, str) else str(row[-1]["content"]))
            likely = candidates(choices, self._tokenizer.encode)
            requests.append(GenerateRequest(prompts[i], self._tokenizer.stop, min(max_new_tokens, room), likely))
        return requests

    def _text(self, i: int, row: Any) -> str:
        if isinstance(row, str):
            return row
        if not _is_chat(row):
            reason = f"input {i + 1} is neither a text nor a conversation: {type(row).__name__}"
            raise UserError(reason, "give a str, or a list of {'role': 'user', 'content': TEXT}")
        if not self._tokenizer.has_chat_template:
            reason = f"input {i + 1} is a conversation, and this model has no chat template"
            raise UserError(reason, "give a str, or name an instruct model")
        return self._tokenizer.chat(row)


def pipeline(task: str, model: str | Path, **options: Any) -> TextGeneration:
    """A ``TextGeneration``, called as transformers' ``pipeline`` is.

    Args:
        task: ``"text-generation"``.
        model: a GGUF at full precision.
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


def _result(row: str | Sequence[Message], text: str, full: bool) -> Any:
    if not full:
        return text
    return row + text if isinstance(row, str) else [*row, {"role": "assistant", "content": text}]
