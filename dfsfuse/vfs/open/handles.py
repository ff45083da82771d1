"""One opening of a file: what it may do, how it reads, and what its program was told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Final

from dfsfuse.namespace.map.losses import Witness
from dfsfuse.vfs.open.open_file import OpenFile
from dfsfuse.vfs.read.read_ahead import ReadAhead

_O_NOATIME: Final[int] = getattr(os, "O_NOATIME", 0)
"""Only Linux has it."""


@dataclass(eq=False)
class Handle:
    """One opening of a file."""

    file: OpenFile
    flags: int
    names: Witness
    """Knows which changes of names and attributes, answered by this mount, were lost."""
    data: Witness
    """Knows which of the file's data was given up. Guarded by the file's lock."""
    ahead: ReadAhead = field(default_factory=ReadAhead)
    failed_at: int | None = None
    """How often the file had been written to when a program was told that its close() of this opening failed. None if
    none was, or if another one's close() has failed since without its being told. Guarded by the file's lock."""

    @property
    def may_read(self) -> bool:
        """Return whether it was opened for reading."""
        return self.flags & os.O_ACCMODE != os.O_WRONLY

    @property
    def is_noticed(self) -> bool:
        """Return whether reading changes the access time."""
        return not self.flags & _O_NOATIME

    @property
    def may_write(self) -> bool:
        """Return whether it was opened for writing."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    @property
    def may_map(self) -> bool:
        """Return whether a program could write through a shared mapping."""
        return self.flags & os.O_ACCMODE == os.O_RDWR
