"""Tracks which names and attributes the kernel has cached, and makes it forget those that other mounts have changed.

- The map reports which names and inodes another mount changed (`changed`). A thread sends the kernel notifications
  about those that it knows (`notifications`). Only that thread does so, since a notification sent from within an
  operation on the same inode would wait for itself. (A lock that would have to wait too long for it uses a thread of
  `mapped_pages`.)
- An idle mount learns nothing. So the same thread polls for changes every `POLL_EVERY_S`, as long as the kernel may be
  relying on something, and a little less often while a file is open for reading, since it may be mapped.
- open() must see the newest state, even though the kernel may have used a cached name. open() queries the newest state,
  and thereby learns what changed: if the name (or a folder above it) is among the changes, the answer is ESTALE, and
  the kernel looks up the whole path again. The names it then uses were looked up after the program's call, and are
  valid whatever happens in the meantime: the thread is *exempt* from this check once, for those names and for the
  folder where it started. It remains subject to it for everything else: it might never retry, and its next call would
  be a different one.
- The same holds for every operation that changes names. There, the names by which the kernel reached the inodes
  (`route`) become part of the transaction.
- open() must also see the newest size and data, and so must a program that gets a lock: the kernel is notified before
  they are answered. If the kernel's pages are known to show the newest data, open() lets it keep them (`kept_pages`).

Knows names and inode numbers; no map, no keys. Threads: any number of callers; `_lock` guards all state and is held
only briefly. It has one thread of its own, between `start` and `close`.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from dfsfuse.common.events import Changed
from dfsfuse.common.worker import Worker
from dfsfuse.errors import DfsError, posix_error
from dfsfuse.mount.kept_pages import KeptPages
from dfsfuse.mount.notifications import PATIENCE_S, Device, Name, Notifications
from dfsfuse.namespace.ops.directories import Route, Step

log = logging.getLogger(__name__)

POLL_EVERY_S: Final = 0.4
POLL_WHILE_OPEN_S: Final = 0.8
"""The same while a file is open for reading: a program that reads it through a mapping sends no requests."""
END_DEADLINE_S: Final = 5.0
_DEPTH_MAX: Final = 256
_ROOT: Final = 1
EXEMPT_FOR_S: Final = 2.0
"""The kernel retries immediately. An exemption that is unused after this time belongs to a call that failed with ENOENT
on its retry."""
_EXEMPT_MAX: Final = 1000


class Exemption:
    """For a thread whose last operation was answered with ESTALE: when the exemption expires, and the inodes it covers:
    those through which the thread came, and those that have been looked up since."""

    __slots__ = ("inos", "until")

    def __init__(self, inos: set[int], until: float) -> None:
        self.inos = inos
        self.until = until


class KernelCaches:
    """See the module. `look` makes the map learn of changes; the kernel relies on an answer for `keeps_s`. `is_mapped`
    says whether a program may be reading a file without sending requests."""

    def __init__(
        self,
        look: Callable[[], None],
        device: Device,
        keeps_s: float,
        clock: Callable[[], float] = time.monotonic,
        patience_s: float = PATIENCE_S,
        is_mapped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._look = look
        self._is_mapped = is_mapped
        self._keeps_s = keeps_s
        self._clock = clock
        self._lock = threading.Lock()
        self._inodes: dict[Name, int] = {}
        """The inode that the kernel was given for each name."""
        self._names: dict[int, tuple[Name, ...] | set[Name]] = {}
        """The inverse mapping; also inodes that the kernel knows without a name. A set takes much memory, so only an
        inode with several names has one."""
        self._stale: set[int] = set()
        """Inodes that the kernel may reach by a name that another mount has changed."""
        self._exempt: dict[int, Exemption] = {}
        """By thread."""
        self._pages = KeptPages()
        self._relies_until = float("-inf")
        self._worker = Worker("kernel-caches", self.next_poll_s, "looking for changes", stop_s=END_DEADLINE_S)
        self._notifications = Notifications(device, self._worker.wake, patience_s)

    # ------------------------------------------------------------------ what the kernel is told

    def given(self, parent: int, name: bytes, ino: int) -> None:
        """Record that the kernel gets this entry. Call it within the read that found the entry, so that anything learnt
        later comes after it."""
        self.given_many(parent, ((name, ino),))

    def given_many(self, parent: int, found: Iterable[tuple[bytes, int]]) -> None:
        """Record that the kernel gets these entries of a folder. See `given`."""
        with self._lock:
            for name, ino in found:
                self._put((parent, name), ino)
                self._stale.discard(ino)
                if self._exempt:
                    self._looked_up(ino)
        self.relied_on()

    def relied_on(self) -> None:
        """Record that the kernel gets something that it caches for a while."""
        if self._keeps_s:
            until = self._clock() + self._keeps_s
            begins = self._relies_until < until - self._keeps_s
            self._relies_until = until
            if begins:
                self._worker.wake()

    def removed(self, parent: int, name: bytes) -> None:
        """Record that a name was removed through this mount, and that the kernel knows."""
        with self._lock:
            self._take(parent, name)

    def moved(self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, exchanged: bool = False) -> None:
        """Record that a name was changed through this mount, and that the kernel has updated its cache alike."""
        with self._lock:
            source, target = self._take(parent, name), self._take(new_parent, new_name)
            moved = [(source, (new_parent, new_name)), *([(target, (parent, name))] if exchanged else [])]
            for ino, at in moved:
                if ino is not None:
                    self._put(at, ino)

    def forgotten(self, ino: int, is_known: Callable[[int], bool]) -> None:
        """Record that the kernel has taken back lookups; `is_known` says whether it still knows the inode."""
        with self._lock:
            if is_known(ino):
                return
            for at in self._names.pop(ino, ()):
                self._inodes.pop(at, None)
            self._stale.discard(ino)
            self._pages.forget(ino)

    def _put(self, at: Name, ino: int) -> None:
        """Record that the kernel associates this name with the inode. Call with the lock held."""
        before = self._inodes.get(at)
        if before == ino:
            return
        if before is not None:
            self._take(*at)
        self._inodes[at] = ino
        known = self._names.get(ino)
        if not known:
            self._names[ino] = (at,)
        elif isinstance(known, set):
            known.add(at)
        else:
            self._names[ino] = {*known, at}

    def _take(self, parent: int, name: bytes) -> int | None:
        at = parent, name
        ino = self._inodes.pop(at, None)
        if ino is not None:
            known = self._names[ino]
            if isinstance(known, set):
                known.discard(at)
            else:
                self._names[ino] = ()
        return ino

    def names(self, ino: int) -> list[Name]:
        """The names under which the kernel knows the inode."""
        with self._lock:
            return list(self._names.get(ino, ()))

    def notify_of_mode(self, ino: int) -> None:
        """Make the kernel ask for the attributes again, since the mode changed as a side effect that it does not
        expect. May be called within an operation on the inode."""
        try:
            self._notifications.send_now(ino, is_data=False)
        except OSError as error:
            log.warning("inode %d: the kernel keeps its old mode: %s", ino, error)

    # ------------------------------------------------------------------ what others change

    def changed(self, changes: Iterable[Changed] | None) -> None:
        """Another mount changed these; None: anything may have changed. Never blocks."""
        with self._lock:
            if changes is None:
                self._pages.all_changed()
                known = [Changed(ino, is_data=True) for ino in self._names]
                changes = [Changed(parent, name) for parent, name in self._inodes] + known
            for change in changes:
                if change.name is not None:
                    ino = self._take(change.ino, change.name)
                    if ino is None:
                        continue
                    self._stale.add(ino)
                    self._notifications.add_name(change.ino, change.name)
                    continue
                self._pages.changed(change.ino)
                if change.ino in self._names or change.ino == _ROOT:
                    self._notifications.add_inode(change.ino, is_data=change.is_data)

    def _looked_up(self, ino: int) -> None:
        """A retrying thread may come through this inode. Call with the lock held."""
        now = self._clock()
        for who, exemption in list(self._exempt.items()):
            if exemption.until < now:
                del self._exempt[who]
            else:
                exemption.inos.add(ino)

    def route(self, who: int, *inos: int) -> Route:
        """The names by which the kernel has reached these inodes, as far as they are known. `who` is the calling
        thread's number. Raises OSError (ESTALE) if one of the names no longer exists; the kernel then retries with new
        names."""
        with self._lock:
            steps, stale = self._routes(inos)
            exemption = self._exempt.pop(who, None)
            if exemption is not None and exemption.until >= self._clock():
                self._stale -= stale & exemption.inos  # it reached the inode by the same names again
                stale -= exemption.inos
                steps = [step for step in steps if step[2] not in exemption.inos]
            if not stale:
                return steps
            if not who:
                self._stale -= stale  # the retry cannot be attributed to a thread
        self.exempt(who, *inos)
        raise posix_error(errno.ESTALE)

    def _routes(self, inos: Iterable[int]) -> tuple[list[Step], set[int]]:
        """The names by which the kernel has reached these inodes, and the inodes that it reached by a name that no
        longer exists. Call with the lock held."""
        steps: list[Step] = []
        stale: set[int] = set()
        for ino in inos:
            self._climb(ino, steps, stale)
        return steps, stale

    def _climb(self, ino: int, steps: list[Step], stale: set[int]) -> None:
        """Add the names from the inode upwards, and the inodes among them that are stale. Call with the lock held."""
        for _ in range(_DEPTH_MAX):
            if ino in self._stale:
                stale.add(ino)
            names = self._names.get(ino, ())
            if len(names) != 1:  # no known name, or several: the one that was used is unknown
                return
            ((parent, name),) = names
            steps.append((parent, name, ino))
            ino = parent

    def exempt(self, who: int, *inos: int) -> None:
        """Record that this thread, which had reached these inodes, was answered with ESTALE. It retries from where it
        started, with names that it looks up now."""
        with self._lock:
            if who:
                if len(self._exempt) >= _EXEMPT_MAX:
                    self._exempt.clear()
                steps, stale = self._routes(inos)
                passed = {*inos, *stale, *(ino for _, _, ino in steps)}
                self._exempt[who] = Exemption(passed, self._clock() + EXEMPT_FOR_S)

    def opened(self, ino: int, who: int) -> None:
        """Check, once the newest state has been queried for opening the inode, whether the kernel may have reached it
        by a name that no longer exists, or may have stale attributes. Raises OSError (ESTALE)."""
        self.route(who, ino)
        if not self._notifications.wait_until_sent(ino):
            self._notifications.send_now(ino, is_data=False)

    # ------------------------------------------------------------------ pages

    def keeps_pages(self, ino: int, handle: int, *, are_stored: bool, are_noticed: Callable[[], bool]) -> bool:
        """Return whether the kernel may keep the file's pages. Call after the file was opened in its newest state,
        before the answer. `are_stored`: no data written here is waiting to be saved, which might be lost.
        `are_noticed`: whether this mount must see the reads."""
        if not are_stored:
            return False
        is_left_alone = self._pages.is_current(ino) and not are_noticed()
        with self._lock:
            if is_left_alone and self._pages.is_current(ino):
                return True
            self._pages.dropped(ino, handle)
            return False

    def closing(self, handle: int) -> None:
        """The kernel closes a descriptor with this handle."""
        with self._lock:
            self._pages.closing(handle)

    def changed_here(self, ino: int) -> None:
        """This mount has changed the file's content, or tried to."""
        if self._pages.concerns(ino):
            with self._lock:
                self._pages.changed(ino)

    def locked(self, ino: int, then: Callable[[], None], later: Callable[[Callable[[], None]], None]) -> None:
        """Call `then` once the kernel has dropped its pages of a file that others have changed, because a program is
        about to get a lock on it. If that takes long, `later` does the rest on a thread that serves no requests: the
        kernel may be waiting for requests to be answered, and all threads that answer them could end up waiting
        here."""
        self._notifications.add_inode(ino, is_data=True)
        if self._notifications.wait_until_sent(ino):
            then()
        else:
            later(partial(self._notify_of_data, ino, then))

    def _notify_of_data(self, ino: int, then: Callable[[], None]) -> None:
        try:
            self._notifications.send_now(ino, is_data=True)
        except OSError as error:
            log.warning("inode %d: the kernel keeps its cached data: %s", ino, error)
        then()

    # ------------------------------------------------------------------ the thread

    def start(self) -> None:
        """Begin."""
        self._worker.start(self._step)

    def close(self) -> None:
        """End: nothing is sent from now on, so that the device may be closed."""
        self._notifications.end()
        self._worker.close()

    def next_poll_s(self) -> float | None:
        """How long the thread waits before it polls for changes; None: no changes need to be known."""
        if self._clock() < self._relies_until:
            return POLL_EVERY_S
        return POLL_WHILE_OPEN_S if self._is_mapped() else None

    def _step(self) -> None:
        if not self._worker.was_woken:
            self.look()
        self.notify()

    def look(self) -> None:
        """Make the map learn what others have changed."""
        try:
            self._look()
        except (DfsError, OSError) as error:
            log.debug("looking for changes: %s", error)

    def notify(self) -> None:
        """Tell the kernel what has changed. Never within an operation."""
        self._notifications.send_all()
