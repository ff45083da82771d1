"""File locks in memory, for one inode: fcntl's byte ranges and flock's whole files, with waiting.

The rules of fcntl(2) and flock(2), as a small file system would keep them. Callers hold a lock of their own.
"""

from __future__ import annotations

import errno
import fcntl
from dataclasses import dataclass, field

from dfsfuse.fusekernel.replies import Reply
from dfsfuse.fusekernel.values import Lock


@dataclass(eq=False)
class Waiter:
    """A request that waits for others' locks to end."""

    owner: int
    lock: Lock
    reply: Reply


@dataclass
class LockTable:
    """The locks of one inode and one of the two kinds, and the requests that wait for them."""

    held: list[tuple[int, Lock]] = field(default_factory=list)
    waiting: list[Waiter] = field(default_factory=list)

    def in_the_way(self, owner: int, lock: Lock) -> Lock | None:
        """Return another owner's lock that conflicts with this one."""
        for other, held in self.held:
            writes = fcntl.F_WRLCK in (held.type, lock.type)
            if other != owner and writes and held.start <= lock.end and lock.start <= held.end:
                return held
        return None

    def put(self, owner: int, lock: Lock) -> None:
        """Replace the owner's locks in this range."""
        kept: list[tuple[int, Lock]] = []
        for other, held in self.held:
            if other != owner or held.end < lock.start or lock.end < held.start:
                kept.append((other, held))
                continue
            if held.start < lock.start:
                kept.append((other, held._replace(end=lock.start - 1)))
            if held.end > lock.end:
                kept.append((other, held._replace(start=lock.end + 1)))
        if lock.type != fcntl.F_UNLCK:
            kept.append((owner, lock))
        self.held = kept

    def set(self, owner: int, lock: Lock, reply: Reply, *, wait: bool) -> Waiter | None:
        """Grant, refuse, or queue; returns the waiter if queued."""
        if lock.type == fcntl.F_UNLCK or self.in_the_way(owner, lock) is None:
            before = list(self.held)
            self.put(owner, lock)
            if not reply.done():
                self.held = before
            self.grant()
            return None
        if not wait:
            reply.fail(errno.EAGAIN)
            return None
        waiter = Waiter(owner, lock, reply)
        self.waiting.append(waiter)
        return waiter

    def grant(self) -> None:
        """Answer all waiters that no lock conflicts with any more."""
        for waiter in list(self.waiting):
            if self.in_the_way(waiter.owner, waiter.lock) is None:
                self.waiting.remove(waiter)
                before = list(self.held)
                self.put(waiter.owner, waiter.lock)
                if not waiter.reply.done():
                    self.held = before

    def interrupt(self, waiter: Waiter) -> None:
        """Remove the waiter."""
        if waiter in self.waiting:
            self.waiting.remove(waiter)
            waiter.reply.fail(errno.EINTR)

    def drop(self, owner: int) -> None:
        """Remove all locks of the owner."""
        self.held = [(other, held) for other, held in self.held if other != owner]
        self.grant()
