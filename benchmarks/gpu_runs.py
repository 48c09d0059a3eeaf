"""What the parts of ``bench_gpu.py`` share: orin-run as a command, and the GPU's memory while it runs."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
MIB = 1 << 20


class Bench:
    """Paths and options, and where results go."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.work: Path = args.work
        self.model = args.work / f"random-{args.type.lower()}.gguf"
        self.results = args.work / f"results-{args.started}.json"

    def record(self, **values: Any) -> None:
        """Print and keep named results, those of every round."""
        print("  " + json.dumps(values), flush=True)
        known = self._known()
        for name, value in values.items():
            known.setdefault(name, []).append(value)
        self.results.write_text(json.dumps(known, indent=1))

    def print_medians(self) -> None:
        """The rates of everything that has been run more than once."""
        for name, rounds in self._known().items():
            for rate in ("tokens_per_s", "items_per_s", "tasks_per_s"):
                found = [value[rate] for value in rounds if isinstance(value.get(rate), float)]
                if len(found) > 1:
                    print(f"{name} {rate}: median {statistics.median(found):,.2f} of {found}")

    def _known(self) -> dict[str, list[Any]]:
        known: dict[str, list[Any]] = json.loads(self.results.read_text()) if self.results.exists() else {}
        return known

    def orin(self, *words: str, device: str | None = None) -> tuple[int, str, float]:
        """(exit status, stderr, seconds) of an ``orin-run`` command."""
        command = [sys.executable, "-m", "orin_runner", *words, "--model", str(self.model)]
        if device:
            command += ["--device", device]
        before = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
        if done.returncode:
            print(done.stdout[-1500:], done.stderr[-2500:], flush=True)
        return done.returncode, done.stderr, time.perf_counter() - before

    def evaluate(
        self, name: str, task: str, *words: str, data: Path | None = None, device: str | None = None
    ) -> dict[str, Any]:
        """Run ``orin-run eval`` and record rates, tokens and what the device had to wait for."""
        out = self.work / f"run-{name}"
        subprocess.run(["rm", "-rf", str(out)], check=True)
        data = data or self.args.data
        with device_peak(small=self.args.small) as seen:
            code, notes, wall = self.orin("eval", task, "--data", str(data), "--out", str(out), *words, device=device)
        for line in notes.splitlines():
            if "memory plan" in line or "layers on" in line or "warning" in line or "died" in line:
                print("  " + line, flush=True)
        if code:
            self.record(**{name: {"exit": code}})
            return {}
        report = json.loads((out / "report.json").read_text())
        header = json.loads((out / "run.json").read_text())
        section = report["tasks"][task]
        tokens, clocks, device_part = section["tokens"], section["clocks"], section["device"]
        found = {
            "items": section["items"],
            "failed": section["failed"],
            "items_per_s": round(section["items_per_s"], 2),
            "tokens_per_s": round(tokens["computed"] / device_part["seconds"], 1),
            "ratio": round(tokens["computed"] / tokens["unique"], 4),
            **tokens,
            "device": device_part,
            "clocks": clocks,
            "noise": section["noise"],
            "near_ties": section["near_ties"],
            "restarts": report["restarts"],
            "settings": header["memory"]["settings"] | {"n_contexts": header["memory"]["n_contexts"]},
            "wall": round(wall, 1),
            "beside_weights_mib": _plan_and_peak(header["memory"], seen),
        }
        self.record(**{name: found})
        return found


def used_mib() -> int:
    """Used memory of the first GPU, all processes together."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])


@contextmanager
def device_peak(*, small: bool) -> Iterator[list[int]]:
    """Samples the GPU's used memory in MiB; the list holds the value before and the largest since."""
    first = 0 if small else used_mib()
    seen, stop = [first, first], threading.Event()

    def watch() -> None:
        while not stop.wait(0.25):
            seen[1] = max(seen[1], used_mib())

    thread = threading.Thread(target=watch)
    if not small:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        if not small:
            thread.join()


def _plan_and_peak(plan: dict[str, Any], seen: list[int]) -> dict[str, float]:
    """What the run was planned to take on the device and what it took at most, without the weights, in MiB."""
    weights = plan["terms"]["weights"] / MIB
    planned = sum(plan["terms"][term] for term in plan["on_device"]) / MIB - weights
    measured = seen[1] - seen[0] - weights
    return {"planned": round(planned), "measured": round(measured), "ratio": round(planned / measured, 3)}


@contextmanager
def holding(leave_mib: int) -> Iterator[None]:
    """A process that holds GPU memory so that ``leave_mib`` stay free."""
    code = f"""
import torch, sys, time
torch.cuda.init(); torch.zeros(1, device="cuda")
free, _ = torch.cuda.mem_get_info()
keep = torch.empty(free - {leave_mib} * 2**20, dtype=torch.uint8, device="cuda")
print(torch.cuda.mem_get_info()[0] // 2**20, flush=True)
sys.stdin.read()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdin is not None
    print(f"  free beside the ballast: {child.stdout.readline().strip()} MiB", flush=True)
    try:
        yield
    finally:
        child.stdin.close()
        child.wait()
