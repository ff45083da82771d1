"""The names by which inodes were recently found: hints for people, when no server can be asked any more.

When a mount ends and its servers are gone, unsaved data is known by inode numbers only, and the cached map may have
been dropped. So the last names that the kernel used are kept. They are what was true then: others may have renamed a
file since, so they decide nothing but what a message says and in which folder something is put.

Bounded: the older half is dropped when there are too many. Threads: any; each step is one operation on a dictionary,
and a hint that is lost to a race is only a hint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dfsfuse.namespace.records.keys import ROOT

MAX_NAMES: Final = 50_000
_DEPTH_MAX: Final = 4096


class NamesSeen:
    """See the module."""

    def __init__(self, max_names: int = MAX_NAMES) -> None:
        self._max_names = max_names
        self._names: dict[int, tuple[int, bytes]] = {}
        """The folder and name of each inode."""
        self._inodes: dict[tuple[int, bytes], int] = {}

    def saw(self, parent: int, name: bytes, ino: int) -> None:
        """Record that this inode has this name."""
        if name in (b".", b".."):
            return
        at, before = (parent, name), self._names.get(ino)
        if before is not None and before != at and self._inodes.get(before) == ino:
            self._inodes.pop(before, None)  # one name per inode, so that `_names` bounds both
        self._names[ino] = at
        self._inodes[at] = ino
        if len(self._names) > self._max_names:
            self._forget_older_half()

    def saw_many(self, parent: int, found: Iterable[tuple[bytes, int]]) -> None:
        """Record that these inodes have these names in the folder."""
        for name, ino in found:
            self.saw(parent, name, ino)

    def moved(self, parent: int, name: bytes, new_parent: int, new_name: bytes) -> None:
        """Record a rename."""
        ino = self._inodes.pop((parent, name), None)
        if ino is not None:
            self.saw(new_parent, new_name, ino)

    def path(self, ino: int) -> bytes | None:
        """Return the path from the root, without a leading slash; None if unknown."""
        names: list[bytes] = []
        while ino != ROOT:
            found = self._names.get(ino)
            if found is None or len(names) > _DEPTH_MAX:
                return None
            ino, name = found
            names.append(name)
        return b"/".join(reversed(names))

    def saw_path(self, names: Sequence[bytes], inodes: Sequence[int]) -> None:
        """Record that each of these names, from the root on, belongs to the inode at the same index."""
        parent = ROOT
        for name, ino in zip(names, inodes, strict=True):
            self.saw(parent, name, ino)
            parent = ino

    def _forget_older_half(self) -> None:
        for ino in list(self._names)[: self._max_names // 2]:
            at = self._names.pop(ino, None)
            if at is not None:
                self._inodes.pop(at, None)
