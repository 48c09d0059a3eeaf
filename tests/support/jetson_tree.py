"""The files of a Jetson AGX Orin 32GB below a folder, in the documented formats. None was recorded on a device.

The formats are those of NVIDIA's Jetson Linux developer guide and of the kernel's documentation; the modes are those of
module p3701-0004. Links are absolute where they are so on a board.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GPU = "/sys/devices/platform/17000000.gpu"
CLOCK = f"{GPU}/devfreq_dev"
CHIP_HZ = 930_750_000
MODES = (("MAXN", -1, 0), ("MODE_15W", 408_000_000, 4), ("MODE_30W", 612_000_000, 3), ("MODE_40W", 816_000_000, 0))
"""Name, most of the GPU's clock in Hz, TPCs switched off, by number: 6, 8 and 14 SMs are on."""
CONF = "/etc/nvpmodel/nvpmodel_p3701_0004.conf"


def mask(gated: int) -> int:
    """A mask of so many TPCs."""
    return (1 << gated) - 1


def nvpmodel_conf(clock: str = CLOCK) -> str:
    """nvpmodel's file of the module."""
    modes = [
        f"< POWER_MODEL ID={number} NAME={name} >\nCPU_ONLINE CORE_0 1\nCPU_ONLINE CORE_1 1\n"
        f"TPC_POWER_GATING TPC_PG_MASK {mask(gated)}\nGPU_POWER_CONTROL_ENABLE GPU_PWR_CNTL_EN on\n"
        f"CPU_A78_0 MIN_FREQ 729600\nCPU_A78_0 MAX_FREQ -1\nGPU MIN_FREQ 0\nGPU MAX_FREQ {hz}\nEMC MAX_FREQ 0\n"
        for number, (name, hz, gated) in enumerate(MODES)
    ]
    return (
        "#\n# Copyright (c) NVIDIA CORPORATION\n#\n# FORMAT:\n# < PARAM TYPE=PARAM_TYPE NAME=PARAM_NAME >\n"
        "# ARG1_NAME ARG1_PATH_VAL\n"
        "< PARAM TYPE=FILE NAME=CPU_ONLINE >\nCORE_0 /sys/devices/system/cpu/cpu0/online\n\n"
        f"< PARAM TYPE=FILE NAME=TPC_POWER_GATING >\nTPC_PG_MASK {GPU}/tpc_pg_mask\n\n"
        "< PARAM TYPE=CLOCK NAME=CPU_A78_0 >\nMAX_FREQ /sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq\n\n"
        f"< PARAM TYPE=CLOCK NAME=GPU >\nFREQ_TABLE {clock}/available_frequencies\nMAX_FREQ {clock}/max_freq\n"
        f"MIN_FREQ {clock}/min_freq\n\n" + "\n".join(modes) + "\n# mandatory section\n< PM_CONFIG DEFAULT=2 >\n"
    )


def meminfo(**mib: int) -> str:
    """``/proc/meminfo`` of a headless board under JetPack 6; sizes in MiB, huge pages as their number."""
    found = {"MemTotal": 30_697, "MemFree": 27_900, "MemAvailable": 29_300, "Buffers": 60, "Cached": 1_400, **mib}
    huge = found.pop("HugePages_Total", 0)
    lines = [f"{name}:{size * 1024:>15} kB" for name, size in found.items()]
    return "\n".join(
        (*lines, f"HugePages_Total:{huge:>8}", f"HugePages_Free:{huge:>9}", "Hugepagesize:       2048 kB\n")
    )


def jetson_tree(
    root: Path,
    *,
    mode: int = 0,
    l4t: str = "36.3.0",
    locked: bool = True,
    memory: Mapping[str, int] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """A board in that power mode.

    Args:
        root: the folder.
        mode: number of its power mode.
        l4t: its release.
        locked: jetson_clocks has been called.
        memory: what of ``meminfo`` is otherwise.
        files: content of further files, or of these, by name: a path without its first ``/``.
    """
    _, hz, gated = MODES[mode]
    most = CHIP_HZ if hz < 0 else hz
    major, _, revision = l4t.partition(".")
    known = {
        "proc/device-tree/model": "NVIDIA Jetson AGX Orin Developer Kit\0",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0004\0nvidia,p3701-0004\0nvidia,tegra234\0",
        "etc/nv_tegra_release": f"# R{major} (release), REVISION: {revision}, GCID: 36923193, BOARD: generic, "
        "EABI: aarch64, DATE: Fri Jul 19 23:24:25 UTC 2024\n# KERNEL_VARIANT: oot\nTARGET_USERSPACE_LIB_DIR=nvidia\n",
        "usr/local/cuda-12.2/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.2.20230823"}}',
        CONF[1:]: nvpmodel_conf(),
        "var/lib/nvpmodel/status": f"pmode:{mode:04d}\n",
        f"{CLOCK[1:]}/available_frequencies": f"306000000 408000000 612000000 816000000 {CHIP_HZ}\n",
        f"{CLOCK[1:]}/max_freq": f"{most}\n",
        f"{CLOCK[1:]}/min_freq": f"{most if locked else 306_000_000}\n",
        f"{GPU[1:]}/tpc_pg_mask": f"{mask(gated)}\n",
        "proc/meminfo": meminfo(**(memory or {})),
        "proc/swaps": "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n",
        "proc/1/comm": "systemd\n",
        "sys/class/thermal/cooling_device0/type": "pwm-fan\n",
        "sys/class/thermal/cooling_device0/cur_state": "2\n",
        "sys/class/thermal/cooling_device1/type": "gpu-throttle-alert\n",
        "sys/class/thermal/cooling_device1/cur_state": "0\n",
        "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
        **(files or {}),
    }
    for name, content in known.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    for link, target in (("etc/nvpmodel.conf", CONF), ("usr/local/cuda", "/usr/local/cuda-12.2")):
        (root / link).symlink_to(target)
    return root
