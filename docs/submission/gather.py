"""``make submission``: what the 2024 challenge asks for, in one folder and a tar beside it.

    python docs/submission/gather.py [--run RUN] [--model M.gguf] [--out build/submission]

Script, container recipe, the open-source components with their licences, the manifest of the conversion, and the
result of a finished run in the challenge's form. Where no run is named there must be one of the model below runs/, and
no more. The manifest must be the one of the GGUF that the run used.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import shutil
import sys
import tarfile
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from eval.challenge_rules import IN_ITS_FORM
from eval.runs.run import RUN, Run, quantized_types, read_header, read_report
from orin_runner.cli.launch import model_line
from orin_runner.cli.result import print_report
from orin_runner.console import Notes, listed, say
from orin_runner.default_model import default_model
from orin_runner.errors import UserError
from orin_runner.model.gguf_digests import manifest_path
from orin_runner.model.gguf_file import GGUFFile
from orin_runner.model.proof import FIRST_THREADS, REDO, DataCheck, Proof, Verdict, examine

HERE = Path(__file__).parent
PARTS = ("run_challenge.py", "Dockerfile", "requirements.txt", "README.md", "projection.md")
EXTRAS = ("convert",)
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|notice)", re.IGNORECASE)
MAKE_ONE = "orin-run eval challenge --data FILE.jsonl makes one"


def only_run(folder: Path, file: GGUFFile) -> Path:
    """The finished run of a model in the challenge's form below ``folder``.

    Raises:
        UserError: there is none, or there are several: which of them is meant is not guessed.
    """
    found = sorted(path.parent for path in folder.glob(f"*/{RUN}") if _is_run_of(path.parent, file))
    if not found:
        raise UserError(f"no finished challenge run of {file.path} in {folder}", MAKE_ONE)
    if len(found) > 1:
        reason = f"{folder} holds {len(found)} finished challenge runs of {file.path}: {listed([*map(str, found)])}"
        raise UserError(reason, "make submission RUN=... names one")
    return found[0]


def _is_run_of(run: Path, file: GGUFFile) -> bool:
    try:
        header, sections = read_header(run), read_report(run).get("tasks", {})
    except UserError:  # of a damaged one nothing is known
        return False
    in_its_form = any(name in sections for name in IN_ITS_FORM)
    return in_its_form and _ended(sections) and header.get("model", {}).get("sha256") == file.digest()


def _ended(sections: Mapping[str, Any]) -> bool:
    return bool(sections) and not any(section.get("unanswered") for section in sections.values())


def components(name: str = "orin-run", seen: dict[str, Distribution] | None = None) -> dict[str, Distribution]:
    """What ``name`` needs to convert and to run, as installed here, by normalized name."""
    seen = {} if seen is None else seen
    for requirement in distribution(name).requires or ():
        wanted, _, marker = requirement.partition(";")
        extra = re.search(r"extra\s*==\s*['\"](.+?)['\"]", marker)
        if extra and not (name == "orin-run" and extra[1] in EXTRAS):
            continue
        key = re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", wanted.strip())[0]).lower()  # type: ignore[index]
        if key in seen:
            continue
        try:
            seen[key] = distribution(key)
        except PackageNotFoundError:
            continue  # for another platform or Python version
        components(key, seen)
    return seen


def licence_of(found: Distribution) -> str:
    """A licence's name from a package's metadata, whichever of the three ways it states it."""
    data = found.metadata
    stated = data.get("License-Expression") or (data.get("License") or "").strip().split("\n")[0]
    classifiers = [c.rsplit(" :: ", 1)[-1] for c in data.get_all("Classifier") or () if c.startswith("License ::")]
    return stated or ", ".join(classifiers) or "see its licence file"


def write_components(out: Path) -> None:
    """COMPONENTS.md, and each package's own licence files beside it."""
    found = components()
    lines = ["# Open-source components", "", "| component | version | licence |", "| --- | --- | --- |"]
    lines.append(f"| orin-run | {distribution('orin-run').version} | MIT |")
    lines.append(f"| llama.cpp and ggml | as vendored in llama-cpp-python {found['llama-cpp-python'].version} | MIT |")
    for name, package in sorted(found.items()):
        lines.append(f"| {name} | {package.version} | {licence_of(package)} |")
        for file in package.files or ():
            if LICENCE_FILE.match(file.name) and (source := Path(str(file.locate()))).is_file():
                target = out / "licences" / name / file.name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)
    lines += [
        "",
        "Versions are those installed where this was gathered; requirements.txt has the container's. The model",
    ]
    lines += ["(Phi-3-medium-4k-instruct, Microsoft, MIT), CUDA and JetPack are not part of the submission.", ""]
    (out / "COMPONENTS.md").write_text("\n".join(lines), encoding="utf-8")


def gather(run: Path, model: Path, out: Path) -> Path:
    """Fill ``out`` anew; returns the tar beside it.

    Raises:
        UserError: the run did not end, or is one of a quantized GGUF, of another or a damaged one; the manifest is
            missing, or the GGUF is not what it says.
    """
    opened, file = Run.open(run), GGUFFile.open(model)
    if types := quantized_types(opened.header):
        raise UserError(f"{run} is no submission: its model is quantized ({', '.join(types)})", MAKE_ONE)
    file.need_full_precision("a submission needs the checkpoint's own weights")
    if not _ended(opened.report.get("tasks", {})):
        raise UserError(f"{run} did not end", "orin-run eval --resume goes on with it")
    if opened.header.get("model", {}).get("sha256") != file.digest():
        raise UserError(f"{run} is not a run of {model}", "name its GGUF with --model")
    manifest = manifest_path(model)
    if not manifest.is_file():
        raise UserError(f"{manifest} is missing", "it lies beside the GGUF where that was converted")
    if Verdict.of_run(opened.header).proof is Proof.REFUTED:
        raise UserError(f"{run} is one of a damaged model", "begin it anew")
    with DataCheck(examine(file)) as check:
        check.start(FIRST_THREADS)
        found = check.verdict(wait=True)
    if found.proof is not Proof.VERIFIED:
        raise UserError(f"{model} is not proven: {found.detail}", REDO)
    if out.exists() and any(out.iterdir()) and not (out / "COMPONENTS.md").exists():
        raise UserError(f"{out} holds something else", "name another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in PARTS:
        shutil.copyfile(HERE / name, out / name)
    shutil.copyfile(manifest, out / manifest.name)
    write_components(out)
    screen = io.StringIO()
    with contextlib.redirect_stdout(screen):
        print_report(opened.report, run, opened.header, verbose=True)
    header = opened.header
    versions = ", ".join(f"{name} {version}" for name, version in header["versions"].items())
    devices = ", ".join(device["description"] for device in header["device"])
    head = [header["command"], f"{header['time']}, {header['machine']}, {devices}; {versions}", model_line(file)]
    head += [f"warning: {line}" for line in opened.report.get("warnings", [])]
    (out / "RESULT.txt").write_text("\n".join([*head, screen.getvalue()]), encoding="utf-8")
    tar = out.with_name(out.name + ".tar.gz")
    with tarfile.open(tar, "w:gz") as archive:
        archive.add(out, arcname=out.name)
    return tar


def main() -> None:
    """Gather, and print where the tar lies."""
    parser = argparse.ArgumentParser(description="Gather what the 2024 challenge asks for.")
    parser.add_argument("--run", type=Path, help="a run folder (default: the only finished one of the model in runs/)")
    parser.add_argument("--model", type=Path, help="its GGUF (default: orin-run's own default)")
    parser.add_argument("--out", type=Path, default=Path("build/submission"))
    args = parser.parse_args()
    try:
        model = args.model or default_model()[0]
        run = args.run
        if run is None:
            file = GGUFFile.open(model)
            file.need_full_precision("a submission needs the checkpoint's own weights")
            run = only_run(Path("runs"), file)
            Notes().note(f"run {run}: the only finished challenge run of {model} in runs")
        say(str(gather(run, model, args.out)))
    except UserError as error:
        Notes().error(error.message, error.hint)
        sys.exit(2)


if __name__ == "__main__":
    main()
