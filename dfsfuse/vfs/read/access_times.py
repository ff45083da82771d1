"""Access times (atime): what reading changes, written long after the reading.

`relatime`, as in mount(8): reading a file, listing a folder or following a link sets the time if it is not later than
the last change, or is a day old. `strictatime`: each read. `noatime`: none. Folders may be excluded. So a program that
only reads changes one record per file and day. An access is never dated before the change that it saw: if the clock by
which the change was made is ahead of ours, the access time is just after it. An mtime that was set ahead of the ctime
does not count, or each read would be due.

No caller waits: a time that is due is kept here, is shown to programs on this mount, and is written with others by a
thread after `GATHER_S`. A crash loses it, and so does a mount that cannot be written just then. A time that is set by
hand, here or by another mount, takes precedence over one that is still to be written.

Threads: any number of callers; `_lock` guards what waits, and is taken within transactions. One thread of its own, from
the first time that is due until `close`.
"""

from __future__ import annotations

import threading
from typing import Final, NamedTuple

import msgspec

from dfsfuse.common.portions import by_count
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records.inode import Inode
from dfsfuse.vfs.context import Context, log

RULES: Final = ("relatime", "strictatime", "noatime")
DAY_NS: Final = 24 * 3600 * 1_000_000_000
GATHER_S: Final = 5.0
AT_ONCE: Final = 256
"""At most this many inodes change in one transaction."""
WAITING_MAX: Final = 16_384
"""At most this many are kept; more are lost, as in a crash."""
END_DEADLINE_S: Final = 5.0


class Due(NamedTuple):
    """A time that is to be written over the one that was found."""

    found_ns: int
    new_ns: int


def due_ns(rule: str, atime_ns: int, changed_ns: int, now_ns: int) -> int | None:
    """Return the access time that a read at `now_ns` sets; None if it sets none. `changed_ns`: the ctime."""
    if rule == "noatime":
        return None
    if rule == "relatime" and changed_ns < atime_ns and now_ns - atime_ns < DAY_NS:
        return None
    return max(now_ns, changed_ns + 1)


class AccessTimes:
    """See the module. `gather_s`: how long a time waits for others before it is written."""

    def __init__(
        self, context: Context, rule: str = "relatime", *, folders: bool = True, gather_s: float = GATHER_S
    ) -> None:
        if rule not in RULES:
            raise ValueError(f"the atime rule is {rule!r}; it must be one of {', '.join(RULES)}")
        self._context = context
        self._rule = rule
        self._folders = folders
        self._gather_s = gather_s
        self._lock = threading.Lock()
        self._waiting: dict[int, Due] = {}
        self._worker = Worker(
            "vfs-access-times", None, "writing access times", stop_s=END_DEADLINE_S, ends_with_step=True
        )

    def read(self, ino: int, inode: Inode, written_ns: int | None = None) -> None:
        """Record that the inode was read; `written_ns`: when it was last written to, if that is not in the record
        yet."""
        new_ns = self._due_ns(ino, inode, written_ns)
        if new_ns is None or not self._context.seems_writable():
            return
        with self._lock:
            if self._worker.is_stopping() or (ino not in self._waiting and len(self._waiting) >= WAITING_MAX):
                return
            self._waiting[ino] = Due(inode.atime_ns, new_ns)
        if not self._worker.is_started:
            self._worker.start(self._step)
        self._worker.wake()

    def is_due(self, ino: int, inode: Inode) -> bool:
        """Return whether reading the inode now would set its time."""
        return self._due_ns(ino, inode, None) is not None

    def _due_ns(self, ino: int, inode: Inode, written_ns: int | None) -> int | None:
        if self._rule == "noatime" or not inode.ctime_ns:  # the root of a new namespace: it is not created yet
            return None
        if inode.is_directory and not self._folders:
            return None
        changed_ns = inode.ctime_ns if written_ns is None else max(inode.ctime_ns, written_ns)
        new_ns = due_ns(self._rule, self.shown_ns(ino, inode), changed_ns, self._context.clock())
        return None if new_ns == inode.atime_ns else new_ns

    def shown_ns(self, ino: int, inode: Inode) -> int:
        """Return the access time that stat(2) shows."""
        due = self._waiting.get(ino)
        return inode.atime_ns if due is None or due.found_ns != inode.atime_ns else due.new_ns

    def set_by_hand(self, ino: int) -> None:
        """Prepare for the access time being set explicitly: earlier reads do not count."""
        with self._lock:
            self._waiting.pop(ino, None)

    def write(self) -> None:
        """Write what waits. What cannot be written is given up."""
        with self._lock:
            items = list(self._waiting.items())
        for portion in map(dict, by_count(items, AT_ONCE)):
            try:
                self._context.store.transact(lambda tx, portion=portion: self._save(tx, portion))  # type: ignore[misc]
            except (DfsError, OSError) as failure:
                log.debug("access times of %d inodes were dropped: %s", len(portion), failure)
            except Exception:  # noqa: BLE001 (the thread goes on)
                log.exception("times of access of %d inodes are not kept, for an unexpected reason", len(portion))
            self._forget(portion)

    def close(self) -> None:
        """Write what waits, and stop."""
        self._worker.close()

    def _save(self, tx: Transaction, portion: dict[int, Due]) -> None:
        found = inodes.find_many(tx, list(portion))
        with self._lock:
            wanted = self._waiting.keys() & portion.keys()
        for (ino, due), inode in zip(portion.items(), found, strict=True):
            if ino in wanted and inode is not None and inode.atime_ns == due.found_ns:
                inodes.save(tx, ino, msgspec.structs.replace(inode, atime_ns=due.new_ns))

    def _forget(self, portion: dict[int, Due]) -> None:
        with self._lock:
            for ino, due in portion.items():
                if self._waiting.get(ino) is due:
                    del self._waiting[ino]

    def _step(self) -> None:
        self._worker.wait(self._gather_s)
        self.write()
