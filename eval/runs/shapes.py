"""What ``run.json``, ``parts.json`` and ``report.json`` may say, as far as it is read again.

Further keys are allowed, and a key that is absent is not known. pydantic takes a tenth of a second to import: this
module is imported where a run is read.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from eval.runs.prediction import ROUNDING
from orin_runner.schema import Schema

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
Amount = Annotated[float, Field(ge=0, lt=1e18)]
"""Seconds, bytes, rates: so small that sums of them stay finite."""
Share = Annotated[float, Field(ge=-2 * ROUNDING, le=1 + 2 * ROUNDING)]
"""A mean of scores, which may lie ``ROUNDING`` outside, and of a sum that is rounded itself."""


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Model(_Shape):
    """``model`` of ``run.json``."""

    name: str = ""
    sha256: str | None = None
    checkpoint_sha256: str | None = None
    chat_template_sha256: str | None = None
    tokenizer: str | None = None
    tokenizer_sha256: str | None = None
    architecture: str | None = None
    types: dict[str, Count] = {}
    dtype: str | None = None
    altered_values: Count | None = None
    lossy: bool = False
    proof: str | None = None
    proof_detail: str | None = None
    window: Count | None = None
    window_honoured: bool | None = None


class MemoryDevice(_Shape):
    """``device`` of a memory plan."""

    name: str = ""
    available: Amount = 0
    unified: bool = False
    cuda: bool = False


class Memory(_Shape):
    """``memory`` of ``run.json``."""

    device: MemoryDevice = MemoryDevice()
    settings: dict[str, int | float | str | bool | None] = {}
    terms: dict[str, Amount] = {}
    assumed: list[str] = []
    total: Amount = 0
    allocated_mib: dict[str, Amount] | None = None


class Questions(_Shape):
    """Digests of the files of a task that is the user's own."""

    sha256: str
    template_sha256: str | None = None
    fewshot_sha256: str | None = None


class Settings(_Shape):
    """``settings`` of ``run.json``."""

    tasks: list[str] = []
    questions: dict[str, Questions] = {}
    draft: bool = True
    limit: Amount | None = None
    first: Amount | None = None
    shots: Count | Literal["phi3"] | None = None
    scoring: str | None = None
    chat: bool = False
    protocol: str | None = None
    prompt_cache: str | None = None
    max_new_tokens: Count | None = None
    too_long: str | None = None
    splits: dict[str, str | None] = {}
    shard: str | None = None


class ShardOf(_Shape):
    """``shard`` of ``run.json``."""

    index: Annotated[int, Field(ge=1)]
    of: Count
    items: dict[str, Count]
    questions: dict[str, str]
    shared: dict[str, Count]


class Header(_Shape):
    """``run.json``."""

    format: Literal[1] = 1
    engine: str = ""
    time: str = ""
    model: Model = Model()
    memory: Memory = Memory()
    settings: Settings = Settings()
    options: dict[str, bool | Count | Amount | str | list[str] | None] = {}
    resumed: list[str] = []
    shard: ShardOf | None = None


class Value(_Shape):
    """A metric of a section of ``report.json``."""

    value: Share
    stderr: Amount


class Group(_Shape):
    """A group of a section, and the head of a section."""

    accuracy: Share
    stderr: Amount
    items: Count


class Truncated(Group):
    """``truncated`` of a section."""

    tokens: Count


class Greedy(_Shape):
    """``greedy`` of a section."""

    texts: Count
    decode_steps_per_text: Amount
    drafted_share: Amount


class NoiseSample(_Shape):
    """``noise`` of a section, of its scores or of its texts."""

    compared: Count
    rms: Amount
    largest: Amount
    near_tie: Amount


class SectionNoise(_Shape):
    """``noise`` of a section."""

    scores: NoiseSample | None = None
    texts: NoiseSample | None = None


class Tokens(_Shape):
    """``tokens`` of a section."""

    sent: Count
    unique: Count
    computed: Count


class Section(Group):
    """A task's section of ``report.json``."""

    failed: Count
    metrics: dict[str, Value]
    groups: dict[str, Group]
    tokens: Tokens | None
    clocks: dict[str, Amount]
    items_per_s: Amount | None
    computed_tokens_per_s: Amount | None = None
    noise: SectionNoise | Amount | None = None
    near_ties: Count | None = None
    split: str | None = None
    rows: Count | None = None
    first: Amount | None = None
    protocol: str | None = None
    lacking: list[str] = []
    resumed: Count = 0
    without_record: Count = 0
    unanswered: Count = 0
    skipped: Count = 0
    truncated: Truncated | None = None
    greedy: Greedy | None = None
    share_of_prompt_rate: Amount | None = None


class Energy(_Shape):
    """``energy`` of ``measured``, of one task."""

    joules: Amount
    joules_per_item: Amount | None
    joules_per_1000_tokens: Amount | None
    items_per_wh: Amount | None


class MeasuredGpu(_Shape):
    """An entry of ``gpus`` of ``measured``."""

    id: str
    name: str
    peak_mib: Amount | None
    peak_own_mib: Amount | None
    mean_watts: Amount | None
    mean_load: Amount | None
    mean_sm_mhz: Amount | None
    max_celsius: Annotated[float, Field(gt=-1e18, lt=1e18)] | None
    throttled_s: dict[str, Amount] | None


class Measured(_Shape):
    """``measured`` of ``report.json``."""

    seconds: Amount
    unified: bool
    peak_host_mib: Amount | None = None
    peak_machine_mib: Amount | None = None
    peak_gpu_mib: Amount | None = None
    peak_watts: Amount | None
    mean_watts: Amount | None
    joules: Amount | None
    power_seconds: Amount
    power_source: str | None = None
    energy: dict[str, Energy] = {}
    gpus: list[MeasuredGpu] = []


class PromptRate(_Shape):
    """``prompt_rate`` of ``report.json``."""

    tokens_per_s: Amount


class Report(_Shape):
    """``report.json``."""

    tasks: dict[str, Section] = {}
    restarts: Count = 0
    warnings: list[str] = []
    measured: Measured | None = None
    prompt_rate: PromptRate | None = None


HEADER, REPORT = Schema(Header), Schema(Report)
