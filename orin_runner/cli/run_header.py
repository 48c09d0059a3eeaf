"""What ``run.json`` says of a run: the command, the versions, the machine, the model and its memory plan."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from datetime import datetime, timezone
from typing import Any

from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import Verdict
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.version import __version__
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor


def command_header() -> dict[str, str]:
    """The command and the time."""
    return {
        "command": shlex.join(["orin-run", *sys.argv[1:]]),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def common_header(engine: str) -> dict[str, Any]:
    """Command, time, versions and machine. ``engine`` is ``"llama.cpp"`` or ``"transformers"``."""
    return {
        "format": 1,
        "engine": engine,
        **command_header(),
        "versions": {
            "orin-run": __version__,
            "llama-cpp-python": llama_library.version(),
            "python": platform.python_version(),
        },
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
    }


def model_header(
    file: GGUFFile, tokenizer: Tokenizer, verdict: Verdict, supervisor: Supervisor | Replicas
) -> dict[str, Any]:
    """The model, its tokenizer and its proof, what it runs on, and the memory plan."""
    loaded = supervisor.loaded
    return {
        "model": {
            "name": file.path.name,
            "sha256": file.digest(),
            "checkpoint_sha256": file.checkpoint_sha256,
            "architecture": file.architecture,
            "types": {name: count for name, (count, _) in file.tensor_types.items()},
            "altered_values": file.altered_values,
            "lossy": bool(file.quantized),
            **tokenizer.header,
            **verdict.keys,
            "window": file.window or file.dropped_window,
            "window_honoured": file.dropped_window is None,
            "rope_factors": loaded.rope_factors,
        },
        "device": [{"name": device.name, "description": device.description} for device in loaded.devices],
        "gpu_layers": f"{loaded.gpu_layers}/{loaded.n_layers}",
        "memory": {**supervisor.plan.to_json(), "allocated_mib": loaded.buffers},
        "replicas": [replica.name for replica in supervisor.replicas] if isinstance(supervisor, Replicas) else None,
    }
