"""llama.cpp's ways to read the weights, from the disk and from the page cache, alone and two GPUs at once.

    python -m benchmarks.load_modes FILE.gguf [GPUS]

With ``GPUS``, such as 0123, the file is not forgotten: one GPU, then these at once. Each load is a process of its own.
Before a load "from disk" the kernel is asked to forget the file's pages. The bytes that a process read from the disk
are those of ``/proc/self/io``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from orin_runner.model import llama, llama_library
from orin_runner.model.llama import LoadMode


def forget(path: Path) -> None:
    """Ask the kernel to drop the file's pages."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def load(path: Path, mode: LoadMode) -> None:
    """Load, in this process, and print what it took."""
    llama_library.devices()  # CUDA's own start is not the load's
    before = time.perf_counter()
    with llama.Model(path, mode=mode):
        seconds = time.perf_counter() - before
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines())
    print(json.dumps({"seconds": seconds, "read": int(counters["read_bytes"])}))


def loads(path: Path, mode: LoadMode, gpus: str) -> str:
    """Load on each of ``gpus`` at once; seconds of each, and GB read by all."""
    command = [sys.executable, __file__, str(path), mode.name]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": gpu})
        for gpu in gpus
    ]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    seconds = ", ".join(f"{one['seconds']:.1f}" for one in found)
    return f"{seconds} s, {sum(one['read'] for one in found) / 1e9:.1f} GB from the disk"


def main() -> None:
    path = Path(sys.argv[1])
    if len(sys.argv) > 2 and sys.argv[2] in LoadMode.__members__:
        load(path, LoadMode[sys.argv[2]])
        return
    if len(sys.argv) > 2:
        for mode in (LoadMode.MAP, LoadMode.READ):
            for gpus in ("0", sys.argv[2]):
                print(f"{mode.name} on GPUs {gpus} from memory: {loads(path, mode, gpus)}", flush=True)
        return
    print(f"{path.stat().st_size / 1e9:.1f} GB; llama-cpp-python {llama_library.version()}")
    for mode in LoadMode:
        forget(path)
        print(f"{mode.name}: from disk {loads(path, mode, '0')}", flush=True)
        print(f"{mode.name}: once more {loads(path, mode, '0')}", flush=True)
    forget(path)
    print(f"MAP on two GPUs at once: from disk {loads(path, LoadMode.MAP, '01')}", flush=True)


if __name__ == "__main__":
    main()
