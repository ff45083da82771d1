"""What programs write through shared mappings, and making the kernel hand it over.

A page that is written to through a mapping stays dirty in the kernel until it thinks of it, a file is closed, or
somebody calls msync(2). The mount learns nothing of it: not that the file is mapped, nor that it was written to. On a
local disk that is enough. Here others are owed it at certain moments, above all when a lock ends under which it was
written.

A notification that a file's pages are old makes the kernel write the dirty ones first, a WRITE for each run of them.
Then all pages are dropped and must be read again, so it is sent only if the process may have mapped the file, which
/proc tells; a process that cannot be looked at may have.

The notification waits for the WRITEs, and they need a thread of the session. So it is never sent by one of those:
`later` and `collect_within` have threads of their own (they are started when needed). While it is on its way nothing of
the file may be locked here. Threads: any number of callers; no other state.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTimeError
from pathlib import Path
from typing import Final

from dfsfuse.mount.notifications import Device

log = logging.getLogger(__name__)

THREADS_MAX: Final = 8
"""At most so many files at a time."""
PATIENCE_S: Final = 2.0
"""For at most so long a request waits whose answer cannot come later."""


def maps_of(pid: int) -> bytes | None:
    """What a process (or a thread) has mapped, as the kernel tells it; None if it does not."""
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return None


def shows(maps: bytes, ino: int) -> bool:
    """Whether an inode with this number is mapped to be shared, in a file system without a device of its own. Whether
    that is ours is not looked at: one of another mount is a notification too many, and no more."""
    return re.search(rb"s [0-9a-f]+ 00:[0-9a-f]+ %d\s" % ino, maps) is not None


class MappedPages:
    """See the module."""

    def __init__(self, device: Device, maps: Callable[[int], bytes | None] = maps_of) -> None:
        self._device = device
        self._maps = maps
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="mapped-pages")

    def may_have(self, pid: int, ino: int) -> bool:
        """Whether the process may have written to the file through a mapping. 0: it is not known which process."""
        maps = self._maps(pid) if pid else None
        return maps is None or shows(maps, ino)

    def collect(self, ino: int) -> None:
        """Make the kernel hand over what it has of the file. Never on a thread of the session."""
        try:
            self._device.inval_inode(ino)
        except OSError as error:
            log.warning("inode %d: the kernel keeps what was written through a mapping: %s", ino, error)

    def later(self, work: Callable[[], None]) -> None:
        """Call this on another thread; it may collect."""
        self._threads.submit(work)

    def collect_within(self, ino: int, seconds: float = PATIENCE_S) -> None:
        """Have it collected, and wait for that, but not for ever."""
        try:
            self._threads.submit(self.collect, ino).result(seconds)
        except NotInTimeError:
            log.warning("inode %d: what was written through a mapping is not here after %g s", ino, seconds)

    def close(self) -> None:
        """Nothing more is begun; what is under way ends with the mount."""
        self._threads.shutdown(wait=False, cancel_futures=True)
