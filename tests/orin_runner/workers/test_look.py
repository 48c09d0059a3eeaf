"""What llama.cpp finds, asked in a process of its own."""

from __future__ import annotations

from pathlib import Path

from orin_runner.model import llama_library
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.workers.look import seen_from


def test_the_devices_of_this_machine() -> None:
    """As the library says them here; without a model no layers."""
    seen = seen_from(None)
    assert seen.failure is None
    assert [device.name for device in seen.devices] == [device.name for device in llama_library.devices()]
    assert (seen.gpu_layers, seen.n_layers) == (None, None)
    assert bool(seen.architectures) == llama_library.has_cuda()


def test_where_the_layers_of_a_model_would_be(tiny_gguf: Path) -> None:
    """All of them and the output head, on GPUs where there are any."""
    seen = seen_from(tiny_gguf)
    n = GGUFFile.open(tiny_gguf).sizes.block_count + 1
    assert seen.n_layers == n
    assert seen.gpu_layers == (n if any(device.is_gpu for device in seen.devices) else 0)


def test_a_process_that_dies_says_of_what(tmp_path: Path) -> None:
    """Here of a file that llama.cpp refuses; an abort inside it ends the same way."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + bytes(60))
    seen = seen_from(broken)
    assert seen.devices == ()
    assert seen.failure is not None
    assert "llama.cpp cannot load" in seen.failure
