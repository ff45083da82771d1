"""Makes the kernel hand over data that programs have written through shared mappings.

A page that is written through a mapping stays dirty in the kernel until the kernel writes it back, a file is closed, or
a program calls msync(2). The mount learns nothing of it: neither that the file is mapped, nor that it was written to.
On a local disk that is enough. Here, other mounts must get the data at certain moments, above all when the lock under
which it was written is released.

A notification that a file's pages are stale makes the kernel write the dirty ones first, one WRITE for each run of
them. Then all pages are dropped and must be read again, so it is sent only if the process may have mapped the file,
which /proc says; a process that cannot be examined may have.

The notification waits for the WRITEs, and they need a thread of the session. So it is never sent from one of those:
`later` and `collect_within` use separate threads (started when needed). While it is under way no lock on the file may
be held here. Threads: any number of callers; no other state.
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
"""Maximum number of files at a time."""
PATIENCE_S: Final = 2.0
"""Maximum time that a request waits whose answer cannot be deferred."""


def maps_of(pid: int) -> bytes | None:
    """The mappings of a process (or a thread), as the kernel reports them; None if it does not."""
    try:
        return Path(f"/proc/{pid}/maps").read_bytes()
    except OSError:
        return None


def shows(maps: bytes, ino: int) -> bool:
    """Whether an inode with this number has a shared mapping, in a file system without its own device. Whether that
    file system is ours is not checked: for one of another mount, the only harm is an unnecessary notification."""
    return re.search(rb"s [0-9a-f]+ 00:[0-9a-f]+ %d\s" % ino, maps) is not None


class MappedPages:
    """See the module."""

    def __init__(self, device: Device, maps: Callable[[int], bytes | None] = maps_of) -> None:
        self._device = device
        self._maps = maps
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="mapped-pages")

    def may_have(self, pid: int, ino: int) -> bool:
        """Whether the process may have written to the file through a mapping. `pid` 0: the process is unknown."""
        maps = self._maps(pid) if pid else None
        return maps is None or shows(maps, ino)

    def collect(self, ino: int) -> None:
        """Make the kernel hand over its data of the file. Never on a thread of the session."""
        try:
            self._device.inval_inode(ino)
        except OSError as error:
            log.warning("inode %d: data written through a mapping was not collected from the kernel: %s", ino, error)

    def later(self, work: Callable[[], None]) -> None:
        """Call `work` on another thread; it may collect."""
        self._threads.submit(work)

    def collect_within(self, ino: int, seconds: float = PATIENCE_S) -> None:
        """Collect on another thread, and wait for that, but only for a limited time."""
        try:
            self._threads.submit(self.collect, ino).result(seconds)
        except NotInTimeError:
            log.warning("inode %d: data written through a mapping has not arrived after %g s", ino, seconds)

    def close(self) -> None:
        """Start nothing new; work under way ends with the mount."""
        self._threads.shutdown(wait=False, cancel_futures=True)
