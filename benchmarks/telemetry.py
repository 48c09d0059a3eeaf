"""What the meter costs a run, and its energy and memory beside the driver's own counters.

    python -m benchmarks.telemetry [--rounds 3] TASK --model FILE --data DIR [...]   as ``orin-run eval``, without --out

Each round runs ``orin-run eval`` with the meter as it is and with one that samples at the edges of the run only, in
turn. Prints items/s of both, what reading the sensors took of the run's seconds, and for each run with the meter its
energy beside NVML's ``nvmlDeviceGetTotalEnergyConsumption`` over the same time, and each GPU's last sample of memory in
use beside nvidia-smi's. On a machine without GPUs the first two only.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

EDGES_ONLY_S = 1e6


def run_once(folder: Path, words: list[str], *, sampled: bool) -> dict[str, Any]:
    """One run, in a process of its own."""
    out, seen = folder / "run", folder / "seen.json"
    child = [sys.executable, "-m", "benchmarks.telemetry", "--child", "on" if sampled else "off", str(seen)]
    done = subprocess.run([*child, "eval", *words, "--out", str(out)], stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    items = sum(section["items"] for section in report["tasks"].values())
    seconds = sum(section["clocks"]["inference"] for section in report["tasks"].values())
    return {
        "items_per_s": items / seconds,
        "measured": report["measured"],
        "last": json.loads((out / "samples.jsonl").read_text(encoding="utf-8").splitlines()[-1])["gpus"],
        **json.loads(seen.read_text(encoding="utf-8")),
    }


def child(sampled: str, seen: Path, words: list[str]) -> None:
    """``orin-run`` with a meter that keeps what it cost, and what the driver counted meanwhile, in ``seen``."""
    import orin_runner.cli.metered as command
    from eval.runs.meter import Meter
    from orin_runner.cli.main import main as orin_run

    class Watched(Meter):
        def __init__(self, path: Path, sensors: Any, **rest: Any) -> None:
            super().__init__(path, sensors, **(rest if sampled == "on" else rest | {"interval": EDGES_ONLY_S}))
            self.spent: list[tuple[float, float]] = []
            read = sensors.read

            def timed() -> Any:
                wall, cpu = time.perf_counter(), time.thread_time()
                found = read()
                self.spent.append((time.perf_counter() - wall, time.thread_time() - cpu))
                return found

            sensors.read = timed

        def __enter__(self) -> Meter:
            self.began, self.joules = time.perf_counter(), self.counted()
            return super().__enter__()

        def __exit__(
            self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
        ) -> None:
            used = [smi_mib(gpu.id) for gpu in self._sensors._gpus]
            joules, seconds = self.counted(), time.perf_counter() - self.began
            super().__exit__(kind, value, traceback)
            wall, cpu = (sum(column) for column in zip(*self.spent, strict=True))
            found = {"seconds": seconds, "readings": len(self.spent), "read_s": wall, "read_cpu_s": cpu, "smi": used}
            found["counted"] = None if joules is None or self.joules is None else joules - self.joules
            seen.write_text(json.dumps(found), encoding="utf-8")

        def counted(self) -> float | None:
            import pynvml

            handles = [gpu._handle for gpu in self._sensors._gpus]
            try:
                return sum(pynvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles) / 1000 if handles else None
            except pynvml.NVMLError:  # before Volta
                return None

    command.Meter = Watched  # type: ignore[attr-defined]
    sys.argv = ["orin-run", *words]
    orin_run()


def smi_mib(gpu: str) -> int:
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", gpu]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout)


def print_run(found: dict[str, Any], name: str) -> None:
    seconds, n = found["seconds"], found["readings"]
    cost = f"{1000 * found['read_s'] / n:.2f} ms each, {found['read_s'] / seconds:.3%} of the run"
    of_cpu = f"{found['read_cpu_s'] / seconds:.3%} of a CPU"
    said = f"{n} readings in {seconds:.1f} s took {cost} ({of_cpu})"
    print(f"{name}: {found['items_per_s']:.2f} items/s; {said}", flush=True)
    if name != "with":
        return
    measured = found["measured"]
    if found["counted"] and measured["joules"]:
        ratio = measured["joules"] / found["counted"]
        print(f"  energy: {measured['joules']:,.0f} J, the driver's counter {found['counted']:,.0f} J: {ratio:.4f}")
    for gpu, whole, smi in zip(found["last"], measured["gpus"], found["smi"], strict=True):
        print(f"  GPU {gpu['id']}: last sample {gpu['mib']} MiB, nvidia-smi {smi} MiB; {json.dumps(whole)}")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--rounds", type=int, default=3)
    arguments, words = parser.parse_known_args()
    rates: dict[str, list[float]] = {"with": [], "without": []}
    for number in range(arguments.rounds):
        for name in ("with", "without") if number % 2 == 0 else ("without", "with"):
            with tempfile.TemporaryDirectory() as folder:
                found = run_once(Path(folder), words, sampled=name == "with")
            rates[name].append(found["items_per_s"])
            print_run(found, name)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    spread = (max(rates["without"]) - min(rates["without"])) / medians["without"]
    print(
        f"median items/s: with {medians['with']:.2f}, without {medians['without']:.2f}: "
        f"{medians['with'] / medians['without']:.4f}; those without differ by {spread:.2%} among themselves"
    )


if __name__ == "__main__":
    main()
