"""Odd command lines and environments, on sound files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.fuzz.ggufs import NO_FIT, whole_run
from tests.support.fuzz import texts
from tests.support.fuzz.case import Case, Outcome, Place

ODD = (
    "", " ", "-", "--", "-1", "0", "1", "1.5", "1e3", "1e400", "nan", "inf", "-inf", "NaN", "٣", "\uff11\uff12",
    "0x10", "1_0",
    "+5", " 5", "5 ",
    "9" * 400, "9" * 5000, "-" + "9" * 30, "1e-400", "5e-324", "true", "None", "phi3", "PHI3", "letters", "text",
    "2023", "2024",
    "auto", "AUTO",
    "orin-32gb", "29000", "29000MiB", "28GiB", "1B", "0MiB", "-1GiB", "1e9MiB", "1e400GiB", "nanMiB", "1 GiB",
    "9" * 400 + "GiB", "1mib",
    "1TiB", "999999999999GiB", "\x1b[31m", "\n", "a\nb", "\udcff\udcfe", "é", "[bold]", "[/]", "{}", "%s", "/", ".",
    "..", "~",
    "/dev/null", "/dev/zero", "/proc/self/mem", "x" * 100_000, "--help", "--version", "=", "a=b", "*", "?", "'", '"',
    "\\", "\u202e", "\u2028",
)  # fmt: skip
TASKS = (
    "exam",
    "mmlu",
    "arc_easy",
    "boolq",
    "gsm8k",
    "bbh",
    "drop",
    "piqa",
    "challenge",
    "truthfulqa_mc2",
    "anli",
    "Exam",
    "arc",
    "*",
    "",
)
SHARED = ("--model", "--data", "--limit", "--shots", "--scoring", "--protocol", "--device")
OWN: dict[str, Sequence[str]] = {
    "plan": SHARED,
    "tasks": ("--data",),
    "selftest": ("--model", "--requests", "--seed", "--device"),
    "diff": ("--max-drop",),
    "report": ("--out",),
    "eval": (*SHARED, "--out", "--max-new-tokens", "--prompt-cache", "--prompt-cache-size"),
    "reference": (
        "--model",
        "--data",
        "--limit",
        "--shots",
        "--dtype",
        "--device",
        "--reference-window",
        "--batch-tokens",
        "--out",
    ),
    "lm-eval": ("--tasks", "--model", "--out", "--device"),
}
WRITTEN = ("--out", "--prompt-cache")
FLAGS = (
    "--json",
    "--chat",
    "--resume",
    "--verify",
    "--no-verify",
    "--no-draft",
    "--measure-limit",
    "-v",
    "-x",
    "--",
    "--jsno",
    "--json=1",
)
WRONG = NO_FIT + '|"fits": false|average accuracy drops|points|FAILED|more than rounding|"passed": false'


def _sound(command: str, place: Place, random: Random) -> list[str]:
    """Arguments that the command takes."""
    model, data = ["--model", str(place.base / "llama.gguf")], ["--data", str(place.base / "data")]
    return {
        "plan": [random.choice(TASKS), *model, *data, "--device", "orin-32gb"],
        "tasks": [],
        "selftest": [*model, "--requests", "2"],
        "diff": [str(place.base / "run"), str(place.base / "other")],
        "report": [str(place.base / "run"), "--out", str(place.out / "page.html")],
        "eval": [
            random.choice(TASKS),
            *model,
            *data,
            "--limit",
            "1",
            "--max-new-tokens",
            "1",
            "--out",
            str(place.out / "run"),
        ],
        "reference": ["boolq", "--model", str(place.inputs / "nothing"), *data, "--out", str(place.out / "run")],
        "lm-eval": [
            "--tasks",
            "nothing_of_that_name",
            "--model",
            str(place.inputs / "nothing.gguf"),
            "--out",
            str(place.out / "run"),
        ],
    }[command]


def _case(argv: list[str], place: Place, **environment: str) -> Case:
    def strict(outcome: Outcome) -> str | None:
        return None if outcome.out or outcome.err else "nothing was said"

    written = (place.out, place.work, place.inputs, place.root / "home")
    return Case(argv, writes=written, right=strict, fails=WRONG, environment=environment)


def values(random: Random, place: Place) -> Case:
    """An option with an odd value; of ``eval`` only what is refused before a model is loaded, or runs one item."""
    command = random.choice(("plan", "plan", "tasks", "diff", "report", "eval", "selftest", "lm-eval"))
    argv = _sound(command, place, random)
    option = random.choice(OWN[command])
    value = (
        texts.text(random).replace("\0", "").replace("\ud83d", "").encode("utf-8", "replace").decode()
        if random.random() < 0.3
        else random.choice(ODD)
    )
    if option in WRITTEN and ("/" in value or value in {"..", "~"}):
        value = "odd"  # nothing outside the case's own folders
    new = [f"{option}={value}"] if random.random() < 0.5 else [option, value]
    if random.random() < 0.5:
        argv = new + argv
    elif option in argv and random.random() < 0.7:
        at = argv.index(option)
        argv[at : at + 2] = new
    else:
        argv += new
    if random.random() < 0.2:
        argv.insert(random.randrange(len(argv) + 1), random.choice(FLAGS))
    return _case(["orin-run", command, *argv], place)


def arguments(random: Random, place: Place) -> Case:
    """Arguments that are missing, odd, doubled or in another order."""
    command = random.choice(tuple(OWN)[:6])
    argv = _sound(command, place, random)
    kind = random.randrange(5)
    if kind == 0 and argv:
        argv[random.randrange(len(argv)) : len(argv)] = [] if random.random() < 0.5 else [random.choice(ODD)]
    elif kind == 1:
        random.shuffle(argv)
    elif kind == 2 and argv:
        argv[random.randrange(len(argv))] = random.choice(ODD)
    elif kind == 3:
        argv = [random.choice(TASKS) for _ in range(random.choice((1, 2, 30)))] + argv
    else:
        argv += random.choices((*FLAGS, *ODD), k=3)
    return _case(["orin-run", command if random.random() < 0.9 else random.choice(ODD), *argv], place)


def environments(random: Random, place: Place) -> Case:
    """Odd variables of the environment."""
    command = random.choice(("plan", "tasks", "diff", "report"))
    odd = random.choice(
        (
            "",
            "0",
            "-5",
            "nan",
            "x" * 5000,
            "C",
            "POSIX",
            "xx_YY.KOI8-R",
            "dumb",
            "\x1b",
            "/nonexistent",
            "/dev/null",
            "1",
        )
    )
    name = random.choice(("COLUMNS", "LINES", "TERM", "LANG", "LC_ALL", "NO_COLOR", "FORCE_COLOR", "HOME",
    "XDG_STATE_HOME", "TMPDIR", "ORIN_DEBUG",
                          "ORIN_MODEL", "TZ", "TERMINAL_WIDTH", "TTY_COMPATIBLE", "GGML_CUDA_CUBLAS_COMPUTE_TYPE",
                          "HF_HOME", "TOKENIZERS_PARALLELISM"))  # fmt: skip
    if name in {"FORCE_COLOR", "TTY_COMPATIBLE"}:
        name, odd = "COLUMNS", "7"  # colours are what is asked for there
    return _case(["orin-run", command, *_sound(command, place, random)], place, **{name: odd})


def converter(random: Random, place: Place) -> Case:
    """The converter's options, and models that are none."""
    argv = [str(place.base / "llama"), str(place.out / "model.gguf")]
    kind = random.randrange(4)
    if kind == 0:
        option = random.choice(
            ("--outtype", "--window", "--allow-rounding", "--force", "--make-default", "-v", "--verbose")
        )
        argv += [option, random.choice((*ODD, "f16", "bf16", "F16", "exact", "off", "q4_0"))]
    elif kind == 1:
        argv[0] = random.choice(
            (
                *ODD,
                "org/model",
                "a/b/c",
                "org/model@main",
                "https://x/y",
                str(place.base / "llama" / "config.json"),
                str(place.base),
            )
        )
    elif kind == 2:
        argv[1] = random.choice((*ODD[:40], str(place.out), str(place.out) + "/", "sub/model.gguf"))
    else:
        argv.append(random.choice(ODD))
    return _case(["convert", *argv], place)


def work_folder(random: Random, place: Place) -> Case:
    """A working directory that is read only, or is not there any more."""
    command = random.choice(("plan", "tasks", "report", "diff", "eval"))
    argv = _sound(command, place, random)
    if "--out" in argv:
        at = argv.index("--out")
        del argv[at : at + 2]
    if command == "report":
        argv.append(str(place.base / "other"))
    place.work.chmod(0o500)
    return Case(["orin-run", command, *argv], fails=WRONG)


def run_folders(random: Random, place: Place) -> Case:
    """An odd --out of ``eval``."""
    out = place.out / "run"
    kind = random.randrange(5)
    if kind == 0:
        from tests.support.fuzz import kinds

        kinds.put(out, random, random.choice(("fifo", "loop", "empty", "to_null", "socket", "device", "newline")))
    elif kind == 1:
        place.out.chmod(0o500)
    elif kind == 2:
        out = place.out / random.choice(("x" * 300, "a/" * 1500, "a\nb/" + "x" * 300, "\udcff" * 300))
    elif kind == 3:
        shutil.copytree(place.base / random.choice(("run", "half")), out)
    else:
        out = Path(random.choice((str(place.base / "llama.gguf"), "/proc/run", "/dev/null/x", "/sys/x")))
    argv = ["boolq", "--model", str(place.base / "llama.gguf"), "--data", str(place.base / "data"), "--out", str(out)]
    if kind == 2:  # some file systems take some of these names
        return Case(
            ["orin-run", "eval", *argv],
            writes=(place.out, place.state),
            right=lambda outcome: whole_run(out, outcome),
        )
    return Case(["orin-run", "eval", *argv])
