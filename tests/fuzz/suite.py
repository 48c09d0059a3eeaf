"""The cases by number, and their runs: one seed names one input, whatever else is run."""

from __future__ import annotations

import importlib
import multiprocessing
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.fuzz import bins, caches, checkpoints, data, ggufs, options, proofs, questions, runs, templates
from tests.support.fuzz import corpus
from tests.support.fuzz.case import Case, Outcome, Place
from tests.support.fuzz.forked import run_case
from tests.support.fuzz.verdict import violations
from tests.support.fuzz.watch import changes, snapshot

Make = Callable[[Random, Place], Case]

FAMILIES: dict[str, tuple[Make, int]] = {
    "checkpoint weight bytes": (checkpoints.weight_bytes, 5),
    "checkpoint weight header": (checkpoints.weight_header, 4),
    "checkpoint tensors": (checkpoints.weight_tensors, 4),
    "checkpoint settings": (checkpoints.settings_json, 6),
    "checkpoint settings bytes": (checkpoints.settings_bytes, 4),
    "checkpoint known settings": (checkpoints.settings_known, 4),
    "checkpoint file kinds": (checkpoints.file_kind, 3),
    "checkpoint further files": (checkpoints.further_file, 3),
    "checkpoint swapped files": (checkpoints.swapped, 2),
    "checkpoint bins": (bins.bins, 4),
    "checkpoint tokenizers": (checkpoints.tokenizers, 5),
    "conversion targets": (checkpoints.places, 4),
    "gguf header bytes": (ggufs.header_bytes, 6),
    "gguf bytes": (ggufs.whole_bytes, 3),
    "gguf tensor data": (proofs.tensor_data, 1),
    "gguf keys": (ggufs.keys, 7),
    "gguf tensor tables": (ggufs.tables, 4),
    "gguf tokenizers": (ggufs.tokenizers, 5),
    "gguf file kinds": (ggufs.file_kind, 2),
    "gguf manifests": (proofs.manifests, 4),
    "gguf named manifests": (proofs.stamped, 2),
    "default model": (ggufs.default_model, 2),
    "chat templates": (templates.templates, 5),
    "data values": (data.values, 9),
    "data bytes": (data.contents, 5),
    "data odd texts": (data.odd_texts, 5),
    "data lines": (data.lines, 4),
    "data file kinds": (data.file_kind, 4),
    "data file names": (data.names, 4),
    "data hub copies": (data.hub_forms, 3),
    "data folders": (data.folders, 2),
    "question values": (questions.values, 5),
    "question bytes": (questions.contents, 4),
    "question odd texts": (questions.odd_texts, 5),
    "question prompts": (questions.prompts, 5),
    "question few-shot files": (questions.fewshot, 4),
    "question tables": (questions.tables, 3),
    "question files": (questions.files, 4),
    "run values": (runs.values, 8),
    "run lines": (runs.lines, 6),
    "run bytes": (runs.contents, 5),
    "run file kinds": (runs.file_kind, 3),
    "run pages": (runs.page_kind, 2),
    "run swapped files": (runs.swapped, 4),
    "run odd names": (runs.odd_names, 4),
    "run numbers": (runs.numbers, 4),
    "run resumed": (runs.resume, 2),
    "cache states": (caches.states, 1),
    "cache headers": (caches.headers, 1),
    "cache folders": (caches.folders, 1),
    "option values": (options.values, 7),
    "option arguments": (options.arguments, 4),
    "environments": (options.environments, 2),
    "converter options": (options.converter, 3),
    "work folders": (options.work_folder, 1),
    "run folders": (options.run_folders, 2),
}
"""A function that makes a case, and its share of the cases."""


def _schedule() -> list[str]:
    """The families, each as often as its share says and far from itself."""
    places = [((i + 0.5) / share, name) for name, (_, share) in FAMILIES.items() for i in range(share)]
    return [name for _, name in sorted(places)]


SCHEDULE = _schedule()
SEEDS = 2400
"""Of the whole suite."""


@dataclass(frozen=True)
class Verdict:
    """What came of a seed. ``wrong``: a line for each broken promise."""

    seed: int
    family: str
    command: str
    outcome: Outcome
    wrong: tuple[str, ...]


def case_of(seed: int, place: Place) -> tuple[str, Case]:
    """The family and the case of a seed; the files of the case are written."""
    family = SCHEDULE[seed % len(SCHEDULE)]
    return family, FAMILIES[family][0](Random(f"{family} {seed}"), place)


def programs() -> dict[str, Callable[[], object]]:
    """The command lines by their names."""
    from orin_runner.cli.convert import main as convert
    from orin_runner.cli.main import main as orin_run

    return {"orin-run": orin_run, "convert": convert}


class Suite:
    """Runs cases side by side, each in a process of its own, forked from one that has imported everything.

    Args:
        folder: a new folder for all that cases read and write.
        keep: leave the files of cases with violations there.
    """

    def __init__(self, folder: Path, *, keep: bool = False) -> None:
        self._base, self._cases, self._keep = folder / "base", folder / "cases", keep
        self._base.mkdir(parents=True)
        self._cases.mkdir()
        self._programs = programs()
        corpus.build(self._base, self._must_run)
        self._sound = snapshot(self._base)

    def _must_run(self, argv: list[str]) -> None:
        place = Place(self._cases / "base", self._base).make()
        found = place.root / "modules"
        outcome = run_case(Case(argv, writes=(found,)), place, self._listing(found))
        if outcome.status != 0:
            raise RuntimeError(f"{argv} ended with {outcome}")
        for name in found.read_text().split():
            with suppress(ImportError):
                importlib.import_module(name)
        shutil.rmtree(place.root)

    def _listing(self, found: Path) -> dict[str, Callable[[], object]]:
        """The programs, which write down what they have imported on their way: no case is to wait for that again."""

        def listing(program: Callable[[], object]) -> Callable[[], object]:
            def run() -> None:
                before = set(sys.modules)
                try:
                    program()
                finally:
                    found.write_text(" ".join(name for name in sys.modules if name not in before))

            return run

        return {name: listing(program) for name, program in self._programs.items()}

    def run(self, seeds: Sequence[int], jobs: int) -> Iterator[Verdict]:
        """A verdict for each of ``seeds``, as they come."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, of which there are none here
            with multiprocessing.get_context("fork").Pool(jobs) as pool:
                yield from pool.imap_unordered(self._verdict, seeds)

    def spoiled(self) -> tuple[str, ...]:
        """What cases have changed of the files that all of them read."""
        return changes(self._base, self._sound, snapshot(self._base))

    def _verdict(self, seed: int) -> Verdict:
        place = Place(self._cases / str(seed), self._base).make()
        try:
            family, case = case_of(seed, place)
        except Exception as error:
            raise RuntimeError(f"seed {seed} makes no case") from error
        outcome = run_case(case, place, self._programs)
        wrong = tuple(violations(case, outcome))
        if not (wrong and self._keep):
            _remove(place.root)
        return Verdict(seed, family, " ".join(map(_short, case.argv)), outcome, wrong)


def _short(argument: str) -> str:
    return repr(argument[:200]) if not argument.isprintable() or " " in argument or not argument else argument[:200]


def _remove(root: Path) -> None:
    """However deep its folders are, and whether they may be read."""
    for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
        subprocess.run([*command, root], check=True, stderr=subprocess.DEVNULL)


def again(seed: int) -> str:
    """The command that runs a case once more and leaves its files."""
    return f"{Path(sys.executable).name} -m tests.fuzz --seeds {seed} --keep /tmp/fuzz"
