"""Parked requests: a request that failed for a temporary reason is handled again later, and occupies no thread in the
meantime.

A file system may say of an error that its request can wait (`Dispatcher`, `may_wait_s`). Then the request is kept here,
with a copy of its bytes, and is handled again from its beginning when something has changed that may help, and every
`RETRY_S` in any case. It is finally answered with the result of the operation; with its error when its time is over;
with EINTR when its program is told to end; with ENOTCONN when the session ends. Any number of programs may wait, up to
`BYTES_MAX` bytes of requests; further ones fail immediately. If something must be done when a request is given up
(`give_up`), that may need the network, and neither the keeper nor retried requests wait for it.

The kernel reports only once that a waiting program has received a signal, whichever it is. Not every signal means that
the program should stop waiting (a child has ended, a window was resized); so from then on the keeper checks the program
in each of its rounds.

Threads: one keeper while any request waits, up to `WORKERS` that handle requests again, and as many that give them up.
`_lock` guards the parked requests.
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
POLL_S: Final = 0.1
"""How often the keeper checks whether something has changed, or a program was told to end."""
WORKERS: Final = 4
BYTES_MAX: Final = 512 << 20


GiveUp: TypeAlias = "Callable[[Parked, int], None]"


class Parked:
    """One parked request."""

    __slots__ = ("error", "give_up", "is_due", "is_interrupted", "is_tried", "message", "pid", "unique", "until")

    def __init__(
        self, unique: int, pid: int, message: bytes, error: int, until: float, give_up: GiveUp | None = None
    ) -> None:
        self.unique = unique
        self.pid = pid
        self.message = message
        self.error = error
        """The errno of its answer when its time is over."""
        self.until = until
        self.give_up = give_up
        """Answers it with an error, if more than the answer must be done."""
        self.is_interrupted = False
        self.is_due = False
        """Whether it is to be handled again as soon as a thread is free."""
        self.is_tried = False
        """Whether it is currently being handled again, or given up: the thread that does so answers it."""


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
        """`changes` returns a value that changes when retrying is worthwhile; it must not block. `answer` gets a
        request's number and an errno; `is_told_to_end` the number of a thread of a program."""
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
        """Keep a request that has just failed with this errno. False: it cannot wait, and must be answered. `give_up`:
        answers it, with this or another errno, and calls `done`, if it waits in vain while the session lasts; it may
        take a long time."""
        seen = self._changes()
        with self._lock:
            if self._has_ended or self._bytes + len(message) > BYTES_MAX:
                return False
            self._parked[unique] = Parked(unique, pid, bytes(message), error, self._clock() + wait_s, give_up)
            self._bytes += len(message)
            if self._keeper is None:
                try:
                    keeper = threading.Thread(target=self._keep, args=(seen,), name="fuse-parking", daemon=True)
                    keeper.start()
                except (RuntimeError, MemoryError):
                    self._take(unique)
                    return False
                self._keeper = keeper
        return True

    def put_back(self, parked: Parked, error: int) -> bool:
        """Keep a request that was handled again and must go on waiting. False: as for `park`."""
        with self._lock:
            if self._has_ended or parked.unique not in self._parked:
                return False
            parked.is_tried, parked.error = False, error
        self._wake.set()
        return True

    def done(self, parked: Parked) -> None:
        """The request was handled again or given up, and is answered. Interruptions are accepted until then: otherwise
        the kernel would send them again and again."""
        with self._lock:
            self._take(parked.unique)

    def interrupt(self, unique: int) -> bool:
        """A waiting program has received a signal. False: no such request waits here."""
        with self._lock:
            parked = self._parked.get(unique)
            if parked is None:
                return False
            parked.is_interrupted = True
        self._wake.set()
        return True

    def abandon(self) -> None:
        """The session ends: give all waiting programs an error."""
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
            enders.shutdown(wait=False)  # requests that are being given up still get their answers

    def _take(self, unique: int) -> None:
        """Forget it. Call with the lock held."""
        parked = self._parked.pop(unique, None)
        if parked is not None:
            self._bytes -= len(parked.message)

    # ------------------------------------------------------------------ the keeper

    def _keep(self, seen: object) -> None:
        """Run until no request waits any more."""
        tried_at = self._clock()
        while True:
            with self._lock:
                if not self._parked or self._has_ended:
                    self._keeper = None
                    return
            self._wake.wait(POLL_S)
            self._wake.clear()
            try:
                self._end_some()
                now, changes = self._clock(), self._changes()
                if changes != seen or now - tried_at >= RETRY_S:
                    seen, tried_at = changes, now
                    self._try_all()
            except Exception:
                log.exception("handling waiting requests failed; it goes on")

    def _end_some(self) -> None:
        """Answer requests whose time is over, and those whose programs were told to end."""
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
        """Runs on a worker. The request may have been answered while it waited for the thread."""
        with self._lock:
            parked.is_due = False
            if parked.is_tried or parked.unique not in self._parked:
                return
            parked.is_tried = True
        self._handle_again(parked)
