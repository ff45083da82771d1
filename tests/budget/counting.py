"""Count what operations cost, in a process of its own, which `measured` starts: `python -m budget.counting NAME...`.

Prints a block for each operation (without names: for all): its row, and which thread woke which.
`--broken=VARIANT` breaks something first. Where an operation costs something else with `durability=fsync`, that has a
row of its own.
"""

from __future__ import annotations

from support import lockstep

schedule = lockstep.install()  # what is imported before this would have the machine's clocks and locks

import gc  # noqa: E402
import logging  # noqa: E402
import os  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from .broken import VARIANTS  # noqa: E402
from .cost import Line  # noqa: E402
from .operations import OPERATIONS, SHORT_S  # noqa: E402
from .rig import Rig  # noqa: E402

IN_MEMORY = "/dev/shm"
"""The servers' folders are here, if it exists: it is faster, and what a disk would do is only counted."""


def measure(name: str, durability: str) -> tuple[Line, list[str]]:
    """What this operation costs, on servers of its own, and who woke whom."""
    parent = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="dfs-budget-", dir=parent) as folder:
        rig = Rig(Path(folder), durability)
        steps = OPERATIONS[name](rig)
        next(steps)
        before, woken_before = rig.spent(), schedule.hand_overs.copy()
        next(steps)
        returned = rig.spent()
        rig.pause(SHORT_S)
        afterwards, woken = rig.spent(), schedule.hand_overs - woken_before
        assert next(steps, "over") == "over", f"{name}: what counts is between two yields"
        rig.close()
    notes = [f"{waker} woke {woken} {times} x" for (woken, waker), times in sorted(woken.items())]
    return Line(name, returned - before, afterwards - returned), notes


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    gc.disable()  # what it frees may wake somebody
    logging.basicConfig(level=logging.WARNING)
    names = [argument for argument in arguments if not argument.startswith("--broken=")]
    for argument in arguments:
        if argument not in names:
            VARIANTS[argument.removeprefix("--broken=")]()
    for name in names or OPERATIONS:
        line, notes = measure(name, "close")
        weaker, weaker_notes = measure(name, "fsync")
        _show(line, notes)
        if weaker != line:
            _show(weaker._replace(name=f"{name}, `durability=fsync`"), weaker_notes)


def _show(line: Line, notes: Sequence[str]) -> None:
    print("\n".join([line.row(), *notes, ""]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
