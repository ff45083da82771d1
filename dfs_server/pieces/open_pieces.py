"""A cache of open files of recently read pieces, with their checked headers.

A program that reads a large file at random requests one block of a piece after another. Opening the file and checking
its header takes longer than sending the block.

A piece belongs to the thread that took it until that thread puts it back. Invariants:
- `take` returns the file that currently has this name, with a header that was checked since the file was last changed.
  Code that puts, removes or moves a piece's file calls `forget` afterwards, before anyone is told; a piece that is
  being read meanwhile is closed when it is put back. Changes of the file by others (an administrator) show up in
  fstat(2).
- At most `capacity` files are open here. The least recently used one is closed first; a file whose name is gone is
  closed immediately, so that its disk space is freed.

Threads: everything may be called from any thread. `_lock` is held only briefly, and no other lock is acquired while it
is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from dfs_server.pieces.open_piece import OpenPiece

CAPACITY: Final = 512
"""Number of files: those of 2 GiB of data that is read from all four servers, at 1 MiB each."""


class OpenPieces:
    """See the module. With a capacity of 0 nothing is cached."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()
        self._idle: dict[str, OpenPiece] = {}  # the most recent one is last; guarded by _lock
        self._changes = 0  # writes guarded by _lock

    def take(self, name: str, open_anew: Callable[[], OpenPiece | None]) -> OpenPiece | None:
        """The piece in the file of this name: the open one, if it is unchanged, or else the result of `open_anew`.
        Leaving it (it is a context manager) puts it back."""
        with self._lock:
            piece = self._idle.pop(name, None)
            changes = self._changes  # before a file is opened: a file that is replaced after this is not cached
        if piece is not None and not piece.is_as_it_was():
            piece.close()
            piece = None
        piece = piece or open_anew()
        if piece is not None:
            piece.on_exit = partial(self._put_back, name, piece, changes)
        return piece

    def _put_back(self, name: str, piece: OpenPiece, changes: int) -> None:
        """The piece is no longer being read: keep it for the next request, or close it."""
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
        """The file of this name is gone, or was replaced."""
        with self._lock:
            self._changes += 1
            piece = self._idle.pop(name, None)
        if piece is not None:
            piece.close()

    def count(self) -> int:
        """The number of open files in the cache."""
        with self._lock:
            return len(self._idle)

    def close(self) -> None:
        """Close all files; those that are put back later are closed too."""
        with self._lock:
            self._capacity = 0
            pieces, self._idle = list(self._idle.values()), {}
        for piece in pieces:
            piece.close()
