"""`make sim`: runs many seeds, or one with a trace that has a line for each step: time, actor, message, effect.

SEEDS=100000 is the number of seeds, from 0 on or from FIRST=500000 on. SEED=7 runs one with a trace.
"""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from .scenario import Report, run
from .world import SimulationError


def attempt(seed: int) -> tuple[int, str, Counter[str]]:
    """Run a seed; return the broken promise, if any, and what was done."""
    try:
        report = run(seed)
    except SimulationError as error:
        return seed, str(error), Counter()
    return seed, "", _counts(report)


def _counts(report: Report) -> Counter[str]:
    counts = Counter(op.outcome for op in report.history.operations)
    counts["answered under the lease"] = sum(op.answered for op in report.history.operations)
    counts.update({f"fault {kind}": number for kind, number in report.faults.items()})
    return counts


def main() -> int:
    logging.disable()  # losses of mounts are part of it
    if seed := os.environ.get("SEED"):
        try:
            report = run(int(seed), trace=print)
        except SimulationError as error:
            print(f"seed {seed}: {error}")
            return 1
        print(f"seed {seed}: all is kept: {dict(_counts(report))}")
        return 0
    first, seeds = int(os.environ.get("FIRST") or 0), int(os.environ.get("SEEDS") or 500)
    total: Counter[str] = Counter()
    failed = 0
    with ProcessPoolExecutor() as pool:
        for done, (at, error, counts) in enumerate(pool.map(attempt, range(first, first + seeds), chunksize=20), 1):
            total += counts
            if error:
                failed += 1
                print(f"seed {at}: {error}", flush=True)
            if done % 2000 == 0:
                print(f"{done} seeds, {failed} failed", flush=True)
    print(f"{seeds} seeds, {failed} failed: {dict(total.most_common())}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
