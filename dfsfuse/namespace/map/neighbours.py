"""Which files are worth fetching together: a program that reads two files made at about the same time, such as those of
a folder that was copied or unpacked, is about to read the others, in whatever order.

Inode numbers stand for the time of creation. They are divided into blocks; when a second file of a block is read, or
the first one of a block next to one that was fetched, the whole block is worth it: its records in one request, and its
small files in one more to each server. Each block is returned once as long as it is remembered. It is a guess: fetching
in vain costs a few milliseconds, and a random reader of many files hardly ever triggers it.

Threads: guarded by a lock of its own.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final

from dfsfuse.namespace.records import keys

BLOCK_INODES: Final = 32
REMEMBERED: Final = 16
"""Number of blocks: enough for several readers in parallel."""
_FETCHED: Final = 0
"""Used in place of an inode number; no file has it."""


class InodeCompanions:
    """`Companions` for inodes: a program that looks at two files that were made at about the same time is about to look
    at the others."""

    def __init__(self) -> None:
        self._neighbours = Neighbours()

    def of(self, key: bytes) -> list[bytes]:
        """See `Companions.of`."""
        return [keys.inode(ino) for ino in self._neighbours.of(keys.number_in(key))] if keys.is_inode(key) else []

    def came_along(self, key: bytes) -> None:
        """See `Companions.came_along`."""
        if keys.is_inode(key):
            self._neighbours.came_along(keys.number_in(key))


class Neighbours:
    """The files that were recently read."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, int] = OrderedDict()
        """By block: the file that was read, or `_FETCHED`. The latest one is last. Guarded by the lock."""

    def of(self, ino: int) -> range:
        """Return which files are worth fetching with this one, which is about to be read from its beginning and is
        among them; usually none."""
        block = ino // BLOCK_INODES
        with self._lock:
            known = self._blocks.pop(block, None)
            follows = any(self._blocks.get(near) == _FETCHED for near in (block - 1, block + 1))
            is_due = known not in (_FETCHED, ino) if known is not None else follows
            self._blocks[block] = _FETCHED if is_due or known == _FETCHED else ino
            if len(self._blocks) > REMEMBERED:
                self._blocks.popitem(last=False)
        return range(block * BLOCK_INODES, (block + 1) * BLOCK_INODES) if is_due else range(0)

    def came_along(self, ino: int) -> None:
        """Record that this file is being looked at, and need not be fetched."""
        with self._lock:
            self._blocks.setdefault(ino // BLOCK_INODES, ino)
            if len(self._blocks) > REMEMBERED:
                self._blocks.popitem(last=False)
