"""A namespace accessed by paths: what the command line cannot show."""

from __future__ import annotations

import errno
import os

from dfsfuse.cli.dfc.remote import Remote
from dfsfuse.vfs.attributes import Attributes
from dfsfuse.vfs.write.putting import Hole

BLOCK_BYTES = 4096


class Growing:
    """A Vfs with one file, which grows just after its end was found."""

    def __init__(self) -> None:
        self.contents = bytes(BLOCK_BYTES) + b"d" * BLOCK_BYTES + bytes(BLOCK_BYTES)
        self._more = b"appended"

    def open(self, ino: int, flags: int) -> int:
        return 3

    def release(self, handle: int) -> None:
        pass

    def lseek(self, handle: int, offset: int, whence: int) -> int:
        for at in range(offset, len(self.contents)):
            if bool(self.contents[at]) == (whence == os.SEEK_DATA):
                return at
        if whence == os.SEEK_HOLE:
            return len(self.contents)
        self.contents, self._more = self.contents + self._more, b""
        raise OSError(errno.ENXIO, "no data from there on")

    def read(self, handle: int, offset: int, size: int) -> bytes:
        return self.contents[offset : offset + size]

    def getattr(self, ino: int, handle: int | None = None) -> Attributes:
        return Attributes(
            ino=7, mode=0o100644, nlink=1, uid=0, gid=0, rdev=0, size=len(self.contents), blocks=8, generation=0,
            atime_ns=0, mtime_ns=0, ctime_ns=0,
        )  # fmt: skip


def test_what_is_appended_at_the_end_of_reading_is_no_hole() -> None:
    vfs = Growing()
    chunks = list(Remote(vfs).stretches(vfs.getattr(7), b"/f"))  # type: ignore[arg-type]
    assert chunks[0] == Hole(BLOCK_BYTES)
    assert b"".join(bytes(part.length) if isinstance(part, Hole) else part for part in chunks) == vfs.contents
