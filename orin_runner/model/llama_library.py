"""llama.cpp as a library: its version, what it was built for, the devices that it finds."""

from __future__ import annotations

import ctypes
import os
import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import llama_cpp
from llama_cpp import _ggml

from orin_runner.model.llama_log import LOG

ELSEWHERE = "LLAMA_CPP_LIB_PATH"
"""Environment variable of llama-cpp-python: the folder that it loads llama.cpp from instead of its own."""

CONTEXT_DEFAULTS = (512, 2048, 512, 1, 1, 1)
"""llama.cpp's n_ctx, n_batch, n_ubatch, n_seq_max, and the types of its cache (GGML_TYPE_F16 is 1)."""


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


def folder() -> Path:
    """Where the bindings look for llama.cpp."""
    return Path(os.environ.get(ELSEWHERE, Path(llama_cpp.__file__).parent / "lib"))


def has_cuda() -> bool:
    """Whether llama.cpp was built for CUDA. Opens no GPU."""
    return any(folder().glob("libggml-cuda*"))


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Bindings and library that may not belong together: what is odd, and whether it is known to be wrong."""

    what: str
    wrong: bool


def mismatch() -> Mismatch | None:
    """What of the bindings and the library that they have loaded does not belong together; None where all does.

    The bindings declare llama.cpp's structures by hand. A library of another version fills them with other fields, so
    its defaults read wrong: those looked at stand in ``llama_context_default_params`` (llama-context.cpp) since 2024.
    """
    params = llama_cpp.llama_context_default_params()
    read = (params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max, params.type_k, params.type_v)
    if read != CONTEXT_DEFAULTS:
        return Mismatch(f"the library is of another version than its bindings: its defaults read {read}", wrong=True)
    package = Path(llama_cpp.__file__).parent
    try:
        installed = distribution("llama-cpp-python")
    except PackageNotFoundError:
        installed = None
    if installed is not None and Path(str(installed.locate_file("llama_cpp"))) == package:
        if installed.version != version():
            return Mismatch(f"installed as {installed.version}, but the bindings are of {version()}", wrong=True)
        for file in installed.files or ():
            path = Path(str(file.locate()))
            if file.size and path.parent == package / "lib" and path.exists() and path.stat().st_size != file.size:
                return Mismatch(f"{path.name} is not the one that was installed", wrong=False)
    for path in _loaded():
        if path.parent != (package / "lib").resolve():
            return Mismatch(f"{path.name} is not the bindings' own but of {path.parent}", wrong=False)
    return None


def _loaded() -> list[Path]:
    """The files of llama.cpp and ggml that are in this process."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    paths = {line.split(maxsplit=5)[5] for line in lines if re.search(r"/lib(llama|ggml)[^/]*\.so[^/]*$", line)}
    return sorted(map(Path, paths))


def architectures() -> tuple[int, ...]:
    """The compute capabilities that its CUDA code was compiled for, 87 for 8.7. Opens the GPU."""
    found = re.search(r"ARCHS = ([\d,]+)", llama_cpp.llama_print_system_info().decode())
    return tuple(int(each) // 10 for each in found[1].split(",") if each) if found else ()


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
