"""Counts the cost of operations, in a separate process: `python -m budget.counting FOLDER NAME...`.

`measured` starts it. The servers' folders are made in FOLDER. It prints a block for each operation (without names, for
all): its row, and which thread woke which. `--broken=VARIANT` breaks something first. If an operation costs something
else with `durability=fsync`, that has a row of its own.
"""

from __future__ import annotations

from support import lockstep

schedule = lockstep.install()  # modules imported before this would have the machine's clocks and locks

import gc  # noqa: E402
import logging  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402

from .broken import VARIANTS  # noqa: E402
from .cost import Line  # noqa: E402
from .operations import OPERATIONS, SHORT_S  # noqa: E402
from .rig import Rig  # noqa: E402


def measure(name: str, durability: str, parent: Path) -> tuple[Line, list[str]]:
    """Return the cost of this operation, on its own servers with folders below `parent`, and which thread woke
    which."""
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        rig = Rig(Path(folder), durability)
        steps = OPERATIONS[name](rig)
        next(steps)
        before, woken_before = rig.spent(), schedule.hand_overs.copy()
        next(steps)
        returned = rig.spent()
        rig.pause(SHORT_S)
        afterwards, woken = rig.spent(), schedule.hand_overs - woken_before
        assert next(steps, "over") == "over", f"{name}: an operation must have exactly two yields"
        rig.close()
    notes = [f"{waker} woke {woken} {times} x" for (woken, waker), times in sorted(woken.items())]
    return Line(name, returned - before, afterwards - returned), notes


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    gc.disable()  # freeing an object may wake a thread
    logging.basicConfig(level=logging.WARNING)
    folder, *rest = arguments
    names = [argument for argument in rest if not argument.startswith("--broken=")]
    for argument in rest:
        if argument not in names:
            VARIANTS[argument.removeprefix("--broken=")]()
    for name in names or OPERATIONS:
        line, notes = measure(name, "close", Path(folder))
        weaker, weaker_notes = measure(name, "fsync", Path(folder))
        _show(line, notes)
        if weaker != line:
            _show(weaker._replace(name=f"{name}, `durability=fsync`"), weaker_notes)


def _show(line: Line, notes: Sequence[str]) -> None:
    print("\n".join([line.row(), *notes, ""]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
