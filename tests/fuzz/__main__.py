"""``python -m tests.fuzz``: malformed inputs, a process each, and what came of them.

``--seeds 0:2400 --jobs 16`` is the whole suite on a machine with 16 cores. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a process that forks has no threads
    os.environ.setdefault(variable, "1")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seeds", default="0:150", help="N, or FIRST:END")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--family", default="", help="only families with this in their names")
    parser.add_argument("--keep", type=Path, help="new folder in which the files of cases with violations stay")
    parser.add_argument("--all", action="store_true", help="a line for each case")
    arguments = parser.parse_args()
    first, _, end = arguments.seeds.partition(":")
    seeds = range(int(first), int(end or int(first) + 1))

    from tests.fuzz.suite import SCHEDULE, Suite, again

    chosen = [seed for seed in seeds if arguments.family in SCHEDULE[seed % len(SCHEDULE)]]
    statuses: dict[str, Counter[str]] = defaultdict(Counter)
    broken = 0
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as scratch:
        suite = Suite(arguments.keep or Path(scratch) / "fuzz", keep=arguments.keep is not None)
        for verdict in suite.run(chosen, arguments.jobs):
            outcome = verdict.outcome
            ended = (
                "hung" if outcome.hung else f"signal {outcome.signal}" if outcome.signal else f"status {outcome.status}"
            )
            statuses[verdict.family].update([ended, *(["violations"] if verdict.wrong else [])])
            if verdict.wrong:
                broken += 1
                print(f"seed {verdict.seed} ({verdict.family}): {'; '.join(verdict.wrong)}")
                print(f"  {verdict.command}\n  again: {again(verdict.seed)}")
                print(
                    "".join(
                        f"  | {line[:300]}\n"
                        for line in [*outcome.out.splitlines()[-4:], *outcome.err.splitlines()[-12:]]
                    )
                )
            elif arguments.all:
                last = (outcome.err or outcome.out).rstrip().rpartition("\n")[2]
                print(f"seed {verdict.seed} ({verdict.family}): {ended}, {outcome.seconds:.1f} s: {last[:250]}")
            sys.stdout.flush()
        spoiled = suite.spoiled()
    for line in spoiled:
        print(f"of the files of all cases: {line}")
    for family, counts in sorted(statuses.items()):
        print(f"{family}: {', '.join(f'{n} {name}' for name, n in sorted(counts.items()))}")
    print(f"{len(chosen)} cases of {len(statuses)} families, {broken} with violations")
    return 1 if broken or spoiled else 0


if __name__ == "__main__":
    sys.exit(main())
