r"""HumanEval (Chen et al. 2021, arXiv:2107.03374): a Python function is continued behind its docstring, and run.

Data: https://github.com/openai/human-eval (MIT), ``data/HumanEval.jsonl.gz``; or ``openai/openai_humaneval`` on the
hub. A row has ``task_id``, ``prompt``, ``test`` and ``entry_point``. The prompt is the row's, as it is:

    def add(a, b):
        '''Add a and b.'''

White space and protocol are lm-evaluation-harness's (0.4.13, ``humaneval``): no worked examples; the text ends at
"\nclass", "\ndef", "\n#", "\nif" or "\nprint" and has at most 1,024 tokens. Prompt and text, a line break, the row's
tests and ``check(ENTRY_POINT)`` are one program, which passes where it runs to its end. It is run with ``--run-code``
alone, and as ``eval/code_process.py`` says: for at most 3 s of a CPU, without network, files to write, threads and
other processes. (The harness runs it for 3 s of the clock, without these limits.)
"""

from __future__ import annotations

from typing_extensions import TypedDict

from eval.data.text_file import AGAIN
from eval.tasks.base import Loaded, LoadOptions, loaded, shots_of
from eval.tasks.code import CodeTask, code_doc
from eval.tasks.doc import Doc
from eval.tasks.generation import placed_rows
from orin_runner.schema import Schema

HUB = ("openai/openai_humaneval", "7dce6050a7d6d172f3cc5c32aa97f52fa1a2e544", "openai_humaneval")
FOLDERS = ("humaneval", "human-eval/data", "humaneval/human-eval/data", "humaneval/data")
UNTIL = ("\nclass", "\ndef", "\n#", "\nif", "\nprint")
MAX_NEW_TOKENS = 1024


class _Row(TypedDict):
    task_id: str
    prompt: str
    test: str
    entry_point: str


ROW = Schema(_Row)


class HumanEval(CodeTask):
    """Functions begun by the prompt."""

    name = "humaneval"
    title = "HumanEval"
    source = "github.com/openai/human-eval"
    licence = "MIT"
    metrics: tuple[str, ...] = ("pass@1",)
    default_shots = 0
    phi3_shots: int | None = 0
    folders = ("openai_humaneval/openai_humaneval", "openai/openai_humaneval/openai_humaneval")

    def load(self, options: LoadOptions) -> Loaded:
        shots_of(self, options, 0)
        names = [f"{folder}/HumanEval.jsonl" for folder in FOLDERS]
        docs = []
        for where, row in placed_rows(options.data, HUB, self.splits[0], names, FOLDERS[:1]):
            found = ROW.check_row(where, row, AGAIN)
            tests = f"{found['test']}\ncheck({found['entry_point']})"
            docs.append(code_doc(found["task_id"], found["prompt"], tests, UNTIL, MAX_NEW_TOKENS))
        return loaded(docs, self.splits[0], options)

    def program(self, doc: Doc, text: str) -> str:
        prompt = doc.prompt if isinstance(doc.prompt, str) else doc.prompt[-1]["content"]
        return f"{prompt}{text}\n{doc.target}"
