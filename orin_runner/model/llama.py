"""llama.cpp, through llama-cpp-python's low-level API. The only module that imports ``llama_cpp``.

A ``Model`` is a loaded GGUF; a ``Context`` is its KV cache and compute buffers, with one unified cache in which a token
may belong to several sequences. The high-level ``llama_cpp.Llama`` is single-sequence and is not used.
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt
from llama_cpp import _ggml

from orin_runner.batching.batch import Batch
from orin_runner.errors import RunError, UserError

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
class Device:
    """One ggml device. ``free`` and ``total`` are bytes, as its driver reports them (0 where it reports none)."""

    name: str
    description: str
    is_gpu: bool
    free: int
    total: int


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


class _Log:
    """llama.cpp's log, kept instead of printed. The callback is one per process, as llama.cpp's is.

    Attributes:
        lines: the last ones.
        errors: a file descriptor that errors are written to as well, None for none.
    """

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=4000)
        self.errors: int | None = None
        self._in_error = False
        self._callback = llama_cpp.llama_log_callback(self._receive)
        llama_cpp.llama_log_set(self._callback, ctypes.c_void_p(0))

    def _receive(self, level: int, text: bytes, _user_data: Any) -> None:
        # GGML_LOG_LEVEL_DEBUG 1, INFO 2, WARN 3, ERROR 4, CONT 5 (goes on with the line before).
        if level == 1:
            return
        self._in_error = level == 4 or (level == 5 and self._in_error)
        if self._in_error and self.errors is not None:
            os.write(self.errors, text)
        line = text.decode("utf-8", "replace")
        if level == 5 and self.lines:
            self.lines[-1] += line
        else:
            self.lines.append(line)

    def tail(self, n: int = 6) -> str:
        """What the last ``n`` lines say: those that speak of a failure, or all where none does."""
        last = [line.strip() for line in list(self.lines)[-n:] if line.strip(" .\n")]
        return " | ".join([line for line in last if re.search("error|fail|unable", line, re.IGNORECASE)] or last)

    def find(self, pattern: str) -> list[re.Match[str]]:
        return [match for line in self.lines if (match := re.search(pattern, line))]


_log = _Log()


def write_errors_to(descriptor: int) -> None:
    """From now on write llama.cpp's errors to a file as well: whoever looks at it knows them after an abort."""
    _log.errors = descriptor


def version() -> str:
    """Version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def has_cuda() -> bool:
    """Whether llama.cpp was built for CUDA. Opens no GPU."""
    return any((Path(llama_cpp.__file__).parent / "lib").glob("libggml-cuda*"))


def devices() -> list[Device]:
    """The devices ggml finds, GPUs before the CPU."""
    lib = _ggml.libggml
    handle = ctypes.c_void_p
    lib.ggml_backend_dev_count.restype = ctypes.c_size_t
    for name, restype in (
        ("get", handle),
        ("name", ctypes.c_char_p),
        ("description", ctypes.c_char_p),
        ("type", ctypes.c_int),
    ):
        function = getattr(lib, f"ggml_backend_dev_{name}")
        function.restype = restype
        function.argtypes = [ctypes.c_size_t if name == "get" else handle]
    lib.ggml_backend_dev_memory.argtypes = [handle, ctypes.POINTER(ctypes.c_size_t), ctypes.POINTER(ctypes.c_size_t)]
    found = []
    for i in range(lib.ggml_backend_dev_count()):
        device = lib.ggml_backend_dev_get(i)
        free, total = ctypes.c_size_t(0), ctypes.c_size_t(0)
        lib.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            Device(
                name=lib.ggml_backend_dev_name(device).decode(),
                description=lib.ggml_backend_dev_description(device).decode(),
                # enum ggml_backend_dev_type: CPU 0, GPU 1, IGPU 2, ACCEL 3
                is_gpu=lib.ggml_backend_dev_type(device) in (1, 2),
                free=free.value,
                total=total.value,
            )
        )
    return sorted(found, key=lambda device: not device.is_gpu)


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
        _log.lines.clear()
        llama_cpp.llama_backend_init()
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle and _log.find("failed to allocate|unable to allocate|out of memory"):
            raise DecodeError(f"no memory for the weights of {path}: {_log.tail()}")
        if not self.handle:
            raise UserError(f"llama.cpp cannot load {path}: {_log.tail()}", "convert the checkpoint again")
        if kind := _unsupported(self.handle):
            self.close()
            raise UserError(f"{path} is {kind}", "this engine runs decoders with attention in every layer")
        offloaded = _log.find(r"offloaded (\d+)/(\d+) layers to GPU")
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
        return _token_ids(llama_cpp.llama_model_get_vocab(self.handle), text, special=False, parse=True)


class Vocabulary:
    """llama.cpp's own vocabulary of a GGUF, of which nothing else is read; no device is used.

    Raises:
        UserError: llama.cpp cannot read it, or there is none.
    """

    def __init__(self, path: Path) -> None:
        params = llama_cpp.llama_model_default_params()
        params.vocab_only = True
        params.n_gpu_layers = 0
        _log.lines.clear()
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self._model:
            raise UserError(f"llama.cpp cannot read the vocabulary of {path}: {_log.tail()}")
        self._vocab = llama_cpp.llama_model_get_vocab(self._model)
        if llama_cpp.llama_vocab_type(self._vocab) == llama_cpp.LLAMA_VOCAB_TYPE_NONE:
            raise UserError(f"{path} has no vocabulary of llama.cpp's")

    def encode(self, text: str, *, special: bool, parse: bool) -> list[int]:
        """Token ids of ``text``; many threads may call this at once.

        Args:
            special: add BOS and EOS where the file says so for plain text.
            parse: take the names of special tokens in the text for these tokens.
        """
        return _token_ids(self._vocab, text, special=special, parse=parse)

    def pieces(self) -> list[bytes]:
        """By token its bytes in a text, leading space included; nothing of a special token."""
        return [
            _piece(self._vocab, token, special=False) for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab))
        ]


def _token_ids(vocab: Any, text: str, *, special: bool, parse: bool) -> list[int]:
    data = text.encode()
    size = len(data) + 16
    while True:
        buffer = (llama_cpp.llama_token * size)()
        n = int(llama_cpp.llama_tokenize(vocab, data, len(data), buffer, size, special, parse))
        if n >= 0:
            return list(buffer[:n])
        size = -n  # what llama.cpp says it needs


def _piece(vocab: Any, token: int, *, special: bool) -> bytes:
    """The bytes of ``token`` in a text, leading space included; of a special token its name, or nothing."""
    size = 64
    while True:
        buffer = ctypes.create_string_buffer(size)
        n = int(llama_cpp.llama_token_to_piece(vocab, token, buffer, size, 0, special))
        if n >= 0:
            return buffer.raw[:n]
        size = -n  # what llama.cpp says it needs


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
        kv = sum(float(m[1]) for m in _log.find(r"llama_kv_cache: size =\s*([\d.]+) MiB"))
        compute = [(m[1], float(m[2])) for m in _log.find(r"(\S+)\s+compute buffer size =\s*([\d.]+) MiB")]
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
        _log.lines.clear()
        self._ctx = llama_cpp.llama_init_from_model(model.handle, params)
        if not self._ctx:
            raise DecodeError(f"llama.cpp cannot create a context of {settings.n_cells} cells: {_log.tail()}")
        kinds = ("KV", "compute", "output")
        self.buffers = {
            kind: sum(float(m[1]) for m in _log.find(rf"{kind} buffer size =\s*([\d.]+) MiB")) for kind in kinds
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
            raise DecodeError(f"llama_decode returned {status}: {_log.tail()}")

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
            self._pieces[token] = _piece(self._vocab, token, special=True)
        return self._pieces[token]
