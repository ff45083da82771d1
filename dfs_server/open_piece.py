"""A large piece's file open for reading, whole or in ranges. Knows the file only, no folder. Belongs to one thread."""

from __future__ import annotations

import os
from typing import Self

from dfs_server.piece_file import PieceHeader


class OpenPiece:
    """A piece open for reading; it can be read to its end even if it is deleted meanwhile. A context manager."""

    def __init__(self, descriptor: int, header: PieceHeader) -> None:
        self._descriptor = descriptor
        self._header = header

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
        """Up to `size` bytes of the piece from `offset` on, as they are on the disk (not checked)."""
        size = max(0, min(size, self.length - offset))
        return os.pread(self._descriptor, size, self._header.data_offset + offset)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
