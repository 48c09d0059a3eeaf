"""A worker as the commands start it."""

from __future__ import annotations

from collections.abc import Sequence

from orin_runner.cli.launch import Launch
from orin_runner.console import Notes
from orin_runner.machine.seats import Seat
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.requests import Request
from orin_runner.workers.places import places_here
from orin_runner.workers.replicas import Replicas
from orin_runner.workers.supervisor import Supervisor


def started(file: GGUFFile, requests: Sequence[Request]) -> Supervisor | Replicas:
    """One worker on this machine, with the model loaded and planned for ``requests``."""
    return Launch(Notes(), file, None, places_here(file.path, [Seat("this machine")])).started(requests)
