"""llama.cpp's models and contexts, through llama-cpp-python's low-level API.

A ``Model`` is a loaded GGUF; a ``Context`` is its KV cache and compute buffers, with one unified cache in which a token
may belong to several sequences. The high-level ``llama_cpp.Llama`` is single-sequence and is not used.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from orin_runner.batching.batch import Batch
from orin_runner.errors import RunError, UserError
from orin_runner.model.llama_library import devices
from orin_runner.model.llama_log import LOG
from orin_runner.model.llama_vocabulary import piece, token_ids

LLAMA_MAX_SEQ = 256
KV_TYPES = {"f16": 1, "f32": 0}  # ggml_type


def _quick(function: Any) -> Any:
    """``function`` without giving Python's lock away, for calls on the cache's bookkeeping that take microseconds.

    A batch needs a hundred of them, and each would wait for the threads that score rows to return the lock.
    """
    address: Any = ctypes.cast(function, ctypes.c_void_p).value
    return ctypes.PYFUNCTYPE(function.restype, *function.argtypes)(address)


_seq_cp, _seq_rm = _quick(llama_cpp.llama_memory_seq_cp), _quick(llama_cpp.llama_memory_seq_rm)
_seq_pos_min, _seq_pos_max = _quick(llama_cpp.llama_memory_seq_pos_min), _quick(llama_cpp.llama_memory_seq_pos_max)


class DecodeError(RunError):
    """llama.cpp refused a batch or an allocation: a bug, a failure of the device or a lack of memory, not bad input."""


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """Sizes and types of a context.

    Attributes:
        n_cells: KV cells (``n_ctx``), shared by all sequences.
        n_batch: most tokens of one decode call.
        n_ubatch: tokens computed at a time.
        n_outputs: most logit rows of one decode call.
        n_seq: sequence ids.
        kv_type: ``"f16"`` or ``"f32"``.
        flash_attn: fused attention. Without it V is stored transposed and attention runs in separate products.
        n_threads: CPU threads.
    """

    n_cells: int
    n_batch: int
    n_ubatch: int
    n_outputs: int
    n_seq: int = LLAMA_MAX_SEQ
    kv_type: str = "f16"
    flash_attn: bool = True
    n_threads: int = 4


@dataclass(frozen=True, slots=True)
class Simulated:
    """Bytes llama.cpp says it would allocate for a context.

    Attributes:
        kv: its cache, on all devices.
        compute: compute buffers on each device that has layers, in ggml's order.
        compute_host: compute buffers on the host.
    """

    kv: int
    compute: tuple[int, ...]
    compute_host: int

    @property
    def compute_device(self) -> int:
        """Compute buffers on all devices."""
        return sum(self.compute)


class LoadMode(Enum):
    """How llama.cpp reads the weights from the file."""

    READ = llama_cpp.LLAMA_LOAD_MODE_NONE
    """Through the kernel's page cache, which several processes share, into memory of its own."""
    MAP = llama_cpp.LLAMA_LOAD_MODE_MMAP
    """The same, and from there to the device without a further copy. What stays on the host stays a part of the file:
    one that is altered in place alters the weights."""
    DIRECT = llama_cpp.LLAMA_LOAD_MODE_DIRECT_IO
    """Around the page cache, in which they would stand a second time while they are loaded. Plain reads where the file
    system cannot do it."""


class Model:
    """A GGUF loaded by llama.cpp, every layer on the GPU where there is one.

    Args:
        path: the GGUF file.
        progress: called with a share from 0 to 1 while loading.
        overrides: keys of the file that are to have another whole number.
        mode: how the file is read.
        split: layers on each of several GPUs, in ggml's order; the output head is on the last. Empty for one device.
        simulated: read the header only and pretend; nothing can be computed then.

    Raises:
        UserError: llama.cpp cannot load the file.
        DecodeError: it could not allocate the weights.
    """

    def __init__(
        self,
        path: Path,
        *,
        progress: Callable[[float], None] | None = None,
        overrides: Mapping[str, int] | None = None,
        mode: LoadMode = LoadMode.READ,
        split: Sequence[int] = (),
        simulated: bool = False,
    ) -> None:
        self.path = path
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = -1
        if split:
            # llama.cpp puts layer i of n, the head counted as one more, where i / n lies between the shares' sums
            # (get_layer_buft_list in llama-model.cpp): with numbers of layers for shares, exactly so many.
            shares = (ctypes.c_float * llama_cpp.llama_max_devices())(*split[:-1], split[-1] + 1)
            params.tensor_split = ctypes.cast(shares, ctypes.POINTER(ctypes.c_float))
        params.load_mode = mode.value
        if simulated:
            params.no_alloc = True
            params.load_mode = llama_cpp.LLAMA_LOAD_MODE_NONE

        def report(share: float, _user_data: Any) -> bool:
            if progress is not None:
                progress(share)
            return True

        keys = (llama_cpp.llama_model_kv_override * (len(overrides or {}) + 1))()  # an empty key ends them
        for entry, (key, value) in zip(keys, (overrides or {}).items(), strict=False):
            entry.tag, entry.key, entry.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, key.encode(), value
        params.kv_overrides = keys
        callback = llama_cpp.llama_progress_callback(report)
        params.progress_callback = callback
        LOG.lines.clear()
        llama_cpp.llama_backend_init()
        self.handle = llama_cpp.llama_model_load_from_file(os.fsencode(path), params)
        if not self.handle and LOG.find("failed to allocate|unable to allocate|out of memory"):
            raise DecodeError(f"no memory for the weights of {path}: {LOG.tail()}")
        if not self.handle:
            raise UserError(f"llama.cpp cannot load {path}: {LOG.tail()}", "convert the checkpoint again")
        if kind := _unsupported(self.handle):
            self.close()
            raise UserError(f"{path} is {kind}", "this engine runs decoders with attention in every layer")
        offloaded = LOG.find(r"offloaded (\d+)/(\d+) layers to GPU")
        self.gpu_layers = int(offloaded[-1][1]) if offloaded else 0
        self.n_layers = int(offloaded[-1][2]) if offloaded else llama_cpp.llama_model_n_layer(self.handle) + 1
        vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.n_vocab = int(llama_cpp.llama_vocab_n_tokens(vocab))
        self.n_ctx_train = int(llama_cpp.llama_model_n_ctx_train(self.handle))
        self.n_swa = int(llama_cpp.llama_model_n_swa(self.handle))

    def close(self) -> None:
        """Free the weights."""
        if self.handle:
            llama_cpp.llama_model_free(self.handle)
            self.handle = None

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tokenize(self, text: str) -> list[int]:
        """Token ids of ``text`` by llama.cpp's own vocabulary, special tokens parsed, no BOS.

        The engine feeds the checkpoint's own tokenizer's ids instead; this is for comparing the two.
        """
        return token_ids(llama_cpp.llama_model_get_vocab(self.handle), text, special=False, parse=True)


def _unsupported(model: Any) -> str | None:
    """What kind of model it is, if its sequences cannot be branched."""
    if llama_cpp.llama_model_has_encoder(model):
        return "a model with an encoder"
    if llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model):
        return "a recurrent model, whose states cannot be branched"
    return None


def simulate(path: Path, settings: ContextSettings, split: Sequence[int] = ()) -> Simulated:
    """llama.cpp's own sizes for a context of ``settings``, without allocating or reading weights (``no_alloc``).

    ``split`` is that of ``Model``. The sizes are read from its log, which is the only place that has them.

    Raises:
        UserError: llama.cpp cannot load the file.
    """
    with Model(path, split=split, simulated=True) as model, Context(model, settings):
        kv = sum(float(m[1]) for m in LOG.find(r"llama_kv_cache: size =\s*([\d.]+) MiB"))
        compute = [(m[1], float(m[2])) for m in LOG.find(r"(\S+)\s+compute buffer size =\s*([\d.]+) MiB")]
    gpus = [device.name for device in devices() if device.is_gpu]
    on_device = [sum(size for name, size in compute if name == gpu) for gpu in gpus]
    return Simulated(
        kv=math.ceil(kv * 2**20),
        compute=tuple(math.ceil(size * 2**20) for size in on_device),
        compute_host=math.ceil((sum(size for _, size in compute) - sum(on_device)) * 2**20),
    )


class Context:
    """A KV cache and the compute buffers to fill it.

    One decode at a time: ``submit`` starts it (on a GPU it returns early), ``logits`` waits for it.

    Attributes:
        buffers: MiB that llama.cpp allocated, by kind: KV, compute, output.

    Raises:
        DecodeError: llama.cpp could not allocate the context.
    """

    def __init__(self, model: Model, settings: ContextSettings) -> None:
        self.settings = settings
        self.n_vocab = model.n_vocab
        self._vocab = llama_cpp.llama_model_get_vocab(model.handle)
        self._pieces: dict[int, bytes] = {}
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = settings.n_cells
        params.n_batch = settings.n_batch
        params.n_ubatch = settings.n_ubatch
        params.n_seq_max = settings.n_seq
        # Fewer than n_seq_max aborts the process (output_reserve).
        params.n_outputs_max = max(settings.n_outputs, settings.n_seq)
        params.n_threads = params.n_threads_batch = settings.n_threads
        params.type_k = params.type_v = KV_TYPES[settings.kv_type]
        params.flash_attn_type = (
            llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if settings.flash_attn else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        )
        params.offload_kqv = True
        params.kv_unified = True
        params.swa_full = True
        params.no_perf = True
        LOG.lines.clear()
        self._ctx = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._ctx:
            raise DecodeError(f"llama.cpp cannot create a context of {settings.n_cells} cells: {LOG.tail()}")
        kinds = ("KV", "compute", "output")
        self.buffers = {
            kind: sum(float(m[1]) for m in LOG.find(rf"{kind} buffer size =\s*([\d.]+) MiB")) for kind in kinds
        }
        self._memory = llama_cpp.llama_get_memory(self._ctx)
        self.n_swa = model.n_swa
        n = settings.n_batch
        self._tokens = np.zeros(n, dtype=np.int32)
        self._positions = np.zeros(n, dtype=np.int32)
        self._n_seq_id = np.zeros(n, dtype=np.int32)
        self._seq_id = np.zeros(n + 1, dtype=np.uint64)
        self._outputs = np.zeros(n, dtype=np.int8)
        self._batch = llama_cpp.llama_batch(
            token=self._tokens.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            embd=None,
            pos=self._positions.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            n_seq_id=self._n_seq_id.ctypes.data_as(ctypes.POINTER(ctypes.c_int32)),
            seq_id=self._seq_id.ctypes.data_as(ctypes.POINTER(ctypes.POINTER(ctypes.c_int32))),
            logits=self._outputs.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def close(self) -> None:
        """Free the cache and the buffers."""
        if self._ctx:
            llama_cpp.llama_free(self._ctx)
            self._ctx = None

    def __enter__(self) -> Context:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def clear(self) -> None:
        """Forget every sequence."""
        llama_cpp.llama_memory_clear(self._memory, False)

    def copy(self, src: int, dst: int, end: int) -> None:
        """Put ``dst`` on the cells of ``src``'s positions 0 to ``end - 1``."""
        _seq_cp(self._memory, src, dst, 0, end)

    def cut(self, seq: int, start: int) -> None:
        """Remove the positions of ``seq`` from ``start`` on."""
        _seq_rm(self._memory, seq, start, -1)

    def span(self, seq: int) -> tuple[int, int]:
        """Smallest and largest position of ``seq`` in the cache; (-1, -1) if it has none."""
        return (
            int(_seq_pos_min(self._memory, seq)),
            int(_seq_pos_max(self._memory, seq)),
        )

    def submit(self, batch: Batch) -> None:
        """Start decoding ``batch``.

        Raises:
            DecodeError: llama_decode returned anything but 0.
        """
        n = len(batch.tokens)
        self._tokens[:n] = batch.tokens
        self._positions[:n] = batch.positions
        self._n_seq_id[:n] = np.diff(batch.seq_starts)
        # llama.cpp copies the ids before it returns, so the array need only live through the call.
        seq_ids = np.ascontiguousarray(batch.seq_ids, dtype=np.int32)
        self._seq_id[:n] = seq_ids.ctypes.data + 4 * batch.seq_starts[:-1].astype(np.uint64)
        self._outputs[:n] = batch.outputs
        self._batch.n_tokens = n
        status = llama_cpp.llama_decode(self._ctx, self._batch)
        if status != 0:
            raise DecodeError(f"llama_decode returned {status}: {LOG.tail()}")

    def synchronize(self) -> None:
        """Wait for the decode."""
        llama_cpp.llama_synchronize(self._ctx)

    def logits(self, n: int) -> npt.NDArray[np.float32]:
        """Wait for the decode and return its ``n`` logit rows, float32 ``[n, n_vocab]``.

        The array is llama.cpp's own buffer: copy what is needed before the next ``submit``.
        """
        if n == 0:
            self.synchronize()
            return np.empty((0, self.n_vocab), dtype=np.float32)
        pointer = llama_cpp.llama_get_logits(self._ctx)
        return np.ctypeslib.as_array(pointer, shape=(n, self.n_vocab))

    def state(self, seq: int) -> bytes:
        """The cells of ``seq``; of a cache with a sliding window only those within the window of its end."""
        size = int(llama_cpp.llama_state_seq_get_size(self._ctx, seq))
        buffer = (ctypes.c_uint8 * size)()
        n = int(llama_cpp.llama_state_seq_get_data(self._ctx, buffer, size, seq))
        return bytes(memoryview(buffer)[:n])

    def set_state(self, seq: int, payload: bytes) -> bool:
        """Put what ``state`` returned into ``seq``, which must be empty; False if llama.cpp refuses it."""
        buffer = (ctypes.c_uint8 * len(payload)).from_buffer_copy(payload)
        return int(llama_cpp.llama_state_seq_set_data(self._ctx, buffer, len(payload), seq)) > 0

    def piece(self, token: int) -> bytes:
        """The bytes of ``token`` in a text, leading space included; the name of a special token."""
        if token not in self._pieces:
            self._pieces[token] = piece(self._vocab, token, special=True)
        return self._pieces[token]
