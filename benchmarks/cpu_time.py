"""Where a run's time goes on a CPU: products, attention and how much of it is masked, other kernels, and the rest.

    python -m benchmarks.cpu_time --gguf FILE [--gguf FILE …] [--data DIR] [--tasks exam,bench,mmlu,hellaswag]
                                  [--limit 300]

Each task is answered twice: as a run answers it, which gives the CPU seconds (user and system time of the process), and
with every node of llama.cpp's graphs computed and timed by itself, which gives the shares. *Other* is what is not
within a node: Python, the tree, scoring rows, llama.cpp's own work between nodes, and waiting for them. A pair is a
query and a cell of one ubatch; a masked one is not attended to. *bench* is ``make bench``'s items, made of tokens that
the file must have; the second time includes some 20 µs a node more than the first.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import llama_cpp
import numpy as np
import numpy.typing as npt

from benchmarks.asked import requests_of
from benchmarks.bench import make_items
from orin_runner.engine.engine import Engine
from orin_runner.machine.devices import cpu_threads, present_device
from orin_runner.machine.memory_plan import MemoryPlanner, budget_of, needs_of
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama import Context, Model
from orin_runner.requests import Request, context_tokens

BENCH = "bench"
PRODUCTS, ATTENTION = ("MUL_MAT", "MUL_MAT_ID"), ("FLASH_ATTN_EXT",)
MINUS_INFINITY = 0xFC00
"""In F16, the type of the mask."""


class Tensor(ctypes.Structure):
    """``struct ggml_tensor`` of ``ggml.h``."""


Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
]


@dataclass
class Nodes:
    """What the nodes of all graphs have cost.

    Attributes:
        seconds: CPU seconds by operation.
        pairs, masked: of queries and cells, of one layer.
        queries: of one layer.
        on_mask: takes each mask of a ubatch, bool ``[queries, cells]``, True where a query attends to a cell.
    """

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    pairs: int = 0
    masked: int = 0
    queries: int = 0
    on_mask: Callable[[npt.NDArray[np.bool_]], None] = lambda _: None
    _began: float = 0.0
    _masks: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.callback = llama_cpp.ggml_backend_sched_eval_callback(self._node)
        self._name = llama_cpp.llama_cpp._lib.ggml_op_name
        self._name.restype, self._name.argtypes = ctypes.c_char_p, [ctypes.c_int]

    def _node(self, address: int, ask: bool, _: object) -> bool:
        if ask:
            self._began = time.process_time()
            return True
        took = time.process_time() - self._began
        tensor = Tensor.from_address(address)
        name = self._name(tensor.op).decode()
        self.seconds[name] += took
        if name == "GET_ROWS":  # the embeddings, and so another graph
            self._masks.clear()
        elif name in ATTENTION and ctypes.addressof(tensor.src[3].contents) not in self._masks:
            self._count(tensor)
        return True

    def _count(self, tensor: Tensor) -> None:
        queries, mask = tensor.src[0].contents.ne[1], tensor.src[3].contents
        self._masks.add(ctypes.addressof(mask))
        values = np.ctypeslib.as_array((ctypes.c_uint16 * (mask.ne[0] * queries)).from_address(mask.data))
        self.pairs += values.size
        self.queries += queries
        masked = values.reshape(queries, -1) == MINUS_INFINITY
        self.masked += int(np.count_nonzero(masked))
        self.on_mask(~masked)


@contextmanager
def watched(nodes: Nodes) -> Iterator[None]:
    """Contexts that are made meanwhile show their nodes."""
    defaults = llama_cpp.llama_context_default_params

    def with_callback() -> llama_cpp.llama_context_params:
        params = defaults()
        params.cb_eval = nodes.callback
        return params

    llama_cpp.llama_context_default_params = with_callback
    try:
        yield
    finally:
        llama_cpp.llama_context_default_params = defaults


def measure(file: GGUFFile, name: str, requests: Sequence[Request]) -> None:
    """A row."""
    settings = MemoryPlanner(file, present_device(), cpu_threads()).plan(needs_of(requests)).settings
    overrides = file.rope_overrides(max(map(context_tokens, requests)))
    nodes, seconds = Nodes(), []
    with Model(file.path, overrides=overrides) as model:
        for watch in (False, True):
            with watched(nodes) if watch else nullcontext():
                context = Context(model, settings)
            with context:
                engine = Engine([context], budget_of(settings), n_positions=model.n_ctx_train)
                nodes.seconds.clear()
                nodes.pairs = nodes.masked = nodes.queries = 0
                before = time.process_time()
                for _ in engine.run(requests):
                    pass
                seconds.append(time.process_time() - before)
    alone, whole = seconds
    products = sum(nodes.seconds[op] for op in PRODUCTS)
    attention = sum(nodes.seconds[op] for op in ATTENTION)
    kernels = sum(nodes.seconds.values())
    stats = engine.stats
    shares = (products, attention, kernels - products - attention, whole - kernels)
    print(
        f"| {file.path.stem} | {name} | {len(requests):,} | {stats.computed:,} | {stats.checked:,} | {alone:.1f} | "
        f"{whole:.1f} | {' | '.join(f'{share / whole:.1%}' for share in shares)} | "
        f"{nodes.pairs / nodes.queries:,.0f} | {nodes.masked / nodes.pairs:.1%} |",
        flush=True,
    )
    others = {op: took for op, took in nodes.seconds.items() if op not in (*PRODUCTS, *ATTENTION)}
    rest = sorted(others.items(), key=lambda item: -item[1])[:6]
    print(f"  other kernels: {', '.join(f'{op} {took / whole:.1%}' for op, took in rest)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gguf", type=Path, action="append", required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("ORIN_DATA"))
    parser.add_argument("--tasks", default=f"exam,{BENCH},mmlu,hellaswag")
    parser.add_argument("--limit", type=int, default=300)
    args = parser.parse_args()
    columns = (
        *("model", "task", "items", "computed", "checked", "CPU s", "node by node"),
        *("products", "attention", "other kernels", "other", "cells", "masked"),
    )
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for gguf in args.gguf:
        file = GGUFFile.open(gguf)
        for name in args.tasks.split(","):
            measure(file, name, make_items(2, 12) if name == BENCH else requests_of(name, file, args.data, args.limit))


if __name__ == "__main__":
    main()
