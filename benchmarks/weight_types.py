"""F16 or BF16? One checkpoint as BF16, F16 and F32 GGUFs, each against transformers in float32.

    python -m benchmarks.weight_types prepare FOLDER    # GGUFs and references; needs torch
    python -m benchmarks.weight_types compare FOLDER    # the exam with each GGUF on this machine, and a table

The checkpoint is the tests' tiny Phi-3 with every value that F16 cannot hold set to zero, so that all three files hold
exactly the same values and only the arithmetic differs. Speed is compared by ``bench_gpu.py --type F16``: this model is
too small for that.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
TINY = ROOT / "tests" / "tiny_phi3" / "checkpoint"
TYPES = ("bf16", "f16", "f32")
DTYPES = ("float32", "bfloat16", "float16")


def orin_run(*words: str) -> None:
    """An ``orin-run`` command; its words go to stderr."""
    subprocess.run([sys.executable, "-m", "orin_runner", *words], check=True, cwd=ROOT, stdout=sys.stderr)


def prepare(folder: Path) -> None:
    """The checkpoint, its three GGUFs, and transformers' answers in three dtypes."""
    import torch
    from safetensors.torch import load_file, save_file

    checkpoint = folder / "checkpoint"
    shutil.copytree(TINY, checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    lost = 0
    for tensor in tensors.values():
        survives = tensor.to(torch.float16).to(tensor.dtype) == tensor
        lost += int((~survives).sum())
        tensor[~survives] = 0
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    print(f"{lost} of {sum(t.numel() for t in tensors.values())} values set to zero", flush=True)
    for kind in TYPES:
        command = [sys.executable, "-m", "convert", str(checkpoint), str(folder / f"{kind}.gguf"), "--outtype", kind]
        subprocess.run(command, check=True, cwd=ROOT, stdout=sys.stderr)
    for dtype in DTYPES:
        orin_run("reference", "exam", "--model", str(checkpoint), "--dtype", dtype, "--out", str(folder / dtype))


def _answers(run: Path) -> dict[str, dict[str, object]]:
    lines = (run / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["id"]: row for row in map(json.loads, lines)}


def _row(run: Path, reference: Path) -> list[str]:
    """Accuracy, answers equal to ``reference``'s, largest and mean difference of the choices' log-probabilities."""
    ours, theirs = _answers(run), _answers(reference)
    pairs = [(ours[key], theirs[key]) for key in theirs]
    differences = np.concatenate(
        [
            np.abs(np.subtract(a["logprobs"], b["logprobs"]))  # type: ignore[call-overload]
            for a, b in pairs
            if a["logprobs"] is not None
        ]
    )
    right = sum(bool(a["correct"]) for a, _ in pairs) / len(pairs)
    same = sum(a["prediction"] == b["prediction"] for a, b in pairs)
    return [f"{right:.2%}", f"{same}/{len(pairs)}", f"{differences.max():.4f}", f"{differences.mean():.5f}"]


def compare(folder: Path) -> None:
    """Run the exam with each GGUF; one table."""
    from orin_runner.model import llama_library

    rows = []
    for kind in TYPES:
        out = folder / f"run-{kind}"
        shutil.rmtree(out, ignore_errors=True)
        orin_run("eval", "exam", "--model", str(folder / f"{kind}.gguf"), "--out", str(out))
        rows.append([f"llama.cpp, {kind.upper()} GGUF", *_row(out, folder / "float32")])
    rows += [[f"transformers, {dtype}", *_row(folder / dtype, folder / "float32")] for dtype in DTYPES[1:]]
    print(", ".join(f"{device.name} ({device.description})" for device in llama_library.devices()))
    print(f"llama-cpp-python {llama_library.version()}; against transformers in float32:")
    print("| weights | accuracy | same answers | largest difference of a log-probability | mean |")
    print("| --- | --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("command", choices=["prepare", "compare"])
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    {"prepare": prepare, "compare": compare}[args.command](args.folder.resolve())


if __name__ == "__main__":
    main()
