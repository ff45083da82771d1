"""What the kernel keeps of names and attributes, and making it forget what other mounts have changed.

- The map tells which names and inodes another mount changed (`changed`). A thread sends the kernel notifications about
  those that it knows (`notifications`): from that thread only, since one that is sent from within an operation on the
  same inode waits for itself. (A lock that would wait too long for it uses a thread of `mapped_pages`.)
- A mount that is idle learns nothing. So the same thread looks for changes every `LOOK_EVERY_S`, as long as the kernel
  may be relying on something, and a little less often while a file is open for reading, since it may be mapped.
- open() must see the newest state, though the kernel may come straight from a name that it keeps. The look for the
  newest state that is part of it has told us what changed: if the name (or a folder above it) is among that, the answer
  is ESTALE, and the kernel looks the whole path up anew. What it then comes by was looked up since the program called,
  and is right whatever happens meanwhile: the thread is *excused*, once, for that and for where it started from. Not
  for anything else: it may never have come again, and its next call is another one.
- So must whatever changes names. There the names by which the kernel has come (`way`) are part of the transaction.
- open() must see the newest size and data as well, and so must whoever gets a lock: the kernel is told before they are
  answered. Where the kernel's pages are known to show the newest data, open() lets it keep them (`kept_pages`).

Knows names and inode numbers; no map, no keys. Threads: any number of callers; `_lock` guards all state and is held
for moments only. One thread of its own, between `start` and `close`.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from dfsfuse.errors import DfsError, posix_error
from dfsfuse.mount.kept_pages import KeptPages
from dfsfuse.mount.notifications import PATIENCE_S, Device, Name, Notifications
from dfsfuse.namespace.ops.directories import Step, Way
from dfsfuse.vfs.names.changed import Changed

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.4
LOOK_WHILE_OPEN_S: Final = 0.8
"""The same while a file is open for reading: a program that reads it through a mapping asks for nothing."""
END_DEADLINE_S: Final = 5.0
_DEPTH_MAX: Final = 256
_ROOT: Final = 1
EXCUSED_FOR_S: Final = 2.0
"""The kernel tries again at once. What is not used by then is of a call that found no such name the second time."""
_EXCUSED_MAX: Final = 1000


class Excuse:
    """Of a thread whose last operation was answered with ESTALE: until when it lasts, and for which inodes: those by
    which it came then, and those that have been looked up since."""

    __slots__ = ("inos", "until")

    def __init__(self, inos: set[int], until: float) -> None:
        self.inos = inos
        self.until = until


class KernelCaches:
    """See the module. `look` makes the map learn of changes; the kernel relies on an answer for `keeps_s`. `is_mapped`
    says whether a program may be reading a file without asking."""

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
        """What the kernel was told to be under each name."""
        self._names: dict[int, tuple[Name, ...] | set[Name]] = {}
        """The same, the other way round; also inodes that it knows without a name. A set takes much memory, and only
        an inode that has several names needs one."""
        self._stale: set[int] = set()
        """Inodes that the kernel may reach by a name which another mount has changed."""
        self._excused: dict[int, Excuse] = {}
        """By thread."""
        self._pages = KeptPages()
        self._relies_until = float("-inf")
        self._wake = threading.Event()
        self._notifications = Notifications(device, self._wake, patience_s)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="kernel-caches", daemon=True)

    # ------------------------------------------------------------------ what the kernel is told

    def given(self, parent: int, name: bytes, ino: int) -> None:
        """The kernel gets this entry. To be called within the read that found it: then what is learnt later comes
        after it."""
        self.given_many(parent, ((name, ino),))

    def given_many(self, parent: int, found: Iterable[tuple[bytes, int]]) -> None:
        """The kernel gets these entries of a folder. As `given`."""
        with self._lock:
            for name, ino in found:
                self._put((parent, name), ino)
                self._stale.discard(ino)
                if self._excused:
                    self._looked_up(ino)
        self.relied_on()

    def relied_on(self) -> None:
        """The kernel gets something that it keeps for a while."""
        if self._keeps_s:
            until = self._clock() + self._keeps_s
            begins = self._relies_until < until - self._keeps_s
            self._relies_until = until
            if begins:
                self._wake.set()

    def removed(self, parent: int, name: bytes) -> None:
        """A name was removed here, and the kernel knows."""
        with self._lock:
            self._take(parent, name)

    def moved(self, parent: int, name: bytes, new_parent: int, new_name: bytes, *, exchanged: bool = False) -> None:
        """A name was changed here, and the kernel has done the same with what it keeps."""
        with self._lock:
            source, target = self._take(parent, name), self._take(new_parent, new_name)
            moved = [(source, (new_parent, new_name)), *([(target, (parent, name))] if exchanged else [])]
            for ino, at in moved:
                if ino is not None:
                    self._put(at, ino)

    def forgotten(self, ino: int, is_known: Callable[[int], bool]) -> None:
        """The kernel has taken back look-ups; does it still know the inode?"""
        with self._lock:
            if is_known(ino):
                return
            for at in self._names.pop(ino, ()):
                self._inodes.pop(at, None)
            self._stale.discard(ino)
            self._pages.forget(ino)

    def _put(self, at: Name, ino: int) -> None:
        """The kernel believes this name to be the inode's. With the lock held."""
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

    def tell_of_mode(self, ino: int) -> None:
        """The mode has changed along with something else, and the kernel does not expect it to: let it ask again. May
        be called within an operation on the inode."""
        try:
            self._notifications.tell_here(ino, is_data=False)
        except OSError as error:
            log.warning("inode %d: the kernel keeps its old mode: %s", ino, error)

    # ------------------------------------------------------------------ what others change

    def changed(self, changes: Iterable[Changed] | None) -> None:
        """Another mount changed this; None: perhaps everything. Never blocks."""
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
        """Who comes again may come by this. With the lock held."""
        now = self._clock()
        for who, excuse in list(self._excused.items()):
            if excuse.until < now:
                del self._excused[who]
            else:
                excuse.inos.add(ino)

    def way(self, who: int, *inos: int) -> Way:
        """By which names the kernel has come to these inodes, as far as it is known. `who` is the calling thread's
        number. Raises OSError (ESTALE) if one of the names is no more; then it comes again, by the new ones."""
        with self._lock:
            steps, stale = self._ways(inos)
            excuse = self._excused.pop(who, None)
            if excuse is not None and excuse.until >= self._clock():
                self._stale -= stale & excuse.inos  # it came the same way again
                stale -= excuse.inos
                steps = [step for step in steps if step[2] not in excuse.inos]
            if not stale:
                return steps
            if not who:
                self._stale -= stale  # nobody can tell who comes again
        self.excuse(who, *inos)
        raise posix_error(errno.ESTALE)

    def _ways(self, inos: Iterable[int]) -> tuple[list[Step], set[int]]:
        """The names by which the kernel has come to these, and which inodes it has come to by a name that is no more.
        With the lock held."""
        steps: list[Step] = []
        stale: set[int] = set()
        for ino in inos:
            self._climb(ino, steps, stale)
        return steps, stale

    def _climb(self, ino: int, steps: list[Step], stale: set[int]) -> None:
        """Add the names from the inode upwards, and who of them is stale. With the lock held."""
        for _ in range(_DEPTH_MAX):
            if ino in self._stale:
                stale.add(ino)
            names = self._names.get(ino, ())
            if len(names) != 1:  # it has none that is known, or it cannot be told which
                return
            ((parent, name),) = names
            steps.append((parent, name, ino))
            ino = parent

    def excuse(self, who: int, *inos: int) -> None:
        """This thread, which had come to these inodes, was answered with ESTALE. It comes again: from where it started,
        by names that it looks up now."""
        with self._lock:
            if who:
                if len(self._excused) >= _EXCUSED_MAX:
                    self._excused.clear()
                steps, stale = self._ways(inos)
                passed = {*inos, *stale, *(ino for _, _, ino in steps)}
                self._excused[who] = Excuse(passed, self._clock() + EXCUSED_FOR_S)

    def opened(self, ino: int, who: int) -> None:
        """The newest state was looked at, to open the inode: can the kernel have come to it by a name that is no more,
        or does it believe in attributes that are old? Raises OSError (ESTALE)."""
        self.way(who, ino)
        if not self._notifications.told(ino):
            self._notifications.tell_here(ino, is_data=False)

    # ------------------------------------------------------------------ pages

    def keeps_pages(self, ino: int, handle: int, *, are_stored: bool, are_noticed: Callable[[], bool]) -> bool:
        """The file was opened in its newest state, and nothing is answered yet. Return whether the kernel may keep its
        pages. `are_stored`: nothing that was written here waits to be saved, which might be lost. `are_noticed`:
        whether this mount must see that they are read."""
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
        """Somebody is about to get a lock on the file, which others have changed. Calls `then` when the kernel has
        dropped its pages. Where that takes long, `later` gets the rest to do, on a thread that serves no requests: the
        kernel may be waiting for requests to be answered, and all threads that do so could end up waiting here."""
        self._notifications.add_inode(ino, is_data=True)
        if self._notifications.told(ino):
            then()
        else:
            later(partial(self._tell_of_data, ino, then))

    def _tell_of_data(self, ino: int, then: Callable[[], None]) -> None:
        try:
            self._notifications.tell_here(ino, is_data=True)
        except OSError as error:
            log.warning("inode %d: the kernel keeps what it has of it: %s", ino, error)
        then()

    # ------------------------------------------------------------------ the thread

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End: nothing is sent any more, so that the device may be closed."""
        self._stopping = True
        self._notifications.end()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(END_DEADLINE_S)

    def next_look_s(self) -> float | None:
        """How long the thread waits until it looks for changes; None: nobody needs to know of any."""
        if self._clock() < self._relies_until:
            return LOOK_EVERY_S
        return LOOK_WHILE_OPEN_S if self._is_mapped() else None

    def _run(self) -> None:
        while not self._stopping:
            try:
                if not self._wake.wait(self.next_look_s()):
                    self.look()
                self._wake.clear()
                self.notify()
            except Exception:
                log.exception("looking for changes failed in a way nobody foresaw; it goes on")

    def look(self) -> None:
        """Let the map learn what others have changed."""
        try:
            self._look()
        except (DfsError, OSError) as error:
            log.debug("looking for changes: %s", error)

    def notify(self) -> None:
        """Tell the kernel what has changed. Never within an operation."""
        self._notifications.tell_all()
