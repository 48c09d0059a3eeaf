"""The power rails of a Jetson, as its driver shows them in sysfs."""

from __future__ import annotations

from pathlib import Path

AGX_ORIN = {
    "1-0040": [("VDD_GPU_SOC", 19000, 1000), ("VDD_CPU_CV", 18500, 200), ("VIN_SYS_5V0", 5000, 900)],
    "1-0041": [("NC", 0, 0), ("VDDQ_VDD2_1V8AO", 5000, 300), ("NC", 0, 0)],
}
"""Labels as the kernel's device tree of the module has them; mV and mA. 19 + 3.7 + 4.5 W."""


def rails(root: Path, chips: dict[str, list[tuple[str, int, int]]]) -> Path:
    """The driver's folder in sysfs, its chips links into the device tree as there."""
    driver = root / "drivers" / "ina3221"
    driver.mkdir(parents=True)
    for chip, (name, channels) in enumerate(chips.items()):
        folder = root / "devices" / name / "hwmon" / f"hwmon{chip + 3}"
        folder.mkdir(parents=True)
        for number, (label, millivolts, milliamperes) in enumerate(channels, start=1):
            (folder / f"in{number}_label").write_text(f"{label}\n")
            (folder / f"in{number}_input").write_text(f"{millivolts}\n")
            (folder / f"curr{number}_input").write_text(f"{milliamperes}\n")
        (folder / "in7_label").write_text("sum of shunt voltages\n")
        (folder / "in7_input").write_text("760\n")
        (driver / name).symlink_to(root / "devices" / name)
    return driver
