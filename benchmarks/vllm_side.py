"""vLLM's side of ``benchmarks.bench_peer``: a program of its own, for the Python that vLLM is installed in.

    python vllm_side.py JOB.json OUT.json

It imports vLLM and the standard library, nothing of this project. JOB.json has ``model``, a Hugging Face folder,
``max_model_len``, ``rounds`` and ``items``; an item is a ``prompt`` (token ids), ``choices`` (token ids each) and
``scored`` (per choice, how many of its last tokens count). OUT.json gets vLLM's ``version``; ``sums``, per item and
choice the natural-log probability of the tokens that count, None where vLLM did not give one; ``load_s``; and
``answer_s``, the seconds of each round.

Choices of one token are answered after the prompt, with one new token: the prefix cache is used. Longer ones are
prompts themselves, with ``prompt_logprobs``: vLLM then reads nothing from its prefix cache. Before each further round
the cache is emptied.

Written against vLLM's documentation of ``LLM``, ``SamplingParams`` and ``TokensPrompt``; it was not run with vLLM.
"""

from __future__ import annotations

import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

TOP = 20
"""Most log-probabilities of a new token that vLLM gives without another setting (``max_logprobs``)."""


def answer(vllm: Any, llm: Any, items: list[dict[str, Any]]) -> list[list[float | None]]:
    """The sums of each item's choices."""
    single = all(len(choice) == 1 for item in items for choice in item["choices"])
    return letters(vllm, llm, items) if single else continuations(vllm, llm, items)


def letters(vllm: Any, llm: Any, items: list[dict[str, Any]]) -> list[list[float | None]]:
    """Choices of one token: the log-probabilities after the prompt."""
    wanted = [[choice[0] for choice in item["choices"]] for item in items]
    prompts = [vllm.TokensPrompt(prompt_token_ids=item["prompt"]) for item in items]
    outputs = llm.generate(prompts, [letter_params(vllm, tokens) for tokens in wanted], use_tqdm=False)
    found: list[list[float | None]] = []
    for output, tokens in zip(outputs, wanted, strict=True):
        row = output.outputs[0].logprobs[0]
        found.append([row[token].logprob if token in row else None for token in tokens])
    return found


def letter_params(vllm: Any, tokens: list[int]) -> Any:
    """One new token, with the log-probabilities of ``tokens``; in versions that cannot be told which, of the best.

    There the new token is the best of ``tokens``, whose log-probability is always given.
    """
    common = {"temperature": 0.0, "max_tokens": 1, "detokenize": False}
    try:
        return vllm.SamplingParams(**common, logprob_token_ids=tokens)
    except TypeError:
        return vllm.SamplingParams(**common, logprobs=TOP, allowed_token_ids=tokens)


def continuations(vllm: Any, llm: Any, items: list[dict[str, Any]]) -> list[list[float | None]]:
    """Choices of several tokens: each behind the prompt as a prompt of its own."""
    paths = [
        (item["prompt"] + choice, n)
        for item in items
        for choice, n in zip(item["choices"], item["scored"], strict=True)
    ]
    params = vllm.SamplingParams(temperature=0.0, max_tokens=1, detokenize=False, prompt_logprobs=1)
    prompts = [vllm.TokensPrompt(prompt_token_ids=path) for path, _ in paths]
    sums = []
    for output, (path, n) in zip(llm.generate(prompts, params, use_tqdm=False), paths, strict=True):
        # Entry i is of token i after those before it; that of the first token is None.
        rows = output.prompt_logprobs
        sums.append(sum(rows[i][path[i]].logprob for i in range(len(path) - n, len(path))))
    each = iter(sums)
    return [[next(each) for _ in item["choices"]] for item in items]


def main() -> None:
    # The folder of this file has modules of common names, which vLLM's imports must not find.
    here = Path(__file__).resolve().parent
    sys.path[:] = [path for path in sys.path if not path or Path(path).resolve() != here]
    vllm: Any = import_module("vllm")
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    began = time.perf_counter()
    llm = vllm.LLM(model=job["model"], dtype="bfloat16", enable_prefix_caching=True, max_model_len=job["max_model_len"])
    loaded = time.perf_counter()
    sums: list[list[float | None]] = []
    seconds = []
    for n in range(job["rounds"]):
        if n:
            llm.reset_prefix_cache()
        before = time.perf_counter()
        sums = answer(vllm, llm, job["items"])
        seconds.append(time.perf_counter() - before)
    found = {"version": vllm.__version__, "sums": sums, "load_s": loaded - began, "answer_s": seconds}
    Path(sys.argv[2]).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
