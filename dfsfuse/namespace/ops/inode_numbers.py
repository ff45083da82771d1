"""Numbers for new inodes, which this client has reserved.

They come from the map's counter in blocks, each reserved by a transaction of its own; a number is never used twice, not
even after its file is gone, and those that a client did not use are lost.

Threads: `InodeNumbers` has a lock, held while a block is being reserved (a caller that needs a number then needs that
block).
"""

from __future__ import annotations

import threading
from typing import Final

from dfsfuse.namespace.map.transactions import MapStore, Transaction
from dfsfuse.namespace.records import keys

NUMBERS_PER_BLOCK: Final = 1024


class InodeNumbers:
    """Hands out numbers for new inodes."""

    def __init__(self, store: MapStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._next = 0
        self._end = 0
        """The numbers from _next up to _end are reserved for us. Both are guarded by the lock."""

    def take(self) -> int:
        """Return a number that was never used. Asks the servers once in `NUMBERS_PER_BLOCK` calls."""
        with self._lock:
            if self._next == self._end:
                self._next = self._store.transact(_reserve)
                self._end = self._next + NUMBERS_PER_BLOCK
            self._next += 1
            return self._next - 1


def _reserve(tx: Transaction) -> int:
    data = tx.get(keys.NEXT_INODE)
    first = keys.FIRST_INODE if data is None else int.from_bytes(data, "big")
    tx.put(keys.NEXT_INODE, (first + NUMBERS_PER_BLOCK).to_bytes(keys.NUMBER_BYTES, "big"))
    return first
