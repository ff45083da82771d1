"""Answers that come later: a request that waits (for a lock) occupies no thread, and ends when its process is killed.

The kernel sends INTERRUPT when a waiting process gets a signal. It may overtake the request it is about, since several
threads read: `Replies.interrupt` says so, and the session then asks the kernel to send it again.

Threads: any. `Replies.lock` guards who answers: exactly one of the file system, the interruption and the end of the
session. Callbacks and the kernel are called without it.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Send = Callable[[int, int, bytes], None]
"""Answers a request: its number, the errno or 0, and what belongs to it."""


class Reply:
    """The one answer to one request, to be given at any time, by any thread."""

    def __init__(self, unique: int, replies: Replies) -> None:
        self.unique = unique
        self._replies = replies
        self._callback: Callable[[], None] | None = None
        self._is_interrupted = False

    def done(self) -> bool:
        """Success. False: the request has been answered before (it was interrupted): undo what was granted."""
        return self._replies.answer(self, 0)

    def fail(self, error: int) -> bool:
        """Failure with this errno. False: as for `done`."""
        return self._replies.answer(self, error)

    def forget(self) -> bool:
        """Somebody else answers. False: the request has been answered before."""
        return self._replies.take(self)

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, once, if the process is to stop waiting; at once if that is so already.

        It should see to it that `fail(EINTR)` is called. It runs on a thread of the session, and may come while
        another thread answers.
        """
        with self._replies.lock:
            self._callback = callback
            call_now = self._is_interrupted
        if call_now:
            self.interrupt()

    def interrupt(self) -> None:
        """The process is to stop waiting."""
        with self._replies.lock:
            self._is_interrupted = True
            callback, is_waiting = self._callback, self._replies.has(self)
            if callback is not None:
                self._callback = None
        if callback is not None and is_waiting:
            callback()


class Replies:
    """All answers that one session owes and whose operation may wait."""

    def __init__(self, send: Send) -> None:
        self.lock = threading.Lock()
        self._send = send
        self._owed: dict[int, Reply] = {}

    def expect(self, unique: int) -> Reply:
        """A request has come whose answer may come later."""
        reply = Reply(unique, self)
        with self.lock:
            self._owed[unique] = reply
        return reply

    def has(self, reply: Reply) -> bool:
        """Is it still owed? With the lock held."""
        return self._owed.get(reply.unique) is reply

    def answer(self, reply: Reply, error: int) -> bool:
        """Answer, unless it was answered before."""
        if not self.take(reply):
            return False
        self._send(reply.unique, error, b"")
        return True

    def take(self, reply: Reply) -> bool:
        """It is owed no more. False: it was not."""
        with self.lock:
            if not self.has(reply):
                return False
            del self._owed[reply.unique]
            return True

    def interrupt(self, unique: int) -> bool:
        """INTERRUPT. False: no such request is waiting (it may have been answered, or not been read yet)."""
        with self.lock:
            reply = self._owed.get(unique)
        if reply is None:
            return False
        reply.interrupt()
        return True

    def abandon(self) -> None:
        """The session ends: whoever waits is told so, and can no longer answer."""
        with self.lock:
            left = list(self._owed.values())
        for reply in left:
            try:
                reply.interrupt()
            except Exception:
                log.exception("request %d: its interruption failed", reply.unique)
            reply.fail(errno.ENOTCONN)
