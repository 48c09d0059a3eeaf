"""The engine as a model of lm-evaluation-harness.

The harness hands over whole request lists; each goes to the engine as one, so that the prefix tree sees all of it.
Protocol: ``lm_eval.api.model.LM`` of 0.4.13; tokenization, truncation and stop strings are those of its ``hf`` model
(``lm_eval/models/huggingface.py``). Knows neither torch nor llama.cpp, nor what the harness makes of the answers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from lm_eval.api.model import LM
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import (
    get_rolling_token_windows,
    make_disjoint_window,
)
from tqdm import tqdm

from eval.encoding import Pair, encode_pairs, move_space, score_request, with_context
from eval.harness.answers import Answers
from eval.truncation import TooLong, shortened
from orin_runner.errors import RunError, UserError
from orin_runner.greedy_arguments import GREEDY
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import (
    Failed,
    Generated,
    GenerateRequest,
    Request,
    Result,
    Scored,
    ScoreRequest,
    Tokens,
    begun,
)
from orin_runner.requests import context_tokens as needed_tokens
from orin_runner.runner import Progress, Runner

NOTHING = np.empty(0, np.int32)
BLOCK = 4096
"""Requests tokenized at once: an encoding holds far more than its ids while it lives."""
SAMPLING = frozenset({"temperature", "top_k", "top_p", "min_p", "typical_p"})
"""Generation arguments without effect where ``do_sample`` is off."""
log = logging.getLogger("orin_run.harness")


Key = tuple[str, ...]
"""What a request of the harness goes by: its arguments."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The tokens of a request of the harness.

    Attributes:
        prompt: context, or the text of a rolling one, without what it lost; int32.
        truncated: tokens that it lost at its beginning to fit into the model's context.
    """

    prompt: Tokens
    truncated: int


class StartedRunner(Runner, Protocol):
    """A runner that holds memory until it is closed."""

    def close(self) -> None: ...


class HarnessModel(LM):  # type: ignore[misc]
    """A GGUF as the harness sees a model.

    Args:
        file: the GGUF.
        start: makes a runner whose context is planned for these requests. Called with the first list, and again when
            a later list needs a longer context.
        too_long: ``TRUNCATE``, as ``hf`` does, or ``REFUSE``; the harness wants an answer to each request.
        tokenizer: None for the checkpoint's own, which the GGUF carries.
        answers: of the run; a request whose answer it has is not asked again. None to keep none.
        on_progress: called with the tokens computed and the requests answered so far.

    Attributes:
        max_length: longest sequence the model is made for.
        tokens: sent, unique and computed so far.
        asked: by its arguments (``key_of``), each request that has come.
    """

    def __init__(
        self,
        file: GGUFFile,
        start: Callable[[Sequence[Request]], StartedRunner],
        too_long: TooLong = TooLong.TRUNCATE,
        tokenizer: Tokenizer | None = None,
        answers: Answers | None = None,
        on_progress: Callable[[int, int], None] = lambda _computed, _answered: None,
    ) -> None:
        super().__init__()
        self._file = file
        self._start = start
        self._too_long = too_long
        self._runner: StartedRunner | None = None
        self._tokenizer = tokenizer or Tokenizer.from_gguf(file)
        if self._tokenizer.prefix is None:
            raise UserError(f"{file.path} names neither a BOS nor an EOS token", "convert it again")
        self._prefix = self._tokenizer.prefix
        special = self._tokenizer.special
        self._prefix_text = special.get("bos_token", special.get("eos_token", ""))
        self.max_length = file.n_ctx_train
        self.tokens = {"sent": 0, "unique": 0, "computed": 0}
        self.asked: dict[Key, Asked] = {}
        self._kept, self._on_progress = answers, on_progress
        self._answered = 0

    def close(self) -> None:
        """End the runner, if one was started."""
        if self._runner is not None:
            self._runner.close()
            self._runner = None

    @property
    def tokenizer_name(self) -> str:
        return self._tokenizer.vocabulary.sha256

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        return self._tokenizer.chat_template if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        # Without a generation prompt the last message is the beginning of the answer.
        prefix = "" if add_generation_prompt else chat_history[-1]["content"]
        messages = chat_history if add_generation_prompt else chat_history[:-1]
        try:
            return self._tokenizer.chat(messages) + prefix
        except UserError:
            spoken = [message for message in messages if message["role"] != "system"]
            if len(spoken) == len(messages):
                raise
            log.warning("the chat template takes no system message: it is left out")
            return self._tokenizer.chat(spoken) + prefix

    def get_model_info(self) -> dict[str, Any]:
        """What goes into the results beside the harness's own settings."""
        return {
            "gguf": str(self._file.path),
            "gguf_sha256": self._file.digest(),
            **self._tokenizer.header,
            "tokens": self.tokens,
        }

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        texts = [request.args for request in requests]
        blocks = (self._pairs(texts[i : i + BLOCK]) for i in range(0, len(texts), BLOCK))
        pairs = [pair for block in blocks for pair in block]
        self._remember(texts, [context for context, _ in pairs], [len(tokens) - 1 for _, tokens in pairs])
        scores = self._score(pairs, "loglikelihood")
        for text, score in zip(texts, scores, strict=True):
            self.cache_hook.add_partial("loglikelihood", text, score)
        return scores

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        texts = [request.args[0] for request in requests]
        pairs: list[Pair] = []
        owners = []
        encoded = self._encode(texts)
        self._remember([(text,) for text in texts], encoded, None)
        for i, tokens in enumerate(encoded):
            windows = get_rolling_token_windows(tokens.tolist(), self._prefix, self.max_length, context_len=1)
            for context, continuation in map(make_disjoint_window, windows):
                pairs.append((np.array(context, np.int32), np.array(continuation, np.int32)))
                owners.append(i)
        sums = [0.0] * len(texts)
        for owner, (logprob, _) in zip(owners, self._score(pairs, "loglikelihood_rolling"), strict=True):
            sums[owner] += logprob
        for text, total in zip(texts, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), total)
        return sums

    def generate_until(self, requests: list[Any]) -> list[str]:
        bounds = [stops_and_bound(request.args[1]) for request in requests]
        prompts = self._encode([request.args[0] for request in requests])
        asked: list[Request] = []
        for prompt, (until, max_gen_toks) in zip(prompts, bounds, strict=True):
            if max_gen_toks >= self.max_length:
                raise UserError(
                    f"max_gen_toks={max_gen_toks} leaves no room for a prompt in {self.max_length} tokens of context",
                    "--gen_kwargs max_gen_toks=N",
                )
            context = begun(prompt, self._prefix)
            asked.append(GenerateRequest(context, self._tokenizer.stop, max_gen_toks, until=tuple(until)))
        given = [request.args for request in requests]
        self._remember(given, [request.prompt for request in asked], [bound for _, bound in bounds])
        asked = self._fitted(asked)
        texts = [""] * len(asked)
        for i, result in self._answers(asked, "generate_until"):
            assert isinstance(result, Generated)
            texts[i] = postprocess_generated_text(self._tokenizer.decode(result.tokens), bounds[i][0], None)
            self.cache_hook.add_partial("generate_until", requests[i].args, texts[i])
        return texts

    def prompt(self, arguments: Sequence[Any]) -> tuple[Tokens, int]:
        """Of a request that was asked: the tokens of its context, and how many it lost at its beginning."""
        asked = self.asked[key_of(arguments)]
        return asked.prompt, asked.truncated

    def _remember(
        self, arguments: Sequence[tuple[Any, ...]], prompts: Sequence[Tokens], behind: Sequence[int] | None
    ) -> None:
        """Note what is asked.

        Args:
            arguments: of each request.
            prompts: its tokens.
            behind: tokens of context that it needs behind them; None where nothing is cut.
        """
        for i, (given, prompt) in enumerate(zip(arguments, prompts, strict=True)):
            lost = 0 if behind is None else max(0, len(prompt) + behind[i] - self.max_length)
            self.asked[key_of(given)] = Asked(prompt[lost:], lost)

    def _encode(self, texts: Sequence[str]) -> list[Tokens]:
        """Special tokens are the tokenizer's own, except before a text that begins with BOS (a rendered chat)."""
        found: dict[str, Tokens] = {}
        for special in (True, False):
            some = [text for text in dict.fromkeys(texts) if text.startswith(self._prefix_text) is not special]
            found.update(zip(some, self._tokenizer.encode(some, special=special), strict=True))
        return [found[text] for text in texts]

    def _pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        """Context and continuation of each request as tokens (``eval.encoding.encode_pairs``).

        Where there is no context, the model's prefix token is it, unless the continuation begins with that token.
        """
        split = [move_space(*pair) for pair in texts]
        found = iter(encode_pairs([pair for pair in split if pair[0]], self._encode))
        bare = iter(self._tokenizer.encode([text for context, text in split if not context], special=False))
        pairs = []
        for context, text in split:
            pair = with_context(next(found) if context else (NOTHING, next(bare)), self._prefix)
            if not len(pair[1]):
                reason = f"the tokenizer leaves nothing of the continuation {text!r} to score"
                raise UserError(reason, "leave that task out, or mend its choices")
            pairs.append(pair)
        return pairs

    def _score(self, pairs: Sequence[Pair], label: str) -> list[tuple[float, bool]]:
        """(log-probability, whether it is the greedy continuation) of each pair."""
        # Continuations of one context stand in a row, and are one request.
        groups = groupby(pairs, key=lambda pair: pair[0].tobytes())
        asked = self._fitted([score_request(list(members)) for _, members in groups])
        scores: dict[int, list[tuple[float, bool]]] = {}
        for i, result in self._answers(asked, label):
            assert isinstance(result, Scored)
            sums = [float(logprobs.sum()) for logprobs in result.logprobs]
            scores[i] = list(zip(sums, result.greedy, strict=True))
        return [score for i in range(len(asked)) for score in scores[i]]

    def _answers(self, asked: Sequence[Request], label: str) -> Iterator[tuple[int, Result]]:
        """Each request's number and answer: first those that earlier parts of the run have, then the engine's."""
        unanswered = []
        for i, request in enumerate(asked):
            known = None if self._kept is None else self._kept.known(request)
            if known is None:
                unanswered.append(i)
            else:
                yield i, known
        if not unanswered:
            return
        rest = [asked[i] for i in unanswered]
        runner = self._runner_for(max(needed_tokens(request) for request in rest), rest)
        before = self.tokens["computed"]

        def on_progress(progress: Progress) -> None:
            self._on_progress(before + progress.computed, self._answered)

        with tqdm(total=len(rest), desc=label, unit=" requests") as bar:
            for k, result in runner.run(rest, on_progress):
                if isinstance(result, Failed):
                    raise RunError(f"request {unanswered[k] + 1} failed: {result.reason}")
                if self._kept is not None:
                    self._kept.add(rest[k], result)
                self._answered += 1
                bar.update()
                yield unanswered[k], result
        for name in self.tokens:
            self.tokens[name] += getattr(runner.stats, name)

    def _runner_for(self, longest: int, asked: Sequence[Request]) -> StartedRunner:
        if self._runner is not None and longest > self._runner.max_context:
            self.close()
        if self._runner is None:
            self._runner = self._start(asked)
        if longest > self._runner.max_context:
            raise UserError(
                f"a request needs {longest} tokens of context, memory allows {self._runner.max_context}",
                "free memory, or use fewer --num_fewshot",
            )
        return self._runner

    def _fitted(self, asked: Sequence[Request]) -> list[Request]:
        """``asked``, where those that are longer than the model's context have lost their beginning."""
        found = []
        for request in asked:
            short = shortened(request, self.max_length)
            if short is None:
                assert isinstance(request, ScoreRequest)
                raise UserError(
                    f"a continuation has {max(request.n_scored)} tokens, the model's context {self.max_length}",
                    "leave this task out",
                )
            found.append(short)
        cut = sum(short is not request for short, request in zip(found, asked, strict=True))
        said = f"{cut} of {len(asked)} requests are longer than the model's {self.max_length} tokens"
        if cut and self._too_long is TooLong.REFUSE:
            raise UserError(said, "--too-long truncate, or fewer --num_fewshot")
        if cut:
            log.warning("%s: their beginning is left out", said)
        return found


def key_of(arguments: Sequence[Any]) -> Key:
    """What a request of these arguments goes by in ``HarnessModel.asked``."""
    return tuple(each if isinstance(each, str) else json.dumps(each, sort_keys=True, default=str) for each in arguments)


def stops_and_bound(arguments: dict[str, Any]) -> tuple[list[str], int]:
    """Stop strings and most new tokens of a generation request.

    Raises:
        UserError: something other than greedy decoding is asked for; the argument is named.
    """
    values = dict(normalize_gen_kwargs(arguments))
    until, max_gen_toks = values.pop("until"), values.pop("max_gen_toks")
    for name, value in values.items():
        if name in SAMPLING and not values["do_sample"]:
            continue
        if value not in GREEDY.get(name, ()):
            raise UserError(f"{name}={value} is not greedy decoding", "--gen_kwargs do_sample=False,temperature=0")
    return [text for text in until if text], max_gen_toks
