"""The process in which one chat template is rendered. It is a program, run by ``chat_template.py``; nothing imports it.

It reads lines of JSON: the template with its limits, then lists of conversations. It answers each list with
``{"texts": [...]}``, or with ``{"error": "..."}``, the first conversation's that has no text. At the limit of time the
kernel ends it with SIGPROF.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from typing import Any

import jinja2
import jinja2.ext
import jinja2.sandbox

GIVEN = {"tools": None, "documents": None, "add_generation_prompt": True}
"""What transformers gives a template beside the conversation and the special tokens."""
SHOWN = 300
"""Characters of a template's own message."""


def main() -> None:
    """Answer until the input ends."""
    setup = json.loads(sys.stdin.readline())
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    memory = setup["memory"] if most == resource.RLIM_INFINITY else min(setup["memory"], most)
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    template: jinja2.Template | None = None
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            if template is None:
                _begin_to_count(setup["seconds"])
                template = _compile(setup["source"])
            texts = []
            for messages in json.loads(line):
                _begin_to_count(setup["seconds"])
                text = template.render(messages=messages, **GIVEN, **setup["special"])
                if len(text) > setup["characters"]:
                    raise _TooLongError
                texts.append(text)
            answer = {"texts": texts}
            written = json.dumps(answer)
        except Exception as error:  # noqa: BLE001  (a template is a program, which may raise anything)
            written = json.dumps({"error": _reason(error, setup, compiled=template is not None)})
        _begin_to_count(0.0)
        sys.stdout.write(written + "\n")
        sys.stdout.flush()


class _TooLongError(Exception):
    pass


def _begin_to_count(seconds: float) -> None:
    """Let the kernel end this process after ``seconds`` of a CPU from now; never, for 0."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def _reason(error: Exception, setup: dict[str, Any], *, compiled: bool) -> str:
    if isinstance(error, _TooLongError):
        return f"makes more than {setup['characters']} characters of one conversation"
    if isinstance(error, MemoryError):
        return f"needs more than {setup['memory'] >> 20} MiB for one conversation"
    if isinstance(error, RecursionError):
        return "nests too deep"
    said = str(error) if isinstance(error, jinja2.TemplateError) else f"{type(error).__name__}: {error}"
    said = said if len(said) <= SHOWN else f"{said[:SHOWN]}…"
    return f"refuses this conversation: {said}" if compiled else f"is not valid Jinja: {said}"


def _compile(source: str) -> jinja2.Template:
    # The same environment as transformers' apply_chat_template (utils/chat_template_utils.py).
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)

    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(source)


if __name__ == "__main__":
    main()
