"""llama.cpp as a library: its version, what it was built for, the devices that it finds."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
from llama_cpp import _ggml

from orin_runner.model.llama_log import LOG


@dataclass(frozen=True, slots=True)
class Device:
    """One ggml device. ``free`` and ``total`` are bytes, as its driver reports them (0 where it reports none)."""

    name: str
    description: str
    is_gpu: bool
    free: int
    total: int


def version() -> str:
    """Version of llama-cpp-python."""
    return str(llama_cpp.__version__)


def has_cuda() -> bool:
    """Whether llama.cpp was built for CUDA. Opens no GPU."""
    return any((Path(llama_cpp.__file__).parent / "lib").glob("libggml-cuda*"))


def devices() -> list[Device]:
    """The devices ggml finds, GPUs before the CPU."""
    LOG.listen()  # CUDA says what it finds
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
