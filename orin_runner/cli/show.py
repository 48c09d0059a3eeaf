"""``orin-run show``: questions as a model would be asked them, word for word, without loading its weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any

import typer

from eval.runs.items import questions_as_asked
from eval.truncation import TooLong
from orin_runner.cli.launch import open_model
from orin_runner.cli.options import (
    ChallengeProtocol,
    Chat,
    Data,
    FewShot,
    First,
    Json,
    Limit,
    MaxNewTokens,
    ModelFile,
    ScoringMode,
    Shots,
    Template,
    TooLongRule,
    chosen_tasks,
    complete_task,
    load_options,
)
from orin_runner.cli.questions import prepare_all
from orin_runner.cli.tokenizer import NamedTokenizer, open_tokenizer
from orin_runner.console import Notes, say, say_as_it_is, say_json
from orin_runner.errors import UserError


def show_command(
    task: Annotated[
        str, typer.Argument(metavar="TASK", help="A task, or a file of questions.", autocompletion=complete_task)
    ],
    ids: Annotated[
        list[str] | None, typer.Option("--id", metavar="ID", help="Show this question; may be given several times.")
    ] = None,
    limit: Limit = None,
    first: First = None,
    model: ModelFile = None,
    named_tokenizer: NamedTokenizer = None,
    data: Data = None,
    shots: Shots = None,
    scoring: ScoringMode = None,
    chat: Chat = False,
    protocol: ChallengeProtocol = None,
    template: Template = None,
    fewshot: FewShot = None,
    max_new_tokens: MaxNewTokens = None,
    too_long: TooLongRule = TooLong.TRUNCATE,
    as_json: Json = False,
    *,
    notes: Notes,
) -> None:
    """Show questions word for word: prompt, choices, target, tokens. The first one, or --limit, --first or --id."""
    for option, given in (("--limit", limit), ("--first", first)):
        if ids and given is not None:
            raise UserError(f"--id and {option} both say which questions", "leave one of them out")
    limit = limit if ids or limit or first else "1"
    options = load_options(data, limit, shots, scoring, chat=chat, protocol=protocol, first=first)
    options = replace(options, ids=tuple(ids or ()))
    chosen = chosen_tasks(notes, [task], data, template, fewshot)
    file = open_model(notes, model, allow_quantized=True)
    tokenizer = open_tokenizer(notes, file, named_tokenizer)
    prepared = prepare_all(notes, chosen, options, tokenizer, file.n_ctx_train, too_long, max_new_tokens)
    items = [asked for item in prepared for _, asked in questions_as_asked(item, tokenizer)]
    if as_json:
        say_json({"items": items})
    else:
        for item in items:
            print_item(item)


def print_item(item: dict[str, Any]) -> None:
    """One question; its prompt line by line, as it is, and the choices quoted, so that blanks can be seen."""
    cut = f", of which the model does not see the first {item['truncated']:,}" if item["truncated"] else ""
    say(f"=== {item['task']} {item['id']}, group {item['group']}: {item['n_tokens'] + item['truncated']:,} tokens{cut}")
    for prompt in item["prompts"] or [item["prompt"]]:
        for line in prompt.split("\n"):
            say_as_it_is(line)
        say("---")
    for label, choice, n in zip(item["labels"] or (), item["choices"] or (), item["choice_tokens"] or (), strict=True):
        say_as_it_is(f"choice {label}, {n} token{'' if n == 1 else 's'}: {choice!r}")
    if item["max_new_tokens"] is not None:
        ends = " or ".join(["a stop token", *map(repr, item["until"])])
        say(f"greedy text up to {ends}, at most {item['max_new_tokens']} tokens")
    for right in item["right"]:
        say_as_it_is(f"target: {right!r}")
