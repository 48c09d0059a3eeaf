"""How much of each task is shared: rows, prompts, tokens as sent, unique tokens, their ratio. No model is needed.

    python -m benchmarks.sharing --data DIR [--tokenizer FOLDER] [--shots N|phi3] [TASK...]

Every task whose files are in DIR is loaded at its default number of worked examples and tokenized (default: DIR's
``tokenizers/phi-3-medium``); the prefix tree over all its paths says what is distinct. "prompts" are the sequences that
a program without a tree computes whole: one per choice, but one for all answer letters and one per text to generate;
"tokens sent" is what they have together. Drafts are left out.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from eval.evaluate import prepare
from eval.tasks.registry import TASKS, get_task
from orin_runner.batching.tree import TokenTree
from orin_runner.cli.options import load_options
from orin_runner.engine.wanted_tokens import WantedTokens
from orin_runner.errors import UserError
from orin_runner.model.huggingface_vocabulary import HuggingFaceVocabulary
from orin_runner.model.tokenizer import Tokenizer
from orin_runner.requests import GenerateRequest, Request, ScoreRequest


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {key: config[key] for key in ("bos_token", "eos_token") if isinstance(config.get(key), str)}
    serialized = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return Tokenizer(HuggingFaceVocabulary(serialized), config.get("chat_template"), special, frozenset())


def sequences(request: Request) -> int:
    """How many sequences a program without a tree computes for ``request``."""
    return len({c[:-1].tobytes() for c in request.continuations}) if isinstance(request, ScoreRequest) else 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", metavar="TASK")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--shots")
    arguments = parser.parse_args()
    tokenizer = open_tokenizer(arguments.tokenizer or arguments.data / "tokenizers" / "phi-3-medium")
    options = load_options(arguments.data, None, arguments.shots, None, chat=False)
    print("| task | split | rows | prompts | tokens sent | unique | ratio |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    for task in [get_task(name) for name in arguments.tasks] or TASKS.values():
        try:
            item = prepare(task, options, tokenizer)
        except UserError as error:
            print(f"{task.name}: {error}", file=sys.stderr)
            continue
        requests = [question.request for question in item.questions]
        prompts = sum(map(sequences, requests))
        wanted = WantedTokens(requests)
        texts = [request.prompt for request in requests if isinstance(request, GenerateRequest)]
        unique, sent = TokenTree([*wanted.paths, *texts]).n_unique, wanted.sent + sum(map(len, texts))
        row = (task.name, item.split or "", len(requests), prompts, sent, unique, sent / unique)
        print("| {} | {} | {:,} | {:,} | {:,} | {:,} | {:.2f} |".format(*row), flush=True)


if __name__ == "__main__":
    main()
