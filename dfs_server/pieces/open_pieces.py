"""The files of pieces that were read lately, kept open with their checked headers.

A program that reads a large file at random asks for one block of a piece after the other. To open the file and check
its header takes longer than to send the block.

A piece belongs to the thread that took it until that thread puts it back. Invariants:

- `take` gives the file that has this name now, with a header that was checked since the file was last changed. Whoever
  puts, removes or moves a piece's file calls `forget` afterwards, before anybody is told of it; a piece that is read
  meanwhile is closed when it is put back. What somebody else does to the file (an administrator) shows in fstat(2).
- At most `capacity` files are open here. They are closed, least recently used first; one whose name is gone at once, so
  that its room on the disk is free.

Threads: everything may be called from any thread. `_lock` is held for a few steps only, and no other lock is taken
while it is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from dfs_server.pieces.open_piece import OpenPiece

CAPACITY: Final = 512
"""Number of files: those of 2 GiB that are read from all four servers, at 1 MiB each."""


class OpenPieces:
    """See the module. With a capacity of 0 nothing is kept."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._idle: dict[str, OpenPiece] = {}  # the latest one is last; guarded by _lock
        self._changes = 0  # guarded by _lock, but for reading

    def take(self, name: str, open_anew: Callable[[], OpenPiece | None]) -> OpenPiece | None:
        """The piece in the file of this name: the one that is open, if it is as it was, else what `open_anew` gives.
        Leaving it (it is a context manager) puts it back."""
        with self._lock:
            piece = self._idle.pop(name, None)
            changes = self._changes  # before a file is opened: one that is replaced after that is not kept
        if piece is not None and not piece.is_as_it_was():
            piece.close()
            piece = None
        piece = piece or open_anew()
        if piece is not None:
            piece.on_exit = partial(self._put_back, name, piece, changes)
        return piece

    def _put_back(self, name: str, piece: OpenPiece, changes: int) -> None:
        """The piece is not read any more: keep it for the next request, or close it."""
        piece.on_exit = None
        closed = piece
        with self._lock:
            if self._changes == changes and name not in self._idle and self._capacity:
                self._idle[name] = piece
                if len(self._idle) <= self._capacity:
                    return
                closed = self._idle.pop(next(iter(self._idle)))
        closed.close()

    def forget(self, name: str) -> None:
        """The file of this name is gone, or another one than before."""
        with self._lock:
            self._changes += 1
            piece = self._idle.pop(name, None)
        if piece is not None:
            piece.close()

    def count(self) -> int:
        """How many files lie here, open."""
        with self._lock:
            return len(self._idle)

    def close(self) -> None:
        """Close all; those that are put back later are closed too."""
        with self._lock:
            self._capacity = 0
            pieces, self._idle = list(self._idle.values()), {}
        for piece in pieces:
            piece.close()
