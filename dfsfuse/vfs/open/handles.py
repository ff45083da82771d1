"""One opening of a file: what it may do, how it reads, and what it has been told of."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from dfsfuse.namespace.map.losses import Witness
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.read.read_ahead import ReadAhead

_O_NOATIME: Final[int] = getattr(os, "O_NOATIME", 0)
"""Linux has it only."""


@dataclass(eq=False)
class Handle:
    """One opening of a file."""

    file: OpenFile
    flags: int
    names: Witness
    """Knows which changes that were answered, of names and attributes, were lost: of the whole mount."""
    data: Witness
    """Knows which of the file's data was given up. Guarded by the file's lock."""
    ahead: ReadAhead = field(default_factory=ReadAhead)
    failed_at: int | None = None
    """How often the file had been written to when a program heard that its close() of this opening has failed. None if
    none did, or if another one's close() has failed since and nobody heard it. Guarded by the file's lock."""

    @property
    def may_read(self) -> bool:
        """Was it opened for reading?"""
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def is_noticed(self) -> bool:
        """Does reading change the time of access?"""
        return not self.flags & _O_NOATIME

    @property
    def may_write(self) -> bool:
        """Was it opened for writing?"""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def may_map(self) -> bool:
        """Whether a program could write by a shared mapping."""
        return self.flags & os.O_ACCMODE == os.O_RDWR
