"""Which room may import which: the table of docs/architecture.md, and no circle of files."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter
from pathlib import Path

from tests.support.paths import ROOT

PACKAGES = ("convert", "eval", "orin_runner")
NOUNS = ("errors", "requests", "runner", "files", "schema", "console", "table")
NOUNS += ("default_model", "greedy_arguments", "process_clock", "version")
WORDS = ("orin_runner", *(f"orin_runner.{noun}" for noun in NOUNS))
MODEL = (*WORDS, "orin_runner.batching.*", "orin_runner.model.*")
MACHINE = (*MODEL, "orin_runner.machine.*")
WORKERS = (*MACHINE, "orin_runner.engine.*", "orin_runner.workers.*")
RULES: dict[str, tuple[str, ...]] = {  # a module goes by the first line that names it
    "orin_runner.batching.*": (*WORDS, "orin_runner.batching.*"),
    "orin_runner.engine.*": (*WORDS, "orin_runner.batching.*", "orin_runner.engine.*"),
    "orin_runner.model.*": MODEL,
    "orin_runner.machine.*": MACHINE,
    "orin_runner.workers.*": WORKERS,
    "orin_runner.text_generation": WORKERS,
    "orin_runner.cli.*": ("orin_runner*", "convert.*", "eval.*"),
    "orin_runner.__main__": ("orin_runner.cli.main", "orin_runner.cli.exits"),
    "orin_runner": ("orin_runner.text_generation", "orin_runner.cli.python", "orin_runner.version"),
    "orin_runner.*": WORDS,
    "convert.__main__": ("orin_runner.cli.convert", "orin_runner.cli.exits"),
    "convert.*": (*WORDS, *(f"orin_runner.model.gguf_{part}" for part in ("keys", "header", "digests")), "convert.*"),
    "eval.hf_encoder": (*WORDS, "orin_runner.model.*", "convert.vocab.vocabulary"),
    "eval.reference": (
        *(*WORDS, "orin_runner.model.*", "eval.*", "convert.checkpoint"),
        *("convert.vocab.special_tokens", "convert.vocab.vocabulary"),
    ),
    "eval.*": (*WORDS, "orin_runner.model.*", "orin_runner.machine.sensors", "eval.*"),
    "convert": (),
    "eval": (),
}
ALONE = {  # libraries that one module imports for all, or one of a package
    "llama_cpp": " ".join(
        f"orin_runner.model.llama{part}" for part in ("", "_ceilings", "_library", "_log", "_vocabulary")
    ),
    "torch": "convert.torch_bin eval.reference",
    "lm_eval": "eval.harness.evaluation eval.harness.model",
    "datasets": "eval.data.readers",
    "pyarrow": "eval.data.readers",
    "huggingface_hub": "convert.download",
    "pynvml": "orin_runner.machine.nvml",
    "ray": "orin_runner.workers.ray_driver",
}


def imports(root: Path) -> dict[str, set[str]]:
    """What every module imports, by dotted names; of a package's own modules these, not the package."""
    paths = [path for package in PACKAGES for path in (root / package).rglob("*.py")]
    named = {".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}
    found: dict[str, set[str]] = {name: set() for name in named}
    for name, path in named.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found[name] |= {each if each in named else str(node.module) for each in inner}
    return found


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def violations(root: Path) -> list[str]:
    """A line for each import that the rules do not allow."""
    found = []
    for name, targets in imports(root).items():
        allowed = next(allowed for room, allowed in RULES.items() if fnmatchcase(name, room))
        for target in targets:
            package = target.partition(".")[0]
            if (package in PACKAGES and not matches(target, allowed)) or name not in ALONE.get(package, name).split():
                found.append(f"{name} imports {target}")
    return sorted(found)


def test_no_room_imports_what_it_must_not_know() -> None:
    """The rules, and the libraries that one module alone imports."""
    assert violations(ROOT) == []


def test_no_circle_of_files() -> None:
    """Every module can be read after those it imports."""
    found = imports(ROOT)
    TopologicalSorter({name: targets & set(found) - {name} for name, targets in found.items()}).prepare()


def test_each_rule_can_fail(tmp_path: Path) -> None:
    """A module of every room that imports what only the command line may, and each library elsewhere."""
    expected = []
    for room in RULES:
        if room not in {"orin_runner.cli.*", "orin_runner.*"}:
            name = room.replace("*", "broken")
            path = tmp_path / name.replace(".", "/")
            path = path / "__init__.py" if "." not in name else path.with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("from orin_runner.cli.launch import start\nimport llama_cpp\n", encoding="utf-8")
            expected += [f"{name} imports llama_cpp", f"{name} imports orin_runner.cli.launch"]
    assert violations(tmp_path) == sorted(expected)
