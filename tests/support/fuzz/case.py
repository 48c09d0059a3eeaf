"""One malformed input: where it lies, the command that reads it, and what came of that."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 60.0
"""After which a command hangs; none takes a tenth of that where it has a processor to itself."""


@dataclass(frozen=True)
class Place:
    """The folders of one case, all below ``root`` and none there before.

    Attributes:
        base: files of all cases, sound and not to be changed.
        inputs: what the case damages.
        out: where the command is told to write; watched like all others.
        work: the working directory.
        state: what is kept between runs: the last model, the rates that were measured.
    """

    root: Path
    base: Path

    @property
    def inputs(self) -> Path:
        return self.root / "in"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def state(self) -> Path:
        return self.root / "home" / "orin-run"

    def make(self) -> Place:
        for folder in (self.inputs, self.out, self.work, self.root / "home", self.root / "tmp"):
            folder.mkdir(parents=True)
        return self

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.root / "home")
        return {
            "HOME": home,
            "XDG_STATE_HOME": home,
            "HF_HOME": home,
            "TMPDIR": str(self.root / "tmp"),
            "HF_HUB_OFFLINE": "1",
        }


@dataclass(frozen=True)
class Outcome:
    """What a command did.

    Attributes:
        status: exit status, None where it was ended by a signal or the limit of time.
        signal: that ended it.
        hung: it was ended at the limit of time.
        out, err: what it wrote, as far as it is UTF-8.
        not_text: it wrote bytes that are no UTF-8.
        outlived: processes that it left behind.
        changed: a line for each file that is not as it was.
        seconds: that it took, of the wall clock.
    """

    status: int | None
    signal: int = 0
    hung: bool = False
    out: str = ""
    err: str = ""
    not_text: bool = False
    outlived: tuple[int, ...] = ()
    changed: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True)
class Case:
    """A command on a malformed input.

    Attributes:
        argv: the program, ``orin-run`` or ``convert``, and its arguments.
        writes: files and folders that it may make or change when it ends with status 0, and with 1 where it may.
        right: what is wrong with the result of status 0 or 1, None where nothing is.
        fails: how a run that ends with status 1 says so; without it that status is wrong.
        environment: variables beside those of ``Place``.
        seconds: limit of time.
        must_refuse: that the input is accepted is wrong whatever comes out.
    """

    argv: Sequence[str]
    writes: Sequence[Path] = ()
    right: Callable[[Outcome], str | None] = lambda _: None
    fails: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    seconds: float = SECONDS
    must_refuse: bool = False
