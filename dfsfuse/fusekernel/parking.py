"""Requests that wait: what failed for a reason that will pass is handled again later, and occupies no thread meanwhile.

A file system may say of an error that its request can wait (`Dispatcher`, `may_wait_s`). Then the request is kept here,
with a copy of its bytes, and handled again from its beginning when something has changed that may help, and every
`RETRY_S` in any case. It is answered at last with what the operation gives; with its error when its time is over; with
EINTR when its program is told to end; with ENOTCONN when the session ends. Any number of programs may wait, up to
`BYTES_MAX` of requests; what comes then fails at once. If something has to be done when a request is given up
(`give_up`), that may be over a network, and neither the keeper nor who is tried again waits for it.

The kernel tells only once that a waiting program has got a signal, whichever it is. Not every signal means that the
program is to stop waiting (a child has ended, a window was resized); so from then on the program is looked at, each
time that the keeper looks up.

Threads: one keeper while something waits, up to `WORKERS` that handle requests again, and as many that give them up.
`_lock` guards what waits.
"""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeAlias

log = logging.getLogger(__name__)

RETRY_S: Final = 1.0
GLANCE_S: Final = 0.1
"""How often the keeper looks whether something has changed, or somebody is told to end."""
WORKERS: Final = 4
BYTES_MAX: Final = 512 << 20


GiveUp: TypeAlias = "Callable[[Parked, int], None]"


class Parked:
    """One request that waits."""

    __slots__ = ("error", "give_up", "is_due", "is_interrupted", "is_tried", "message", "pid", "unique", "until")

    def __init__(
        self, unique: int, pid: int, message: bytes, error: int, until: float, give_up: GiveUp | None = None
    ) -> None:
        self.unique = unique
        self.pid = pid
        self.message = message
        self.error = error
        """The errno that it is answered with when its time is over."""
        self.until = until
        self.give_up = give_up
        """Answers it with an error, if more than the answer is to be done."""
        self.is_interrupted = False
        self.is_due = False
        """Whether it is to be handled again, as soon as there is a thread for it."""
        self.is_tried = False
        """Whether it is being handled again just now, or given up: whoever does that answers it."""


class Parking:
    """See the module. `handle_again` answers the request, or calls `put_back`."""

    def __init__(
        self,
        handle_again: Callable[[Parked], None],
        answer: Callable[[int, int], None],
        *,
        changes: Callable[[], object],
        is_told_to_end: Callable[[int], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`changes` gives something that is different when it is worth trying again; it must not wait. `answer` gets
        a request's number and an errno; `is_told_to_end` the number of a thread of a program."""
        self._handle_again = handle_again
        self._answer = answer
        self._changes = changes
        self._is_told_to_end = is_told_to_end
        self._clock = clock
        self._lock = threading.Lock()
        self._parked: dict[int, Parked] = {}
        self._bytes = 0
        self._keeper: threading.Thread | None = None
        self._workers: ThreadPoolExecutor | None = None
        self._enders: ThreadPoolExecutor | None = None
        self._wake = threading.Event()
        self._has_ended = False

    def park(
        self, unique: int, pid: int, message: memoryview, error: int, wait_s: float, give_up: GiveUp | None = None
    ) -> bool:
        """Keep a request that has just failed with this errno. False: it cannot wait, and is to be answered. `give_up`:
        answers it, with this or another errno, and calls `done`, if it waits in vain while the session lasts; it may
        take its time."""
        with self._lock:
            if self._has_ended or self._bytes + len(message) > BYTES_MAX:
                return False
            self._parked[unique] = Parked(unique, pid, bytes(message), error, self._clock() + wait_s, give_up)
            self._bytes += len(message)
            if self._keeper is None:
                try:
                    keeper = threading.Thread(target=self._keep, name="fuse-parking", daemon=True)
                    keeper.start()
                except (RuntimeError, MemoryError):
                    self._take(unique)
                    return False
                self._keeper = keeper
        return True

    def put_back(self, parked: Parked, error: int) -> bool:
        """It was handled again, and has to wait on. False: as for `park`."""
        with self._lock:
            if self._has_ended or parked.unique not in self._parked:
                return False
            parked.is_tried, parked.error = False, error
        self._wake.set()
        return True

    def done(self, parked: Parked) -> None:
        """It was handled again or given up, and is answered. An interruption is heard until then: the kernel would send
        again and again what nobody knows of."""
        with self._lock:
            self._take(parked.unique)

    def interrupt(self, unique: int) -> bool:
        """A program that waits has got a signal. False: no such request waits here."""
        with self._lock:
            parked = self._parked.get(unique)
            if parked is None:
                return False
            parked.is_interrupted = True
        self._wake.set()
        return True

    def abandon(self) -> None:
        """The session ends: whoever waits is told so."""
        with self._lock:
            self._has_ended = True
            left = [parked for parked in self._parked.values() if not parked.is_tried]
            for parked in left:
                self._take(parked.unique)
            workers, enders = self._workers, self._enders
        self._wake.set()
        for parked in left:
            self._answer(parked.unique, errno.ENOTCONN)
        if workers is not None:
            workers.shutdown(wait=False, cancel_futures=True)
        if enders is not None:
            enders.shutdown(wait=False)  # what is given up already gets its answer

    def _take(self, unique: int) -> None:
        """Forget it. Holds the lock."""
        parked = self._parked.pop(unique, None)
        if parked is not None:
            self._bytes -= len(parked.message)

    # ------------------------------------------------------------------ the keeper

    def _keep(self) -> None:
        """Until nothing waits any more."""
        seen, tried_at = self._changes(), self._clock()
        while True:
            with self._lock:
                if not self._parked or self._has_ended:
                    self._keeper = None
                    return
            self._wake.wait(GLANCE_S)
            self._wake.clear()
            try:
                self._end_some()
                now, changes = self._clock(), self._changes()
                if changes != seen or now - tried_at >= RETRY_S:
                    seen, tried_at = changes, now
                    self._try_all()
            except Exception:
                log.exception("looking after waiting requests failed; it goes on")

    def _end_some(self) -> None:
        """Answer those whose time is over, and those whose programs are told to end."""
        with self._lock:
            resting = [parked for parked in self._parked.values() if not parked.is_tried]
        now = self._clock()
        ended = {parked: parked.error for parked in resting if now >= parked.until}
        for parked in resting:
            if parked.is_interrupted and self._is_told_to_end(parked.pid):
                ended[parked] = errno.EINTR
        for parked, error in ended.items():
            with self._lock:
                if parked.is_tried or parked.unique not in self._parked:
                    continue
                if parked.give_up is not None:
                    parked.is_tried = True
                    if self._enders is None:
                        self._enders = ThreadPoolExecutor(WORKERS, thread_name_prefix="fuse-give-up")
                    self._enders.submit(parked.give_up, parked, error)
                    continue
                self._take(parked.unique)
            self._answer(parked.unique, error)

    def _try_all(self) -> None:
        with self._lock:
            if self._has_ended:
                return
            if self._workers is None:
                self._workers = ThreadPoolExecutor(WORKERS, thread_name_prefix="fuse-retry")
            for parked in self._parked.values():
                if not (parked.is_due or parked.is_tried):
                    parked.is_due = True
                    self._workers.submit(self._try, parked)

    def _try(self, parked: Parked) -> None:
        """On a worker. Until then it may have been answered: it waited for a thread like for anything else."""
        with self._lock:
            parked.is_due = False
            if parked.is_tried or parked.unique not in self._parked:
                return
            parked.is_tried = True
        self._handle_again(parked)
