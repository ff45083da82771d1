"""How much two mounts of one namespace get done when both write without pause, compared with one alone: in folders of
their own, and in one large folder."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from support.mounts import Grid
from support.two_writers import create_file, fill, make_folder, remove_file, write_for

LARGE: Final = 5000
"""Number of names in the shared folder before they begin."""


@dataclass(frozen=True)
class Shares:
    """One run of one shape, in operations per second."""

    shape: str
    alone: float
    """The mean of both mounts, each running alone."""
    both: tuple[float, ...]

    @property
    def least(self) -> float:
        """The slower one's rate, as a fraction of that of one alone."""
        return round(min(self.both) / self.alone, 2)


def measure(runs: int, results: Path) -> list[Shares]:
    """Measure them alone and together, in turn, for each shape."""
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="two-", dir=results) as folder, Grid(Path(folder) / "grid") as grid:
        roots = [grid.mount(name).path for name in ("one", "other")]
        own = [root / root.name for root in roots]
        for path in own:
            path.mkdir()
        found = _measure(runs, "mkdir, folders of their own", own, make_folder)
        shapes = {"mkdir": make_folder, "create, write 100 bytes, close": create_file, "unlink": remove_file}
        for name, operation in shapes.items():
            shared = [root / name for root in roots]
            shared[0].mkdir()
            fill(shared[0], "there", LARGE)
            found += _measure(runs, f"{name}, one folder of {LARGE:,}", shared, operation)
        return found


def _measure(runs: int, shape: str, folders: Sequence[Path], operation: Callable[[Path], None]) -> list[Shares]:
    found = []
    for _ in range(runs):
        alone = sum(write_for([path], operation)[0] for path in folders) / len(folders)
        both = write_for(folders, operation)
        found.append(Shares(shape, round(alone, 1), tuple(round(rate, 1) for rate in both)))
    return found
