"""Checks of llama.cpp, the GPUs that it is for, and variables that it or CUDA act on."""

from __future__ import annotations

import re

from orin_runner.console import listed
from orin_runner.machine.diagnosis import Check, Machine, Verdict
from orin_runner.machine.nvml import VISIBLE
from orin_runner.model.llama_library import ELSEWHERE

UNIFIED = "GGML_CUDA_ENABLE_UNIFIED_MEMORY"
PEERS = "GGML_CUDA_P2P"
QUEUES = "CUDA_SCALE_LAUNCH_QUEUES"
BF16_FROM = (8, 0)
"""Compute capability from which llama.cpp multiplies BF16 as such (``fast_bf16_hardware_available``): Ampere's."""


def build_command(machine: Machine) -> str:
    """Builds llama.cpp with CUDA for the machine's GPUs. Without ``CUDACXX`` a build silently has the CPU alone."""
    known = sorted({10 * major + minor for major, minor in machine.capabilities.values()})
    architectures = ";".join(map(str, known)) or "native"
    return (
        f"CUDACXX=/usr/local/cuda/bin/nvcc CMAKE_ARGS='-DGGML_CUDA=ON -DGGML_CUDA_NO_VMM=ON "
        f"-DCMAKE_CUDA_ARCHITECTURES={architectures}' pip install --force-reinstall --no-deps --no-cache-dir "
        f"--no-binary llama-cpp-python llama-cpp-python=={machine.library.version}"
    )


def device(machine: Machine) -> Check | None:
    """What there is to compute on, where it is no Jetson."""
    if machine.board is not None:
        return None
    if machine.gpus:
        return Check("device", ", ".join(f"GPU {gpu.id} {gpu.name}{_dotted(gpu.capability)}" for gpu in machine.gpus))
    if machine.has_gpu:
        return Check("device", "a GPU that the driver's management library does not show")
    hidden = f" ({VISIBLE}={machine.environment[VISIBLE]})" if VISIBLE in machine.environment else ""
    return Check("device", f"CPU: the NVIDIA driver shows no GPU{hidden}")


def built_with_cuda(machine: Machine) -> Check:
    """Whether llama.cpp can use the GPU; or has none to use."""
    name, built = "library", f"llama-cpp-python {machine.library.version}, built"
    # What a container hides of the driver, and parts of a GPU (MIG), CUDA alone knows.
    nodes = bool(machine.tree.matching("/dev/nvidia[0-9]*"))
    if not machine.library.cuda:
        if machine.has_gpu or (nodes and VISIBLE not in machine.environment):
            return Check(name, f"{built} without CUDA: it computes on the CPU", Verdict.SLOWER, build_command(machine))
        return Check(name, f"{built} without CUDA")
    if machine.has_gpu or not machine.tree.is_here:
        return Check(name, f"{built} with CUDA")
    fact = f"{built} with CUDA, but there is no GPU: it computes on the CPU"
    verdict = Verdict.UNKNOWN if nodes and machine.seen is None else Verdict.SLOWER
    return Check(name, fact, verdict, f"unset {VISIBLE}" if VISIBLE in machine.environment else "nvidia-smi")


def versions(machine: Machine) -> Check:
    """Whether bindings and library belong together."""
    found = machine.library.mismatch
    if found is None:
        return Check("versions", "bindings and library belong together")
    command = f"unset {ELSEWHERE}" if ELSEWHERE in machine.environment else build_command(machine)
    if not machine.has_gpu and ELSEWHERE not in machine.environment:
        command = f"pip install --force-reinstall --no-deps llama-cpp-python=={machine.library.version}"
    return Check("versions", found.what, Verdict.FAILS if found.wrong else Verdict.UNKNOWN, command)


def architectures(machine: Machine) -> Check | None:
    """Whether the CUDA code was compiled for these GPUs: code for a lower minor version runs, all else needs PTX."""
    seen = machine.seen
    if seen is None or not seen.architectures or not machine.capabilities:
        return None
    name, compiled = "architectures", f"compiled for {listed([_of(each) for each in seen.architectures])}"
    for gpu, (major, minor) in machine.capabilities.items():
        usable = [each for each in seen.architectures if each <= 10 * major + minor]
        fact = f"{compiled}; {gpu} has {major}.{minor}"
        if not usable:
            return Check(name, fact, Verdict.FAILS, build_command(machine))
        if max(usable) // 10 < major:
            return Check(name, f"{fact}: code of an older generation", Verdict.SLOWER, build_command(machine))
    return Check(name, f"{compiled}: for these GPUs")


def offload(machine: Machine) -> Check | None:
    """Whether llama.cpp finds the GPUs and puts every layer on them."""
    seen = machine.seen
    if seen is None or not (machine.has_gpu or seen.failure):
        return None
    gpus = [f"{each.name} ({each.description})" for each in seen.devices if each.is_gpu]
    if seen.failure is not None:
        return Check("offload", f"llama.cpp finds no GPU: {seen.failure}", Verdict.FAILS, "nvidia-smi")
    if not gpus:
        return Check("offload", "llama.cpp finds no GPU: it computes on the CPU", Verdict.SLOWER, "nvidia-smi")
    if seen.gpu_layers is None or seen.n_layers is None:
        return Check("offload", f"llama.cpp finds {listed(gpus)}")
    fact = f"{seen.gpu_layers} of {seen.n_layers} layers on {listed(gpus)}"
    if seen.gpu_layers < seen.n_layers:
        return Check("offload", f"{fact}, the others on the CPU", Verdict.SLOWER, build_command(machine))
    return Check("offload", fact)


def bf16(machine: Machine) -> Check | None:
    """Whether a GPU computes the model's BF16 in F32."""
    if machine.file is None or "BF16" not in machine.file.tensor_types or not machine.capabilities:
        return None
    slow = [f"{gpu}{_dotted(each)}" for gpu, each in machine.capabilities.items() if each < BF16_FROM]
    if not slow:
        return Check("BF16", "computed as such")
    fact = f"{listed(slow)} has no BF16: llama.cpp computes it in F32"
    return Check("BF16", fact, Verdict.SLOWER, "orin-run convert --outtype f16 CHECKPOINT OUT.gguf")


def pinned(machine: Machine) -> Check | None:
    """Whether somebody chose among several GPUs."""
    chosen = machine.environment.get(VISIBLE)
    if machine.gpus and chosen is not None:
        return Check("visible GPUs", f"{VISIBLE}={chosen}")
    if len(machine.gpus) < 2:
        return None
    ids = ", ".join(gpu.id for gpu in machine.gpus)
    fact = f"nobody pinned the GPUs {ids}: a run takes all of them, whoever else computes there"
    return Check("visible GPUs", fact, Verdict.UNKNOWN, f"export {VISIBLE}={machine.gpus[0].id}")


def unified_memory(machine: Machine) -> Check | None:
    """CUDA's unified memory, which a mere mention of the variable turns on.

    On GPUs with memory of their own it "hurts performance" (llama.cpp's docs/build.md). What it costs a Jetson is not
    known.
    """
    if UNIFIED not in machine.environment or not machine.has_gpu:
        return None
    fact = f"{UNIFIED} is set, which turns managed memory on whatever its value"
    if machine.board is None:
        fact = f"{fact}: pages move while the GPU waits, and llama.cpp takes the host's free memory for the GPU's"
    verdict = Verdict.UNKNOWN if machine.board is not None else Verdict.SLOWER
    return Check("unified memory", fact, verdict, f"unset {UNIFIED}")


def launch_queues(machine: Machine) -> Check | None:
    """More than one launch queue's size: llama.cpp's decoding has hung on an AGX Orin with 2x and 4x."""
    value = machine.environment.get(QUEUES)
    if value is None or machine.board is None:
        return None
    scale = re.match(r"\s*(\d*\.?\d+)", value)
    if scale is None or float(scale[1]) <= 1:
        return Check("launch queues", f"{QUEUES}={value}")
    return Check("launch queues", f"{QUEUES}={value}: llama.cpp hangs on an AGX Orin", Verdict.FAILS, f"unset {QUEUES}")


def peer_access(machine: Machine) -> Check | None:
    """Peer access between GPUs, which a mere mention of the variable turns on."""
    if PEERS not in machine.environment or len(machine.gpus) < 2:
        return None
    fact = f"{PEERS} is set, which turns peer access on whatever its value: on some mainboards it crashes or corrupts"
    return Check("peer access", fact, Verdict.UNKNOWN, f"unset {PEERS}")


def throttling(machine: Machine) -> Check | None:
    """What slows NVIDIA GPUs down at this moment."""
    if not machine.gpus:
        return None
    slow = [f"GPU {gpu.id}: {listed(list(gpu.throttled))}" for gpu in machine.gpus if gpu.throttled]
    if not slow:
        return Check("throttling", "none now")
    return Check("throttling", "; ".join(slow), Verdict.SLOWER, "nvidia-smi -q -d PERFORMANCE,TEMPERATURE,POWER")


def _of(architecture: int) -> str:
    return f"{architecture // 10}.{architecture % 10}"


def _dotted(capability: tuple[int, int] | None) -> str:
    return "" if capability is None else f" ({capability[0]}.{capability[1]})"
