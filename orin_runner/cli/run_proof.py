"""The proof of a run's model, from before the first answer to after the last: when it is waited for, and what follows.

Answers that stand beside those of another run, in its folder or made from its prompt cache, come of proven data: before
the first of them the check is waited for, as with ``--verify``. Else it goes on beside the run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from eval.runs.writer import RunWriter
from orin_runner.cli.result import write_report
from orin_runner.console import Notes
from orin_runner.errors import RunError, UserError
from orin_runner.machine.devices import cpu_threads, shares_memory
from orin_runner.model.proof import BESIDE_NICENESS, FIRST_THREADS, REDO, DataCheck, Evidence, Proof, Verdict


class RunProof:
    """Checks the data of a run's model.

    Args:
        notes: where the verdict is told.
        evidence: of the model's file.
        verify: wait for the verdict before the first answer, and refuse what is not proven; False leaves the data
            unread; None decides.
        mixes: whether the run's answers will stand beside those of another.

    Attributes:
        comes_first: whether all data is proven before the first answer, or there is none.

    Raises:
        UserError: ``verify``, and nothing says what the data must be.
    """

    def __init__(self, notes: Notes, evidence: Evidence, *, verify: bool | None, mixes: bool) -> None:
        if verify and not evidence.tensors:
            raise UserError(f"{evidence.path} cannot be verified: {evidence.verdict.detail}", REDO)
        self._notes, self._path = notes, evidence.path
        self.comes_first = bool(evidence.tensors) and (mixes if verify is None else verify)
        self._beside = bool(evidence.tensors) and verify is None and not mixes
        self._check = DataCheck(evidence, keep_cached=not shares_memory())
        self._writer: RunWriter | None = None

    def __enter__(self) -> RunProof:
        if self.comes_first:
            self._check.start(FIRST_THREADS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._check.close()

    def before_answers(self, *, on_gpu: bool) -> Verdict:
        """Wait for the verdict where it is wanted now, else begin to read the data; a line says which.

        Args:
            on_gpu: the run computes on a GPU. Most cores are free then, and where the GPU has memory of its own so is
                the way to the file: several threads read it. One needs 26 s for 28 GB.

        Raises:
            UserError: the data is not what the manifest says.
        """
        verdict = self._check.verdict(wait=True)
        if verdict.proof is Proof.REFUTED:
            raise UserError(f"{self._path} is damaged: {verdict.detail}", REDO)
        if self._beside:
            several = on_gpu and not shares_memory()
            n_threads = max(1, min(FIRST_THREADS, cpu_threads() // 4)) if several else 1
            self._check.start(n_threads, niceness=BESIDE_NICENESS)
            self._notes.detail(f"proof: {verdict.proof.value}, until its data has been compared beside the run")
        else:
            self._notes.note(verdict.line)
        return verdict

    @contextmanager
    def told(self, writer: RunWriter) -> Iterator[None]:
        """``run.json`` says what is known of the data, from the beginning of the block to its end.

        Raises:
            RunError: at the end, or by ``poll`` as soon as it is known: the data is not what the manifest says.
        """
        self._writer = writer
        writer.proved(self._check.verdict())
        try:
            yield
        finally:
            verdict = self._check.verdict()
            writer.proved(verdict)
            if verdict.proof is Proof.REFUTED:
                write_report(writer.directory)
                raise self._refuted(verdict)

    def poll(self) -> None:
        """Look whether something is known by now."""
        verdict = self._check.verdict()
        if verdict.proof is Proof.REFUTED:
            raise self._refuted(verdict)
        if verdict.proof is Proof.VERIFIED and self._writer is not None:
            self._writer.proved(verdict)

    def wait(self) -> None:
        """Wait for the end of the check, at the end of a run; Ctrl-C leaves it at what is known."""
        try:
            with self._notes.progress(f"comparing {self._path.name} with its manifest", None):
                self._check.verdict(wait=True)
        except KeyboardInterrupt:
            self._notes.warn("not all data was compared with the manifest: interrupted")

    def _refuted(self, verdict: Verdict) -> RunError:
        assert self._writer is not None
        return RunError(
            f"{self._path} is damaged: {verdict.detail}; {self._writer.directory} holds answers of other weights than "
            f"the checkpoint's: {REDO}, and begin the run anew"
        )
