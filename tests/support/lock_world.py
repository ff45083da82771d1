"""Locks of several mounts on one map in memory, with a clock that tests advance: `dfsfuse.vfs.locks` without a kernel.

    world = LockWorld()
    a, b = world.mount(b"a"), world.mount(b"b")
    assert a.take(1) == 0                   # owner 1; the errno otherwise
    waiter = b.lock(1, wait=True)           # an `Answer`, which may come later

It records what the mounts have saved, and for which files their kernels were told to drop pages.
"""

from __future__ import annotations

import itertools
import stat
import threading
from collections.abc import Callable
from typing import Any

from support.memory_map import MemoryMap

from dfsfuse.common.events import Events
from dfsfuse.namespace.ops import inodes
from dfsfuse.namespace.records import inode as records
from dfsfuse.namespace.records import keys, locks
from dfsfuse.namespace.records.inode import Entry
from dfsfuse.namespace.records.locks import Lock
from dfsfuse.vfs.locks.locking import Locking
from dfsfuse.vfs.locks.one_mount import Guarded

INO = 7
DEADLINE_S = 20.0


class Answer:
    """The single answer to a request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.answered = threading.Event()
        self.error: int | None = None
        self._interruption: Callable[[], None] | None = None

    def done(self) -> bool:
        return self.fail(0)

    def fail(self, error: int) -> bool:
        with self._lock:
            if self.error is not None:
                return False
            self.error = error
        self.answered.set()
        return True

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        self._interruption = callback

    def interrupt(self) -> None:
        assert self._interruption is not None
        self._interruption()

    def result(self) -> int:
        assert self.answered.wait(DEADLINE_S)
        assert self.error is not None
        return self.error


class LockMount:
    """The locks of one mount."""

    def __init__(self, world: LockWorld, name: bytes) -> None:
        self.saved: list[int] = []
        self.changed: list[int] = []
        numbers = itertools.count(1)
        self.locks = Locking(
            world.map,
            self.saved.append,
            events := Events(),
            lifetime_s=10.0,
            clock=lambda: world.now_s,
            new_id=lambda: name + b"%d" % next(numbers),
        )
        self.forgotten: list[Callable[[], None]] = []
        """Callbacks for when the kernel has dropped the file's pages, if `takes_time`."""
        self.takes_time = False
        events.on_lock_granted = self._forget

    def _forget(self, ino: int, then: Callable[[], None]) -> None:
        self.changed.append(ino)
        if self.takes_time:
            self.forgotten.append(then)
        else:
            then()

    def lock(
        self,
        owner: int,
        start: int = 0,
        end: int = 99,
        *,
        shared: bool = False,
        flock: bool = False,
        wait: bool = False,
        handle: int = 0,
        guard: Guarded | None = None,
    ) -> Answer:
        answer = Answer()
        wanted = Lock(b"", owner, flock, not shared, start, end, 1000 + owner)
        self.locks.lock(INO, wanted, answer, wait=wait, handle=handle, guard=guard)
        return answer

    def take(self, owner: int, start: int = 0, end: int = 99, **how: Any) -> int:
        return self.lock(owner, start, end, **how).result()

    def close(self, owner: int) -> None:
        """Close a descriptor; a failed save does not keep its locks."""
        try:
            self.locks.closing(INO, owner)
        finally:
            self.locks.closed(INO, owner)

    def end_opening(self, handle: int) -> None:
        try:
            self.locks.releasing(INO, handle)
        finally:
            self.locks.released(INO, handle)

    def unlock(self, owner: int, start: int = 0, end: int = 99, *, flock: bool = False) -> None:
        self.locks.unlock(INO, owner, start, end, is_flock=flock)


class LockWorld:
    """One namespace, its mounts, and the time."""

    def __init__(self) -> None:
        self.map = MemoryMap()
        self.now_s = 1000.0
        self.mounts: list[LockMount] = []
        self.write(1)

    def mount(self, name: bytes = b"m") -> LockMount:
        self.mounts.append(LockMount(self, name))
        return self.mounts[-1]

    def write(self, time_ns: int) -> None:
        """Change the file's record, as a save does."""
        self.map.transact(lambda tx: inodes.save(tx, INO, inodes.new(0o100644, 0, 0, time_ns)))

    def make_beside(self, parent: int, name: bytes, ino: int) -> None:
        """Make another file."""
        entry = records.encode(Entry(records.FORMAT, ino, stat.S_IFREG))
        self.map.transact(lambda tx: tx.put(keys.entry(parent, name), entry))
        self.map.transact(lambda tx: inodes.save(tx, ino, inodes.new(0o100644, 0, 0, 1)))

    def table(self) -> locks.Locks:
        return locks.decode(self.map.items.get(keys.locks(INO)))

    def sessions(self) -> list[bytes]:
        return sorted(key[2:] for key in self.map.items if key.startswith(b"s/"))
