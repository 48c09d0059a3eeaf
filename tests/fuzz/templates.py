"""Chat templates that fail, do not end, or fill the memory."""

from __future__ import annotations

from random import Random

from tests.fuzz.ggufs import planned, with_text
from tests.support.fuzz import corpus
from tests.support.fuzz.case import Case, Place
from tests.support.fuzz.mutations import damaged

TEMPLATES = (
    "", "x", "{{", "{% for %}", "{{ messages }}", "{{ messages[99].content }}", "{{ bos_token }}" * 5000, "{{ 1/0 }}",
    "{{ 1 % 0 }}",
    "{% for a in range(10**9) %}{% endfor %}", "{{ range(10**12)|list }}", "{{ 'x' * 10**10 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ [0]*10**9 }}", "{{ ''.join(['x']*10**9) }}", "{{ (9**9)**9**9 }}",
    "{% set n = namespace(x='a') %}{% for i in range(40) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x|length }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{{ ().__class__.__mro__[1].__subclasses__() }}", "{{ self.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
    "{{ lipsum(n=100000) }}", "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends 'x' %}",
    "{{ raise_exception('no') }}",
    "{{ raise_exception(1) }}", "{{ raise_exception('\\x1b[31m' * 9) }}", "{{ undefined.x.y }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ messages|map('nothing') }}", "{{ 'a'|filter }}", "{{ strftime_now('%Y') }}",
    "{% generation %}x{% endgeneration %}",
    "{{ messages[0].content|upper }}{{ '\\ud83d' }}", "{{ '\\u0000\\u001b' }}{{ messages[0]['content'] }}",
    "{{ [1]|batch(0)|list }}",
    "{% set x = [] %}{% set _ = x.append(x) %}{{ x }}", "{% set x = {} %}{% set _ = x.update(a=x) %}{{ x|tojson }}",
    "{{ messages|sort(attribute='content.nothing') }}", "{% raw %}{{ x }}", "{% break %}",
    "{% for a in [1] %}{% continue %}{% endfor %}",
    "{{ (" + "(" * 500 + "1" + ")" * 500 + ") }}", "{{ " + "-" * 3000 + "1 }}",
    "{% if 1 %}" * 200 + "{% endif %}" * 200,
    "{{ 'a'.format_map(messages[0]) }}", "{{ '{0.__class__}'.format(1) }}", "{{ ('a' * 100000)|wordwrap(1)|length }}",
    "{{ 'x'|center(10**9) }}",
    "{{ tools }}{{ documents }}{{ add_generation_prompt }}", "{{ messages[0].content.encode('utf-16') }}",
    "{{ joiner }}", "{{ loop.index }}",
    "{{ ('(a+)+$')|replace('a', 'a' * 10**8) }}", "{{ 10**400 }}", "{{ 1e999 }}", "{{ 'x'|int(base=99) }}",
    "{{ caller() }}", "{{ dict(a=1).b() }}",
)  # fmt: skip


def templates(random: Random, place: Place) -> Case:
    """Chat templates: programs that fail, do not end, or fill the memory."""
    source = random.choice(TEMPLATES)
    if random.random() < 0.3:
        source = corpus.TEMPLATE + source
    if random.random() < 0.25:
        spoiled = damaged(corpus.TEMPLATE.encode(), source.encode(), random)
        source = spoiled.decode("utf-8", "ignore")
    model = with_text(place, "tokenizer.chat_template", source.encode("utf-8", "replace"))
    data = ["--data", str(place.base / "data")]
    argv = [
        "orin-run",
        "plan",
        random.choice(("challenge", "arc_easy", "gsm8k")),
        "--chat",
        *data,
        "--model",
        str(model),
        "--device",
        "orin-32gb",
        "--json",
    ]
    return Case(argv, right=planned, fails='"fits": false')
