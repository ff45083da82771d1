"""What parts of one client report to each other although the one that reports is made before the one that listens.

`dfsfuse/cli/session.py` makes one `Events` for each client of a namespace and hands it to all that report. Whoever
listens assigns its callback once, before it starts; each event has one listener. A callback must neither raise nor wait
for anything: it is called in the middle of the reporter's work, with the locks that are named here.

Everything else that is called back is handed over when an object is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


class Changed(NamedTuple):
    """A name in the folder `ino`; or the inode itself: its attributes, or its data too."""

    ino: int
    name: bytes | None = None
    is_data: bool = False


def _ignore(*_: object) -> None:
    """Do nothing: nobody listens."""


def _go_on(_ino: int, then: Callable[[], None]) -> None:
    """Nothing is cached that would have to be dropped first."""
    then()


@dataclass(slots=True)
class Events:
    """See the module."""

    on_servers_changed: Callable[[], None] = _ignore
    """A server has another folder than before, or has done something wrong. Called by `net.lines.Lines` on any thread
    that talks to servers, without locks; `ServerRegister` listens."""

    on_keys_changed: Callable[[list[bytes] | None], None] = _ignore
    """Other clients have changed these keys, or a batch of this one turns out to be made that was in doubt. None:
    perhaps all keys have changed, for example since changes that were answered are lost. Called by
    `namespace.map.log_map.LogMap` before the newer state is shown, on any thread that uses the log, with `_log_lock`
    held: the callback must not use the map. `Vfs.changed_elsewhere` listens."""

    on_files_changed: Callable[[list[Changed] | None], None] = _ignore
    """The same as names and inodes. Called by `Vfs.changed_elsewhere`, on the same threads and with the same locks. The
    kernel binding listens: `KernelCaches.changed`."""

    on_lock_granted: Callable[[int, Callable[[], None]], object] = _go_on
    """A program is about to get a lock on the file, which others have changed since the last time: what is cached of it
    is outdated. The callback calls its second argument once, on any thread, when that is dropped or cannot be. Called
    by `vfs.locks.locking.Locking`, on the thread that asked for the lock or on the one that retries for waiters,
    without locks. The kernel binding listens: `KernelCaches.locked`."""
