"""A model's chat template, rendered with limits on time and memory.

A template is a program that a stranger wrote. Jinja's sandbox keeps it from files and from Python's internals, but not
from running for hours (nested loops) or from filling the memory (``'x' * 10**9``, ``2 ** 10**9``, widths of formats),
and no list of forbidden operations is complete. So templates are rendered in a process of their own
(``template_process.py``), which the kernel ends at the limits. That process is started at the first conversation and
kept: each one after it costs a part of a message, not a start. This process never compiles or renders a template.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from orin_runner.errors import UserError

Message = dict[str, str]

OTHER = "use another template, or another model"
PROGRAM = Path(__file__).with_name("template_process.py")
SECONDS = 1.0
"""Of a CPU, for one conversation; real templates take some 50 microseconds."""
MEMORY = 1 << 29
"""Bytes of address space of the process, of which Python and Jinja take 60 MiB."""
CHARACTERS = 1 << 22
"""Of one rendered conversation: more than any context holds, and few enough to be cut into tokens in seconds."""
CONVERSATIONS = 256
"""In one message, so that a task of any length needs no more memory than these."""


class ChatTemplate:
    """The text that a model wants a conversation to be.

    Args:
        source: Jinja, as transformers' ``apply_chat_template`` takes it.
        special: texts of bos_token, eos_token and so on, which it may use.
        name: whose template it is, for messages.
    """

    def __init__(self, source: str, special: dict[str, str], name: str) -> None:
        self._setup = {
            "source": source,
            "special": special,
            "seconds": SECONDS,
            "memory": MEMORY,
            "characters": CHARACTERS,
        }
        self._name = name
        self._process: subprocess.Popen[str] | None = None
        self._end: weakref.finalize[[subprocess.Popen[str]], ChatTemplate] | None = None

    def render(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """The text of each conversation, up to where the assistant's answer begins.

        Raises:
            UserError: the template is not valid Jinja, refuses a conversation, or needs more than a limit for one.
        """
        return [text for part in _parts(conversations) for text in self._render(part)]

    def _render(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        process = self._process or self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended; of what, its exit status says below
            process.stdin.write(json.dumps([list(messages) for messages in conversations]) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith("\n"):
            raise UserError(f"the chat template of {self._name} {self._ended(process)}", OTHER)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise UserError(f"the chat template of {self._name} {answer['error']}", OTHER)
        texts: list[str] = answer["texts"]
        return texts

    def _started(self) -> subprocess.Popen[str]:
        # -I: neither the environment nor the working directory decides which Jinja renders. A session of its own: it
        # ends when its input does, not when Ctrl-C reaches the terminal's processes.
        process = subprocess.Popen(
            [sys.executable, "-I", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="ascii",
            start_new_session=True,
        )
        self._process, self._end = process, weakref.finalize(self, _close, process)
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(self._setup) + "\n")
        return process

    def _ended(self, process: subprocess.Popen[str]) -> str:
        """What the process has died of; the next conversation starts another."""
        assert self._end is not None
        self._process = None
        self._end()
        if process.returncode == -signal.SIGPROF:
            return f"takes more than {SECONDS:g} s for one conversation"
        return f"needs more than {MEMORY >> 20} MiB for one conversation, or nests too deep"


def _parts(conversations: Sequence[Sequence[Message]]) -> Iterator[Sequence[Sequence[Message]]]:
    for at in range(0, len(conversations), CONVERSATIONS):
        yield conversations[at : at + CONVERSATIONS]


def _close(process: subprocess.Popen[str]) -> None:
    """Let the process end at the end of its input, and wait for it."""
    process.kill()
    process.communicate()
