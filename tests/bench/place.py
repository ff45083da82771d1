"""Where a step is timed: a plain folder, our mount, or a peer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A folder to work in, and what can be done to the file system that it is on."""

    name: str
    folder: Path
    make_cold: Callable[[], object]
    """After it nothing of the place is in any cache, as far as we may."""
    pids: Callable[[], Sequence[int]] = tuple
    """The processes of its servers and of its mount, now."""
    stop_a_server: Callable[[], object] | None = None
    """Kill one of its servers; None where there is no second copy."""

    @property
    def large(self) -> Path:
        """The large file."""
        return self.folder / "large"

    @property
    def tree(self) -> Path:
        """The small files."""
        return self.folder / "tree"
