"""A large piece's file open for reading, as a whole or in ranges. Knows only the file, no folder. Belongs to one thread
at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Self

from dfs_server.pieces.file import PieceHeader

State = tuple[int, int, int]
"""Changes whenever a file is written to, truncated, renamed or unlinked: time of change, size, number of names."""


def state_of(descriptor: int) -> State:
    """The state of an open file."""
    status = os.fstat(descriptor)
    return status.st_ctime_ns, status.st_size, status.st_nlink


class OpenPiece:
    """A piece open for reading; it can be read to its end even if it is deleted in the meantime. A context manager.

    `state`: the file's state before its header was read and checked.
    """

    def __init__(self, descriptor: int, header: PieceHeader, state: State) -> None:
        self._descriptor = descriptor
        self._header = header
        self._state = state
        self.on_exit: Callable[[], None] | None = None
        """Called instead of closing the file when the reader is done with the piece."""

    @property
    def length(self) -> int:
        return self._header.length

    @property
    def digests(self) -> bytes:
        """The level-one digests of the whole piece."""
        return self._header.digests

    def fileno(self) -> int:
        """For sendfile(2): the piece's byte 0 is at `data_offset` of this file."""
        return self._descriptor

    @property
    def data_offset(self) -> int:
        return self._header.data_offset

    def read(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes of the piece from `offset` on, as they are on disk (unchecked)."""
        size = max(0, min(size, self.length - offset))
        return os.pread(self._descriptor, size, self._header.data_offset + offset)

    def is_as_it_was(self) -> bool:
        """Whether the file is unchanged since its header was checked."""
        return state_of(self._descriptor) == self._state

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        (self.on_exit or self.close)()
