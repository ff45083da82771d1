"""`python -m torture` (make torture): MINUTES and SEED from the environment; see `torture.run`.

A log folder records what it did. A run that passes removes the folder; one that fails says where it is.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from .field import Field
from .run import Options, Run


def main() -> int:
    minutes = float(os.environ.get("MINUTES") or 10)
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    folder = Path(tempfile.mkdtemp(prefix="dfs-torture-"))
    print(f"Seed {seed}, {minutes:g} minutes, logs in {folder}", flush=True)
    with Field(folder / "field") as field:
        report = Run(Options(seed, minutes * 60, folder, say=_say), field).run()
        if not report.passed:
            _keep_logs(field.folder, folder)
    print("\n".join(report.lines()), flush=True)
    if report.passed:
        shutil.rmtree(folder)
        return 0
    print(f"Every operation is in {folder}/history.jsonl, what servers and mounts said beside it.")
    return 1


def _say(line: str) -> None:
    print(line, flush=True)


def _keep_logs(field: Path, folder: Path) -> None:
    for log in [*field.glob("*.log"), *field.glob("*.stderr")]:
        shutil.copy(log, folder)


if __name__ == "__main__":
    sys.exit(main())
