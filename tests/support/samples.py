"""Samples of a run, made by hand."""

from __future__ import annotations

import json
from typing import Any

from eval.runs.samples import Sample


def row(part: int, seconds: float, **changes: Any) -> dict[str, Any]:
    base = {"part": part, "seconds": seconds, "task": "t", "computed": 0, "computed_at": 0.0, "done": 0}
    return {**base, **dict.fromkeys(("host_mib", "machine_mib", "gpu_mib", "watts")), **changes}


def gpu(number: str, **changes: Any) -> dict[str, Any]:
    """An entry of ``gpus``: a card of which nothing is known but what is given."""
    counters = ("mib", "own_mib", "watts", "load", "sm_mhz", "celsius", "throttled")
    return {"id": number, "name": "card", **dict.fromkeys(counters), **changes}


def sample(part: int, seconds: float, **changes: Any) -> Sample:
    return Sample.parse(json.dumps(row(part, seconds, **changes)).encode())
