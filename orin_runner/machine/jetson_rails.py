"""The power of a Jetson module, from the INA3221 monitors on its power rails.

Files and units follow the kernel's ``Documentation/hwmon/ina3221.rst`` (mV, mA), rail names its device trees of the
Orin modules. This has not been tried on a device.
"""

from __future__ import annotations

from pathlib import Path

INA3221 = Path("/sys/bus/i2c/drivers/ina3221")
"""The driver's folder in sysfs."""
MODULE_RAILS = (("VDD_IN",), ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
"""Rails whose sum is a module's power: Orin NX and Nano measure their input; an AGX Orin its three inputs, of which the
5 V one is taken to feed the memory, too (``VDDQ_VDD2_1V8AO``, not added). Other boards' sums are not known here."""


class Rails:
    """The power rails of a Jetson module.

    Args:
        rails: by label, the files of voltage (mV) and current (mA).

    Attributes:
        source: what was added up, as shown.
    """

    def __init__(self, rails: dict[str, tuple[Path, Path]]) -> None:
        self._files = list(rails.values())
        self.source = f"INA3221 {' + '.join(rails)}"

    @classmethod
    def find(cls, root: Path = INA3221) -> Rails | None:
        """The rails that make up a module's power; None where there are none, or others than are known here."""
        found: dict[str, tuple[Path, Path]] = {}
        # Inputs 4 to 7 are shunt voltages and their sum; a disabled channel has no label, or "NC".
        for label in sorted(root.glob("*/hwmon/hwmon*/in[123]_label")):
            number = label.name[2]
            files = (label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input"))
            found[label.read_text(encoding="ascii", errors="replace").strip()] = files
        for names in MODULE_RAILS:
            if all(name in found for name in names):
                return cls({name: found[name] for name in names})
        return None

    def watts(self) -> float | None:
        """Power of the module in W; None where one of its rails cannot be read."""
        try:
            values = [[int(file.read_text(encoding="ascii")) for file in files] for files in self._files]
        except (OSError, ValueError):
            return None
        return sum(millivolts * milliamperes for millivolts, milliamperes in values) / 1e6
