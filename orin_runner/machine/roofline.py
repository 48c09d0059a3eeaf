"""What a model should take on a device by the device's limits: an estimate where nothing has been measured there.

A token of prefill takes three things, one after the other:

    products    2 x values of the model FLOP
    attention   4 x heads x head size x layers FLOP for each token of its context
    kernels     what stands between the products, by the bytes that it reads and writes

A decode step reads every weight once, whatever its batch. The shares of a device's limits that llama.cpp reaches were
measured on an H100 and an H200 in Phi-3-medium's shape (benchmarks/RESULTS.md) and are assumed elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from orin_runner.machine.nvml import NvmlGpu
from orin_runner.model.gguf_file import GGUFFile

PRODUCT_SHARE = 0.70
"""Of the tensor cores' peak: 693 of 989 TFLOP/s, as cuBLAS sustained them. NVML's highest clock of an H100 is 8 % above
that of the peak, so what is assumed of a GPU may be as much too fast."""
ATTENTION_SHARE = 0.085
"""Of that peak: 84 TFLOP/s in MMLU's packed batches, where more than half of what is computed is masked."""
KERNEL_SHARE = 0.50
"""Of the memory's bandwidth that the other kernels move: 60 GB in 25 ms, of an H200's 4.8 TB/s."""
WEIGHT_SHARE = 0.73
"""Of it when all weights are read: 5.4 decode steps of 28 GB a second, as published for an AGX Orin 64GB."""
CORE_FLOPS = 25e9
"""FLOP/s of the products on one core of a CPU with AVX2, 16-bit weights: measured on an AMD EPYC of 2021."""
CORE_BYTES = 5e9
"""Bytes/s of memory that one core gets."""
SM_FLOP = {(7, 0): 1024, (7, 2): 1024, (7, 5): 1024, (8, 0): 2048, (8, 6): 1024, (8, 7): 2048, (8, 9): 1024}
SM_FLOP |= {(9, 0): 4096, (10, 0): 8192, (12, 0): 1024}
"""Dense 16-bit FLOP of an SM's tensor cores in one clock, by compute capability (NVIDIA's architecture papers)."""
SM_CORES = {(7, 0): 64, (7, 2): 64, (7, 5): 64, (8, 0): 64}
"""CUDA cores of an SM where it does not have 128."""
ORIN_BYTES = 204.8e9
"""Bytes/s of an AGX Orin's memory."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a device can do.

    Attributes:
        name: of the device, and of what its power mode is.
        products, attention: FLOP/s.
        kernels, weights: bytes/s of memory that other kernels move, and that a decode step reads.
        basis: what they are derived from.
    """

    name: str
    products: float
    attention: float
    kernels: float
    weights: float
    basis: str

    @classmethod
    def of_tensor_cores(cls, name: str, peak: float, bandwidth: float, basis: str) -> Limits:
        """Those of a GPU with ``peak`` dense 16-bit FLOP/s and ``bandwidth`` bytes/s."""
        products, attention = PRODUCT_SHARE * peak, ATTENTION_SHARE * peak
        return cls(name, products, attention, KERNEL_SHARE * bandwidth, WEIGHT_SHARE * bandwidth, basis)

    def times(self, n: int) -> Limits:
        """Those of ``n`` such devices that share the work."""
        if n == 1:
            return self
        basis = f"{n} x {self.basis}"
        return Limits(self.name, n * self.products, n * self.attention, n * self.kernels, n * self.weights, basis)

    @classmethod
    def of_cpu(cls, n_threads: int) -> Limits:
        """Those assumed of ``n_threads`` cores."""
        flops, memory = n_threads * CORE_FLOPS, n_threads * CORE_BYTES
        basis = f"assumed: {CORE_FLOPS / 1e9:.0f} GFLOP/s and {CORE_BYTES / 1e9:.0f} GB/s a core"
        return cls("CPU", flops, flops, memory, memory, basis)


def gpu_limits(gpu: NvmlGpu) -> Limits | None:
    """Those of a GPU by its cores, clocks and bus; None where NVML or this table does not know one of them."""
    capability, cores, mhz = gpu.capability(), gpu.cores(), gpu.most_sm_mhz()
    bandwidth = gpu.bandwidth()
    if capability not in SM_FLOP or not cores or not mhz or not bandwidth:
        return None
    sms = cores // SM_CORES.get(capability, 128)
    peak = sms * SM_FLOP[capability] * mhz * 1e6
    basis = f"{sms} SMs x {SM_FLOP[capability]:,} FLOP x {mhz:g} MHz = {peak / 1e12:.0f} TFLOP/s"
    return Limits.of_tensor_cores(gpu.name, peak, bandwidth, f"assumed: {basis}, {bandwidth / 1e9:,.0f} GB/s")


def orin_mode(name: str, sms: int, mhz: float) -> Limits:
    """A power mode of an AGX Orin: SMs x 2,048 FLOP x clock."""
    peak = sms * SM_FLOP[8, 7] * mhz * 1e6
    basis = f"{sms} SMs x {SM_FLOP[8, 7]:,} FLOP x {mhz:g} MHz = {peak / 1e12:.1f} TFLOP/s, {ORIN_BYTES / 1e9} GB/s"
    return Limits.of_tensor_cores(name, peak, ORIN_BYTES, basis)


ORIN_MODES = {
    "orin-32gb": (
        orin_mode("MAXN", 14, 930.75),
        orin_mode("40W", 14, 816),
        orin_mode("30W", 8, 612),
        orin_mode("15W", 6, 408),
    ),
    "orin-64gb": (orin_mode("MAXN", 16, 1300.5),),
}
"""The power modes of the devices that are known and not here (``devices.KNOWN``), as ``nvpmodel`` numbers them for
JetPack 6, the fastest first; 30W is the default. Of the 64GB module only MAXN's clock and SMs are at hand."""


@dataclass(frozen=True, slots=True)
class TokenCost:
    """What a token of a model takes.

    Attributes:
        products: FLOP.
        attention: FLOP for each token of its context.
        kernels: bytes read and written between the products.
        weights: bytes of all weights.
    """

    products: float
    attention: float
    kernels: float
    weights: int

    @classmethod
    def of(cls, file: GGUFFile) -> TokenCost:
        """Those of a GGUF.

        Bytes of the kernels, of a layer with E values of the residual stream, F of the feed-forward part, Q of the
        queries and K of the keys, in F32 and 16 bit: two norms 16 E, the operands of four products 12 E + 6 Q + 6 F,
        RoPE and cache 8 Q + 20 K, attention's ends 8 Q, the gate 12 F, two additions 24 E.
        """
        sizes = file.sizes
        e, f, layers = sizes.embedding_length, sizes.feed_forward_length, sizes.block_count
        q, k = sizes.head_count * sizes.head_size, (sizes.head_count_kv or sizes.head_count) * sizes.head_size
        values = sum(prod(tensor.shape) for tensor in file.header.tensors)
        return cls(2.0 * values, 4.0 * q * layers, float(layers * (52 * e + 22 * q + 20 * k + 18 * f)), file.data_bytes)

    def token_s(self, limits: Limits, context: float) -> float:
        """Seconds of a token of prefill with ``context`` tokens before it."""
        attention = self.attention * context / limits.attention
        return self.products / limits.products + attention + self.kernels / limits.kernels

    def step_s(self, limits: Limits) -> float:
        """Seconds of a decode step, which all texts of a batch share."""
        return self.weights / limits.weights
