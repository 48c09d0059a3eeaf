"""Chat templates are programs of strangers: they render as transformers has it, within limits, and in a sandbox."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from orin_runner.errors import UserError
from orin_runner.model.chat_template import CONVERSATIONS, ChatTemplate, Message

CHAT = [{"role": "user", "content": "hi"}]
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(x='x') %}{% for i in range(60) %}{% set n.x = n.x {} n.x %}{% endfor %}{{ n.x }}"
TIME, MEMORY, DEPTH = "takes more than 1 s", "needs more than 512 MiB", "nests too deep"


def render(source: str, chat: list[Message] = CHAT) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}, "m.gguf").render([chat])[0]


@pytest.mark.parametrize(
    ("source", "limit"),
    [
        (LOOPS, TIME),
        ("{% macro f(n) %}{% for i in range(99) %}{{ f(n) if n < 9 }}{% endfor %}{% endmacro %}" + LOOPS, TIME),
        ("{{ 2 ** (10 ** 9) }}", f"{TIME}|{MEMORY}"),
        ("{{ (9 ** 99999) ** 9999 }}", f"{TIME}|{MEMORY}"),
        ("{{ 'x' * 10 ** 9 }}", MEMORY),
        ("{{ [0] * 10 ** 9 }}", MEMORY),
        ("{{ range(99999) | join('x' * 99999) }}", MEMORY),
        ("{{ ('x' * 99999) | replace('x', 'x' * 99999) }}", MEMORY),
        ("{{ 'x' | center(10 ** 10) }}", MEMORY),
        ("{{ 'x'.ljust(10 ** 10) }}", MEMORY),
        ("{{ 'x'.zfill(10 ** 10) }}", MEMORY),
        ("{{ '\\t'.expandtabs(2 * 10 ** 9) }}", MEMORY),
        ("{{ '%1000000000d' | format(1) }}", MEMORY),
        ("{{ '{:>1000000000}'.format(1) }}", MEMORY),
        ("{{ 'a\\nb' | indent(10 ** 10) }}", MEMORY),
        ("{{ messages | tojson(indent=10 ** 9) }}", MEMORY),
        ("{{ [1] | batch(10 ** 9, 0) | list }}", MEMORY),
        (DOUBLING.replace("{}", "~"), f"{TIME}|{MEMORY}"),
        (DOUBLING.replace("{}", "+"), f"{TIME}|{MEMORY}"),
        ("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}", DEPTH),
        ("{% for a in [[1]] recursive %}{{ loop([[1]]) }}{% endfor %}", DEPTH),
        ("{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}", DEPTH),
        ("{% if 1 %}" * 3000 + "{% endif %}" * 3000, DEPTH),
        ("{% for i in range(999) %}{{ 'x' * 99999 }}{% endfor %}", "makes more than 4194304 characters"),
    ],
)
def test_a_template_ends_at_its_limits(source: str, limit: str) -> None:
    """One line that names the template and the limit; this process does not grow with it."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=f"^the chat template of m.gguf .*({limit})"):
        render(source)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 100_000, "KiB"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if %}", "is not valid Jinja: Expected an expression"),
        ("{{ range(10 ** 8) | list }}", "refuses this conversation: OverflowError: Range too big"),
        ("{{ raise_exception('no system message') }}", "refuses this conversation: no system message"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 10 ** 5000 }}", "ValueError"),
        ("{{ x.y }}", "'x' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{% include '/etc/passwd' %}", "no loader"),
    ],
)
def test_whatever_a_template_raises_is_one_error(source: str, message: str) -> None:
    """Its own refusal, Jinja's, the sandbox's or Python's."""
    with pytest.raises(UserError, match=r"^the chat template of m\.gguf ") as raised:
        render(source)
    assert message in raised.value.message


def test_a_message_of_a_template_is_cut() -> None:
    """It may hold all of a conversation."""
    with pytest.raises(UserError) as raised:
        render("{{ raise_exception('x' * 10 ** 6) }}")
    assert len(raised.value.message) < 400


def test_it_renders_on_after_a_failure() -> None:
    """The process that was ended is replaced: each conversation has its own answer, in order, in any number."""
    template = ChatTemplate(
        f"{{% if messages[0].content == 'loop' %}}{LOOPS}{{% endif %}}{{{{ bos_token }}}}"
        "{{ messages[0].content }}{{ tools is none }}",
        {"bos_token": "<s>"},
        "m.gguf",
    )
    for content in ("loop", "half \ud83d", "loop", "line\nend\u2028"):
        if content == "loop":
            with pytest.raises(UserError, match=TIME):
                template.render([[{"role": "user", "content": content}]])
        else:
            assert template.render([[{"role": "user", "content": content}]]) == [f"<s>{content}True"]
    many = [[{"role": "user", "content": str(i)}] for i in range(2 * CONVERSATIONS + 1)]
    assert template.render(many) == [f"<s>{i}True" for i in range(len(many))]
    assert template.render([]) == []


def test_its_process_ends_with_it_and_without_it() -> None:
    """With the template; with the program that made it, even where that is killed."""
    template = ChatTemplate("x", {}, "m.gguf")
    template.render([CHAT])
    assert template._process is not None
    process = template._process
    del template
    assert process.returncode is not None
    code = (
        "import os, signal; from orin_runner.model.chat_template import ChatTemplate as T; t = T('x', {}, 'm');"
        "t.render([[]]); print(t._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    # Its input ends as its parent's descriptors are closed. It is not this process's child: look until it is gone.
    pid = int(done.stdout)
    while Path(f"/proc/{pid}").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
        os.sched_yield()


def test_no_module_of_the_working_directory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ``jinja2.py`` beside the data is not what renders."""
    (tmp_path / "jinja2.py").write_text("raise SystemExit('not me')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert render("{{ bos_token }}") == "<s>"
