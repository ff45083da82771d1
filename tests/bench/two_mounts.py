"""What two mounts of one namespace get that both write without pause, beside one alone: folders made in folders of
their own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from support.mounts import Grid
from support.two_writers import write_for


@dataclass(frozen=True)
class Shares:
    """One run: folders a second."""

    alone: float
    """The mean of each by itself."""
    both: tuple[float, ...]

    @property
    def least(self) -> float:
        """What the slower one gets, as a part of what one gets alone."""
        return round(min(self.both) / self.alone, 2)


def measure(runs: int, results: Path) -> list[Shares]:
    """Alone and together, in turn."""
    results.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="two-", dir=results) as folder, Grid(Path(folder) / "grid") as grid:
        folders = [grid.mount(name).path / name for name in ("one", "other")]
        for path in folders:
            path.mkdir()
        found = []
        for _ in range(runs):
            alone = sum(write_for([path])[0] for path in folders) / len(folders)
            found.append(Shares(round(alone, 1), tuple(round(rate, 1) for rate in write_for(folders))))
        return found
