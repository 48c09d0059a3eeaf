"""Two runs item by item: the task's metric, its drop and how sure that is, and the flips with their causes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

from eval.intervals import MCNEMAR, mean_interval, paired_test
from eval.near_ties import NearTies
from eval.pairs import CAUSES, Pair, align, differences, only_in
from eval.runs.run import Run, quantized_types
from orin_runner.errors import UserError
from orin_runner.model.proof import Proof, Verdict

SHOWN_FLIPS = 10
MAX_DROP = 0.5
"""Points of average accuracy a run may lose: the challenge's rule."""


def diff(run: Run, reference: Run, max_drop: float = MAX_DROP, *, anyway: bool = False) -> dict[str, Any]:
    """Compare two runs, on the items that both hold.

    Whether a drop is at most ``max_drop`` is decided in fractions of the numbers as ``predictions.jsonl`` and the
    command line have them, in decimal, so that no rounding turns it.

    Returns:
        A JSON object: which engine, number format and model is compared with which, ``same_checkpoint`` (None where a
        run does not know its checkpoint), ``altered_values`` of the run, ``mean_drop`` in points with its 95 %
        ``mean_drop_interval``, whether it is ``within_max_drop``, per task what ``compare`` returns, and under ``all``
        the same counts of all items together. Items that a run has skipped are in nothing but ``skipped``, by task,
        and those that one run does not hold in nothing but ``only_in_run`` and ``only_in_reference``.

    Args:
        anyway: compare runs that were asked differently, too; ``differences`` says how.

    Raises:
        UserError: the runs do not match or share no item that both have asked, one is of a damaged model, or
            ``max_drop`` is no number.
    """
    if not math.isfinite(max_drop):
        raise UserError(f"--max-drop {max_drop} is no number of points", f"--max-drop {MAX_DROP}")
    limit = Fraction(repr(max_drop))
    for one in (run, reference):
        _refuse_damaged(one)
    aligned = align(run, reference, anyway=anyway)
    skipped = {task: n for task, items in aligned.items() if (n := sum(pair.skipped for pair in items))}
    asked = {task: [pair for pair in items if not pair.skipped] for task, items in aligned.items()}
    pairs = {task: items for task, items in asked.items() if items}
    if skipped and not pairs:
        raise UserError("no item was asked in both runs: each is skipped in one", "--too-long truncate for both")
    models = [r.header.get("model", {}) for r in (run, reference)]
    window = models[0].get("window") or models[1].get("window")
    one_ignores = {model.get("window_honoured") for model in models} == {True, False}
    one_quantized = bool(quantized_types(run.header)) != bool(quantized_types(reference.header))
    tasks = {}
    drops = {task: exact_drop(items) for task, items in pairs.items()}
    for task, items in pairs.items():
        near_ties = [NearTies.of(r.report.get("tasks", {}).get(task, {})) for r in (run, reference)]
        ignored = window if one_ignores else None
        tasks[task] = compare(items, window, ignored, near_ties, one_quantized=one_quantized)
        tasks[task]["within_max_drop"] = drops[task] <= limit
    intervals = [section["drop_interval"] for section in tasks.values()]
    mean = sum(drops.values(), Fraction(0)) / max(1, len(drops))
    everything = _counts([pair for items in pairs.values() for pair in items])
    everything["causes"] = {cause: sum(section["causes"][cause] for section in tasks.values()) for cause in CAUSES}
    return {
        "run": str(run.directory),
        **_named("run", run),
        "reference": str(reference.directory),
        **_named("reference", reference),
        "same_checkpoint": _same(run, reference, "checkpoint_sha256"),
        "same_tokenizer": _same(run, reference, "tokenizer_sha256"),
        "altered_values": models[0].get("altered_values"),
        "max_drop": max_drop,
        "mean_drop": float(mean),
        "mean_drop_interval": mean_interval([float(drop) for drop in drops.values()], intervals) if drops else None,
        "within_max_drop": mean <= limit,
        "skipped": skipped,
        "only_in_run": only_in(run, reference),
        "only_in_reference": only_in(reference, run),
        "differences": differences(run, reference),
        "all": everything,
        "tasks": tasks,
    }


def _refuse_damaged(run: Run) -> None:
    verdict = Verdict.of_run(run.header)
    if verdict.proof is Proof.REFUTED:
        raise UserError(
            f"{run.directory} holds answers of a damaged model: {verdict.detail}", "convert it again, and run it anew"
        )


def _same(run: Run, reference: Run, digest: str) -> bool | None:
    """Whether both models have the same ``digest``, as far as the proofs go; None where a run does not know it."""
    digests = [r.header.get("model", {}).get(digest) for r in (run, reference)]
    return None if None in digests else bool(digests[0] == digests[1])


def _named(role: str, run: Run) -> dict[str, Any]:
    """What a run was made with.

    Engine, number format, model, tokenizer and proof, the rule for prompts that are too long, whether the model is
    quantized and whether a window was dropped.
    """
    model, verdict = run.header.get("model", {}), Verdict.of_run(run.header)
    types = model.get("types", {})
    dtype = model.get("dtype") or "+".join(sorted(types, key=lambda name: -types[name])) or None
    return {
        f"{role}_engine": run.header.get("engine"),
        f"{role}_dtype": dtype,
        f"{role}_model": model.get("name"),
        f"{role}_lossy": bool(quantized_types(run.header)),
        f"{role}_tokenizer": _tokenizer(model),
        f"{role}_proof": verdict.proof.value,
        f"{role}_proof_detail": verdict.detail,
        f"{role}_too_long": run.header.get("settings", {}).get("too_long"),
        f"{role}_window_off": bool(model.get("window")) and model.get("window_honoured") is False,
    }


def _tokenizer(model: dict[str, Any]) -> str | None:
    """Kind and digest of a model's tokenizer; None where the run does not say it."""
    kind, digest = model.get("tokenizer"), model.get("tokenizer_sha256")
    return None if kind is None or digest is None else f"{kind} {digest[:12]}"


def exact_drop(pairs: Iterable[Pair]) -> Fraction:
    """Points that the mean score of ``pairs`` falls below the reference's, without rounding; 0 of no pairs."""
    items = list(pairs)
    total = _total(pair.reference_score for pair in items) - _total(pair.score for pair in items)
    return 100 * total / max(1, len(items))


def _total(scores: Iterable[float]) -> Fraction:
    # As decimals, as in predictions.jsonl: the floats 0.8 and 0.3 are a little more than 1/2 apart.
    return sum((Fraction(repr(score)) * n for score, n in Counter(scores).items()), Fraction(0))


def diff_all(
    run: Run, references: Sequence[Run], max_drop: float = MAX_DROP, *, anyway: bool = False
) -> list[dict[str, Any]]:
    """Compare a run with each reference; ``anyway`` as in ``diff``.

    Where two references differ in nothing but that one ignores the model's sliding window, the result of the one that
    honours it also has ``shares``: its drop as the sum of what the numerics took, which is the drop against the
    reference that treats the window as the run does, and what the window took, which is the rest.

    Raises:
        UserError: the runs do not match.
    """
    results = [diff(run, reference, max_drop, anyway=anyway) for reference in references]
    honours = [r.header.get("model", {}).get("window_honoured") for r in (run, *references)]
    kinds = [
        (result["reference_engine"], result["reference_dtype"], reference.header.get("model", {}).get("window"))
        for result, reference in zip(results, references, strict=True)
    ]
    for i, result in enumerate(results):
        off = next((k for k, kind in enumerate(kinds) if kind == kinds[i] and honours[k + 1] is False), None)
        if honours[i + 1] is not True or not kinds[i][2] or off is None or honours[0] is None:
            continue
        alike = result if honours[0] else results[off]
        result["shares"] = {
            "window_off": results[off]["reference"],
            "mean": _shares(result["mean_drop"], alike["mean_drop"]),
            "tasks": {
                task: _shares(section["drop_points"], alike["tasks"][task]["drop_points"])
                for task, section in result["tasks"].items()
            },
        }
    return results


def _shares(drop: float, numerics: float) -> dict[str, float]:
    return {"window": drop - numerics, "numerics": numerics}


def compare(
    pairs: Sequence[Pair],
    window: int | None,
    ignored_window: int | None = None,
    near_ties: Sequence[NearTies] = (NearTies(), NearTies()),
    *,
    one_quantized: bool = False,
) -> dict[str, Any]:
    """One task's comparison; items whose prompts either run has truncated are counted apart.

    Args:
        pairs: its items.
        window: the model's sliding window; items whose prompt and answer are longer than that are counted apart.
        ignored_window: the same where exactly one of the runs does not honour it, else None.
        near_ties: the noise of both runs.
        one_quantized: whether the model of exactly one of them is quantized.
    """
    # The flips that rounding cannot explain stand first.
    flips = sorted((pair for pair in pairs if not pair.agrees), key=lambda pair: -(pair.run.margin or 0.0))
    causes = [pair.cause(ignored_window, near_ties, one_quantized=one_quantized) for pair in flips]
    section = _counts(pairs)
    section["causes"] = {cause: causes.count(cause) for cause in CAUSES}
    section["noise"] = any(each.scores is not None or each.texts is not None for each in near_ties)
    section["max_logprob_difference"] = max(
        (
            abs(a - b)
            for pair in pairs
            if pair.run.logprobs is not None and pair.reference.logprobs is not None
            for a, b in zip(pair.run.logprobs, pair.reference.logprobs, strict=True)
        ),
        default=None,
    )
    texts = [pair for pair in pairs if pair.run.text is not None and pair.reference.text is not None]
    section["texts"] = len(texts)
    section["identical_texts"] = sum(pair.run.text == pair.reference.text for pair in texts)
    section["same_token_ids"] = sum(pair.same_tokens for pair in pairs)
    if window:
        section["beyond_window"] = _counts([pair for pair in pairs if pair.n_context > window])
        section["within_window"] = _counts([pair for pair in pairs if pair.n_context <= window])
    if any(pair.truncated for pair in pairs):
        section["truncated"] = _counts([pair for pair in pairs if pair.truncated])
        section["whole"] = _counts([pair for pair in pairs if not pair.truncated])
    section["flips"] = [
        {
            "id": pair.run.id,
            "run": pair.run.prediction,
            "reference": pair.reference.prediction,
            "target": pair.run.target,
            "margin": pair.run.margin,
            "reference_margin": pair.reference.margin,
            "near_tie": pair.near_tie(near_ties),
            "score": pair.score,
            "reference_score": pair.reference_score,
            "n_tokens": pair.run.n_tokens,
            "n_context": pair.n_context,
            "same_token_ids": pair.same_tokens,
            "cause": cause,
        }
        for pair, cause in zip(flips, causes, strict=True)
    ]
    return section


def _counts(pairs: Iterable[Pair]) -> dict[str, Any]:
    items = list(pairs)
    n = len(items)
    scores, reference_scores = [pair.score for pair in items], [pair.reference_score for pair in items]
    metrics = {pair.metric for pair in items}
    found = paired_test(reference_scores, scores) if n else None
    return {
        "metric": metrics.pop() if len(metrics) == 1 else None,
        "items": n,
        "accuracy": float(_total(scores) / n) if n else None,
        "reference_accuracy": float(_total(reference_scores) / n) if n else None,
        "drop_points": float(exact_drop(items)),
        "drop_interval": None if found is None else [100.0 * limit for limit in found.interval],
        "interval": None if found is None else found.interval_name,
        "agreement": sum(pair.agrees for pair in items) / n if n else None,
        "flips_in_all": n - sum(pair.agrees for pair in items),
        "lost": sum(a < b for a, b in zip(scores, reference_scores, strict=True)),
        "gained": sum(a > b for a, b in zip(scores, reference_scores, strict=True)),
        "test": MCNEMAR if found is None else found.name,
        "p": 1.0 if found is None else found.p,
        "patterns_drawn": None if found is None else found.drawn,
    }
