"""Decides which thread reads the next request: the one that just answered, as long as operations are quick (the
leader/followers pattern).

The kernel would wake another thread for each request, and both would contend for the interpreter's lock; one thread
that reads, answers and reads again is two to three times as fast. But an operation may wait for the network, and no
other request may have to wait for it. So there is a lock, and the thread that holds it, the leader, reads. For a kind
of request (opcode) that took longer than `PATIENCE_S` last time, a follower becomes the leader before the operation
begins. Otherwise the thread remains the leader; if the operation takes long after all, the supervisor promotes a
follower: a thread that checks every `PATIENCE_S` while there is work, and less often, up to `LONGEST_PAUSE_S`, as long
as there is nothing to do. An operation that waits, and checks in the meantime whether the next request has arrived,
promotes a follower itself (`ReaderState`): then it does not matter how long it waits, and a single reading program
needs only one thread.

Threads: `_leadership` is the leader's lock. `_lock` guards which thread keeps it while handling a request, and the
counts. `_slow` is only accessed through atomic set operations.
"""

from __future__ import annotations

import logging
import select
import threading
import time
from collections.abc import Callable
from typing import Final

from dfsfuse.fusekernel import wire

log = logging.getLogger(__name__)

PATIENCE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.008
_IDLE_POLLS: Final = 20
"""Number of checks without any work after which the supervisor sleeps until there is some."""
_NOBODY: Final = 0
_POLLS: Final = 100
"""At most this many checks for the next request before the thread sleeps until it arrives: about 100 microseconds."""
_UNPOLLED_MAX: Final = 15
"""At most this many requests are read without polling after polling in vain: one after the first time, then three..."""

Read = Callable[[bytearray], int | None]
Handle = Callable[[memoryview], None]


class ReaderState:
    """What one of the threads is doing. Private: no other thread accesses it. It is passed to waiting operations as a
    `dfsfuse.net.meanwhile.Watch`: `descriptor` is readable when there is a request to read."""

    def __init__(self, readers: Readers, descriptor: int) -> None:
        self.descriptor = descriptor
        self.turn = -1
        """The request that it is handling, or has handled last."""
        self.waits_since = 0.0
        self.waited_s = 0.0
        """How long it has waited, and checked, in this turn."""
        self._readers = readers

    def begin(self) -> bool:
        """The thread is about to wait. Return whether it should also watch the descriptor."""
        return self._readers.begin_waiting(self)

    def end(self) -> None:
        """The thread has stopped waiting."""
        self._readers.end_waiting(self)

    def hand_over(self) -> None:
        """A request has arrived, and the thread is still waiting."""
        self._readers.hand_over(self)


class BusyPolling:
    """Checks whether the next request is there, for a thread that has just answered.

    A program that works through a folder asks again within microseconds. A thread that sleeps until then is woken on
    another processor, which takes about as long as answering; a program and a mount on two processors got through a
    folder at half the speed of those that happened to share one. Where requests do not come that fast, fewer and fewer
    are polled for, down to one in sixteen. (The kernel does the same for virtual machines:
    Documentation/virt/kvm/halt-polling.rst.)
    """

    def __init__(self, is_there: Callable[[], object]) -> None:
        """`is_there`: returns something true if there is a request to read. It must not wait."""
        self._is_there = is_there
        self._unpolled = 0
        self._in_vain = 0
        """Number of times in a row that polling was in vain."""

    def poll(self) -> None:
        """Return as soon as a request is there, and soon in any case."""
        if self._unpolled:
            self._unpolled -= 1
            return
        for _ in range(_POLLS):
            if self._is_there():
                self._in_vain = 0
                return
        self._in_vain += 1
        self._unpolled = min(2**self._in_vain - 1, _UNPOLLED_MAX)


def _is_readable(descriptor: int) -> Callable[[], object]:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return lambda: poll.poll(0)


class Readers:
    """Threads that read with `read` until it returns None, and handle requests with `handle`, which raises nothing."""

    def __init__(
        self,
        read: Read,
        handle: Handle,
        buffer_bytes: int,
        threads_max: int,
        on_end: Callable[[], None] = lambda: None,
        descriptor: int = -1,
        on_start: Callable[[ReaderState], None] = lambda _: None,
    ) -> None:
        """`on_end` is called when there is nothing to read any more, perhaps while some threads still handle what they
        have read; by each thread that sees it. It must not block. `descriptor` is readable when there is something to
        read. `on_start` is called by each thread when it begins."""
        self._read = read
        self._handle = handle
        self._on_end = on_end
        self._on_start = on_start
        self._descriptor = descriptor
        self._buffer_bytes = buffer_bytes
        self._threads_max = threads_max
        self._leadership = threading.Lock()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._alive = 0
        self._spare = 0
        """Followers: they wait for the lock, or are about to."""
        self._is_short = False
        """Whether starting another thread failed when it was last tried."""
        self._turn = 0
        """Counts the requests that were read; changed only by the leader."""
        self._kept = _NOBODY
        """The turn whose thread remains the leader while it handles its request."""
        self._kept_opcode = 0
        self._slow: set[int] = set()
        self._watched = _NOBODY
        """The turn whose thread remains the leader, and checks while it waits whether the next request has
        arrived."""
        self._work = threading.Event()
        self.ended = threading.Event()
        """All threads have seen the end, or must not be waited for (`abandon`)."""

    def start(self) -> None:
        """Start the first reader and the supervisor."""
        with self._lock:
            self._start_reader()
        threading.Thread(target=self._supervise, name="fuse-supervisor", daemon=True).start()

    def begin_waiting(self, own: ReaderState) -> bool:
        """The thread is about to wait. Return whether it is the leader, and should check for the next
        request."""
        own.waits_since = time.monotonic()
        if self._kept != own.turn:
            return False
        self._watched = own.turn
        return True

    def end_waiting(self, own: ReaderState) -> None:
        """The thread has stopped waiting."""
        own.waited_s += time.monotonic() - own.waits_since
        if self._watched == own.turn:
            self._watched = _NOBODY

    def hand_over(self, own: ReaderState) -> None:
        """The next request has arrived, and the thread is still waiting: let another one read it."""
        with self._lock:
            if self._kept != own.turn:
                return
            self._kept = _NOBODY
        self._promote_follower()

    def abandon(self) -> None:
        """Do not wait for threads that are blocked in reading or in an operation."""
        self.ended.set()
        self._work.set()

    def join(self) -> None:
        """Wait until the threads have ended. They have, or are about to, unless they were abandoned."""
        for thread in list(self._threads):
            thread.join()

    # ------------------------------------------------------------------ readers

    def _start_reader(self) -> None:
        """Start a reader. Call with the lock held, which the new thread waits for. Raises RuntimeError, MemoryError."""
        thread = threading.Thread(target=self._run, name=f"fuse-{len(self._threads) + 1}", daemon=True)
        thread.start()
        self._threads.append(thread)
        self._alive += 1
        self._spare += 1

    def _run(self) -> None:
        try:
            own = ReaderState(self, self._descriptor)
            self._on_start(own)
            self._read_and_handle(own)
        except Exception:
            log.exception("a thread of the mount ended")
        with self._lock:
            self._alive -= 1
            is_last = self._alive == 0
        if is_last:
            self.abandon()

    def _read_and_handle(self, own: ReaderState) -> None:
        buffer = bytearray(self._buffer_bytes)
        view = memoryview(buffer)
        polling = BusyPolling(_is_readable(self._descriptor) if self._descriptor >= 0 else lambda: True)
        while True:
            self._leadership.acquire()
            with self._lock:
                self._spare -= 1
            is_leader = True
            while is_leader:
                try:
                    polling.poll()
                    length = self._read(buffer)
                except BaseException:
                    self._leadership.release()
                    raise
                if length is None:
                    self._leadership.release()  # so that the other threads see it too
                    self._on_end()
                    return
                is_leader = self._take_turn(view[:length], own)
            with self._lock:
                self._spare += 1

    def _take_turn(self, message: memoryview, own: ReaderState) -> bool:
        """Handle one request. Return whether this thread is still the leader."""
        opcode = wire.fuse_in_header.unpack_from(message)[1] if len(message) >= wire.fuse_in_header.size else 0
        self._turn = own.turn = turn = self._turn + 1
        own.waited_s = 0.0
        is_slow = opcode in self._slow
        if is_slow:
            self._promote_follower()
        else:
            self._kept_opcode = opcode
            self._kept = turn  # set this before checking `_work`: the supervisor uses the reverse order
            if not self._work.is_set():
                self._work.set()
        began = time.monotonic()
        self._handle(message)
        if is_slow and time.monotonic() - began - own.waited_s < PATIENCE_S:
            self._slow.discard(opcode)
        with self._lock:
            is_leader = self._kept == turn
            if is_leader:
                self._kept = _NOBODY
        return is_leader

    def _promote_follower(self) -> None:
        """Let another thread read, and start one if none is free. If none can be started, the first one that has
        answered its request reads next."""
        with self._lock:
            if self._spare == 0 and self._alive < self._threads_max:
                try:
                    self._start_reader()
                    self._is_short = False
                except (RuntimeError, MemoryError) as error:
                    if not self._is_short:
                        log.warning("no further thread can be started, the %d others go on: %s", self._alive, error)
                    self._is_short = True
        self._leadership.release()

    # ------------------------------------------------------------------ the supervisor

    def _supervise(self) -> None:
        seen, quiet, pause_s = _NOBODY, 0, PATIENCE_S
        while not self.ended.is_set():
            if quiet >= _IDLE_POLLS:
                self._work.clear()
                if self._kept == _NOBODY:
                    self._work.wait()
                quiet, pause_s = 0, PATIENCE_S
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            kept = self._kept
            if kept != _NOBODY and kept == self._watched:
                seen, quiet = _NOBODY, 0
                continue
            if kept != _NOBODY and kept == seen:
                self._replace_leader(kept)
                pause_s = PATIENCE_S
            quiet = 0 if kept != _NOBODY else quiet + 1
            seen = kept

    def _replace_leader(self, turn: int) -> None:
        with self._lock:
            if self._kept != turn:
                return
            self._kept = _NOBODY
            self._slow.add(self._kept_opcode)
        self._promote_follower()
