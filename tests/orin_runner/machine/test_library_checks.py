"""Checks of llama.cpp, of GPUs with memory of their own, and of variables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orin_runner.machine.checks import diagnose
from orin_runner.machine.diagnosis import Check, Library, Machine, Seen, Verdict, VisibleGpu
from orin_runner.machine.host_memory import HostMemory
from orin_runner.machine.library_checks import PEERS, QUEUES, UNIFIED
from orin_runner.machine.nvml import VISIBLE
from orin_runner.machine.tree import Tree
from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.llama_library import ELSEWHERE, Device, Mismatch, mismatch
from tests.support.jetson_tree import jetson_tree
from tests.support.machines import said
from tests.support.nvml import FakeNvml, gpu
from tests.support.shapes import PHI3_MEDIUM, header_only

H100 = VisibleGpu("0", "NVIDIA H100 80GB HBM3", (9, 0))
V100 = VisibleGpu("1", "Tesla V100-SXM2-32GB", (7, 0))
CUDA = Library("0.3.36", cuda=True)
CPU_DEVICE = Device("CPU", "a processor", is_gpu=False, free=0, total=0)
GPU_DEVICE = Device("CUDA0", "NVIDIA H100 80GB HBM3", is_gpu=True, free=1 << 36, total=1 << 36)


def machine(*gpus: VisibleGpu, library: Library = CUDA, **environment: str) -> Machine:
    """This one, as if it had these GPUs."""
    return Machine(Tree(), None, HostMemory(), library, gpus, environment)


@pytest.fixture
def orin(tmp_path: Path) -> Machine:
    """A Jetson, with a library that was built with CUDA."""
    return replace(Machine.read(Tree(jetson_tree(tmp_path / "board"))), library=CUDA, environment={})


class TestLibrary:
    """Whether llama.cpp uses the GPU at all."""

    def test_without_cuda_on_a_jetson(self, orin: Machine) -> None:
        """The build names the board's compute capability, and CUDACXX: without it pip builds for the CPU again."""
        check = said(replace(orin, library=Library("0.3.36", cuda=False)), "library")
        assert check.verdict is Verdict.SLOWER
        assert check.fact == "llama-cpp-python 0.3.36, built without CUDA: it computes on the CPU"
        assert check.command is not None
        for part in ("CUDACXX=/usr/local/cuda/bin/nvcc", "CUDA_ARCHITECTURES=87'", "llama-cpp-python==0.3.36"):
            assert part in check.command

    def test_without_cuda_beside_other_gpus(self) -> None:
        check = said(machine(H100, V100, library=Library("0.3.36", cuda=False)), "library")
        assert check.verdict is Verdict.SLOWER
        assert "-DCMAKE_CUDA_ARCHITECTURES=70;90'" in str(check.command)

    def test_without_cuda_where_there_is_no_gpu(self, tmp_path: Path) -> None:
        bare = replace(machine(library=Library("0.3.36", cuda=False)), tree=Tree(tmp_path))
        assert said(bare, "library") == Check("library", "llama-cpp-python 0.3.36, built without CUDA")
        assert said(bare, "device").fact == "CPU: the NVIDIA driver shows no GPU"
        (tmp_path / "dev").mkdir()
        (tmp_path / "dev" / "nvidia0").touch()
        assert said(bare, "library").verdict is Verdict.SLOWER, "a GPU that NVML does not show"

    def test_with_cuda_and_no_gpu(self) -> None:
        """What llama.cpp itself finds decides."""
        found = said(replace(machine(), seen=Seen(devices=(CPU_DEVICE,))), "library")
        assert (found.verdict, found.command) == (Verdict.SLOWER, "nvidia-smi")
        hidden = said(replace(machine(**{VISIBLE: ""}), seen=Seen(devices=(CPU_DEVICE,))), "library")
        assert (hidden.verdict, hidden.command) == (Verdict.SLOWER, f"unset {VISIBLE}")
        seen = replace(machine(), seen=Seen(devices=(GPU_DEVICE, CPU_DEVICE)))
        assert said(seen, "library").verdict is Verdict.OK

    @pytest.mark.parametrize(
        ("compiled", "verdict"),
        [
            ((90,), Verdict.OK),
            ((70, 90), Verdict.OK),
            ((70, 80), Verdict.SLOWER),
            ((100,), Verdict.FAILS),
            ((), None),
        ],
    )
    def test_compute_capabilities(self, compiled: tuple[int, ...], verdict: Verdict | None) -> None:
        """Of an H100: its own, an older generation's, a newer one's alone; and a library that does not say."""
        found = replace(machine(H100), seen=Seen(compiled, (GPU_DEVICE,)))
        lines = [check for check in diagnose(found) if check.name == "architectures"]
        assert [check.verdict for check in lines] == ([] if verdict is None else [verdict])
        for check in lines:
            assert (check.command is None) == (verdict is Verdict.OK)
            assert verdict is Verdict.OK or "-DCMAKE_CUDA_ARCHITECTURES=90'" in str(check.command)

    def test_orin_is_8_7(self, orin: Machine) -> None:
        assert said(replace(orin, seen=Seen((80, 86), (GPU_DEVICE,))), "architectures").verdict is Verdict.OK
        wrong = said(replace(orin, seen=Seen((90,), (GPU_DEVICE,))), "architectures")
        assert wrong.fact == "compiled for 9.0; the board's GPU has 8.7"
        assert wrong.verdict is Verdict.FAILS

    def test_offload(self) -> None:
        """All layers, some, no GPU found, and a process that died."""
        cases = [
            (Seen(devices=(GPU_DEVICE,), gpu_layers=41, n_layers=41), Verdict.OK, "41 of 41 layers on CUDA0"),
            (Seen(devices=(GPU_DEVICE,), gpu_layers=30, n_layers=41), Verdict.SLOWER, "30 of 41 layers on CUDA0"),
            (Seen(devices=(GPU_DEVICE,)), Verdict.OK, "llama.cpp finds CUDA0"),
            (Seen(devices=(CPU_DEVICE,)), Verdict.SLOWER, "llama.cpp finds no GPU: it computes on the CPU"),
            (Seen(failure="CUDA error: no kernel"), Verdict.FAILS, "llama.cpp finds no GPU: CUDA error: no kernel"),
        ]
        for seen, verdict, fact in cases:
            check = said(replace(machine(H100), seen=seen), "offload")
            assert check.verdict is verdict
            assert check.fact.startswith(fact)
            assert (check.command is None) == (verdict is Verdict.OK)


class TestVersions:
    """Bindings and a library that do not belong together."""

    def test_this_environments_do(self) -> None:
        assert mismatch() is None

    def test_defaults_that_read_wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where the library has other fields: n_ctx reads what another field is."""
        params = llama_library.llama_cpp.llama_context_default_params()
        params.n_batch = 0
        monkeypatch.setattr(llama_library.llama_cpp, "llama_context_default_params", lambda: params)
        found = mismatch()
        assert found is not None
        assert found.wrong

    def test_installed_as_another_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Bindings of one version, copied over another's."""
        monkeypatch.setattr(llama_library.llama_cpp, "__version__", "0.2.90")
        found = mismatch()
        assert found is not None
        assert found.wrong
        assert "0.2.90" in found.what

    def test_a_library_that_was_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """It is not of the size that was installed."""
        real = llama_library.distribution("llama-cpp-python")
        (file,) = [file for file in real.files or () if file.name == "libllama.so" and file.parts[0] == "llama_cpp"]
        other = SimpleNamespace(name=file.name, size=(file.size or 0) + 1, locate=file.locate)
        changed = SimpleNamespace(version=real.version, files=[other], locate_file=real.locate_file)
        monkeypatch.setattr(llama_library, "distribution", lambda name: changed)
        assert mismatch() == Mismatch("libllama.so is not the one that was installed", wrong=False)

    def test_verdicts(self) -> None:
        """What is wrong fails; what is odd is unknown. Each names how to get back."""
        odd, wrong = Mismatch("of another folder", wrong=False), Mismatch("of another version", wrong=True)
        cases = [
            (machine(H100, library=Library("0.3.36", True, wrong)), Verdict.FAILS, "CUDACXX="),
            (machine(library=Library("0.3.36", False, wrong)), Verdict.FAILS, "pip install --force-reinstall"),
            (
                machine(library=Library("0.3.36", False, odd), **{ELSEWHERE: "/opt"}),
                Verdict.UNKNOWN,
                f"unset {ELSEWHERE}",
            ),
        ]
        for found, verdict, command in cases:
            check = said(found, "versions")
            assert check.verdict is verdict
            assert str(check.command).startswith(command)


class TestGpus:
    """GPUs with memory of their own, as their driver shows them."""

    def test_what_nvml_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Names, compute capabilities and throttling; one without memory of its own is left out."""
        monkeypatch.delenv(VISIBLE, raising=False)
        reasons = FakeNvml().nvmlClocksEventReasonSwThermalSlowdown
        nvml = FakeNvml(gpu(0, reasons=reasons), gpu(1, memory=None), gpu(2, capability=None))
        found = Machine.read(Tree(), nvml=nvml)
        assert found.gpus == (
            VisibleGpu("0", "NVIDIA H100 80GB HBM3", (9, 0), ("thermal",)),
            VisibleGpu("2", "NVIDIA H100 80GB HBM3"),
        )
        assert nvml.opened == 0
        assert said(found, "device").fact == "GPU 0 NVIDIA H100 80GB HBM3 (9.0), GPU 2 NVIDIA H100 80GB HBM3"

    def test_throttling(self) -> None:
        slow = replace(H100, throttled=("thermal", "hardware"))
        check = said(machine(slow, V100), "throttling")
        assert check.fact == "GPU 0: thermal and hardware"
        assert check.verdict is Verdict.SLOWER
        assert str(check.command).startswith("nvidia-smi")
        assert said(machine(H100), "throttling") == Check("throttling", "none now")

    def test_several_that_nobody_pinned(self) -> None:
        check = said(machine(H100, V100), "visible GPUs")
        assert (check.verdict, check.command) == (Verdict.UNKNOWN, f"export {VISIBLE}=0")
        assert said(machine(H100, V100, **{VISIBLE: "0,1"}), "visible GPUs").verdict is Verdict.OK
        assert not [check for check in diagnose(machine(H100)) if check.name == "visible GPUs"]

    def test_bf16_before_ampere(self, tmp_path: Path, orin: Machine, tiny_gguf: Path) -> None:
        """An H100 and an Orin multiply BF16 as such, a V100 does not; an F16 file has none."""
        file = GGUFFile.open(header_only(tmp_path / "m.gguf", PHI3_MEDIUM))
        for found in (machine(H100), orin):
            assert said(replace(found, file=file), "BF16").verdict is Verdict.OK
        slow = said(replace(machine(H100, V100), file=file), "BF16")
        assert slow.fact == "Tesla V100-SXM2-32GB (7.0) has no BF16: llama.cpp computes it in F32"
        assert slow.verdict is Verdict.SLOWER
        assert "--outtype f16" in str(slow.command)
        other = GGUFFile.open(tiny_gguf)
        expected = "BF16" in other.tensor_types
        lines = [check for check in diagnose(replace(machine(V100), file=other)) if check.name == "BF16"]
        assert bool(lines) == expected


class TestVariables:
    """Those that bite; each by what makes it bite, and where."""

    @pytest.mark.parametrize("value", ["1", "0", ""])
    def test_unified_memory(self, orin: Machine, value: str) -> None:
        """By presence: 0 turns it on, too. What it costs a Jetson nobody has measured."""
        for found, verdict in (
            (replace(orin, environment={UNIFIED: value}), Verdict.UNKNOWN),
            (machine(H100, **{UNIFIED: value}), Verdict.SLOWER),
        ):
            check = said(found, "unified memory")
            assert (check.verdict, check.command) == (verdict, f"unset {UNIFIED}")
        assert not [check for check in diagnose(machine(**{UNIFIED: value})) if check.name == "unified memory"]

    @pytest.mark.parametrize(
        ("value", "verdict"),
        [("2x", Verdict.FAILS), ("4x", Verdict.FAILS), ("1x", Verdict.OK), ("0.25x", Verdict.OK), ("auto", Verdict.OK)],
    )
    def test_launch_queues(self, orin: Machine, value: str, verdict: Verdict) -> None:
        """Only on a Jetson; on several other GPUs it is worth having."""
        check = said(replace(orin, environment={QUEUES: value}), "launch queues")
        assert check.verdict is verdict
        assert check.command == (f"unset {QUEUES}" if verdict is Verdict.FAILS else None)
        assert not [
            check for check in diagnose(machine(H100, V100, **{QUEUES: value})) if check.name == "launch queues"
        ]

    def test_peer_access(self) -> None:
        """By presence, where there are two GPUs."""
        check = said(machine(H100, V100, **{PEERS: "0"}), "peer access")
        assert (check.verdict, check.command) == (Verdict.UNKNOWN, f"unset {PEERS}")
        assert not [check for check in diagnose(machine(H100, **{PEERS: "1"})) if check.name == "peer access"]
