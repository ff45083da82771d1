"""A place where steps are timed: a plain folder, our mount, or a peer's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """A folder to work in, and operations on its file system."""

    name: str
    folder: Path
    make_cold: Callable[[], object]
    """Drop everything of the place from all caches, as far as permitted."""
    pids: Callable[[], Sequence[int]] = tuple
    """Return the current processes of its servers and its mount."""
    stop_a_server: Callable[[], object] | None = None
    """Kill one of its servers; None if there is no second copy."""

    @property
    def large(self) -> Path:
        """The large file."""
        return self.folder / "large"

    @property
    def tree(self) -> Path:
        """The small files."""
        return self.folder / "tree"
