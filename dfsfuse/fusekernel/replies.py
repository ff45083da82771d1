"""Deferred answers: a request that waits (for a lock) occupies no thread, and ends when its process is killed.

The kernel sends INTERRUPT when a waiting process receives a signal. It may overtake the request that it refers to,
since several threads read: `Replies.interrupt` says so, and the session then asks the kernel to send it again.

Threads: any. `Replies.lock` guards which one answers: exactly one of the file system, the interruption and the end of
the session. Callbacks and the kernel are called without the lock.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

Send = Callable[[int, int, bytes], None]
"""Answers a request: its number, the errno or 0, and the body."""


class Reply:
    """The one answer to one request, which may be given at any time, by any thread."""

    def __init__(self, unique: int, replies: Replies) -> None:
        self.unique = unique
        self._replies = replies
        self._callback: Callable[[], None] | None = None
        self._is_interrupted = False

    def done(self) -> bool:
        """Answer with success. False: the request has already been answered (it was interrupted): undo what was
        granted."""
        return self._replies.answer(self, 0)

    def fail(self, error: int) -> bool:
        """Answer with this errno. False: as for `done`."""
        return self._replies.answer(self, error)

    def forget(self) -> bool:
        """Leave the answer to the caller. False: the request has already been answered."""
        return self._replies.take(self)

    def on_interrupt(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, once, when the process should stop waiting; immediately if that is already so.

        It should make sure that `fail(EINTR)` is called. It runs on a thread of the session, possibly while another
        thread answers.
        """
        with self._replies.lock:
            self._callback = callback
            call_now = self._is_interrupted
        if call_now:
            self.interrupt()

    def interrupt(self) -> None:
        """The process should stop waiting."""
        with self._replies.lock:
            self._is_interrupted = True
            callback, is_waiting = self._callback, self._replies.has(self)
            if callback is not None:
                self._callback = None
        if callback is not None and is_waiting:
            callback()


class Replies:
    """All pending answers of one session whose operations may wait."""

    def __init__(self, send: Send) -> None:
        self.lock = threading.Lock()
        self._send = send
        self._owed: dict[int, Reply] = {}

    def expect(self, unique: int) -> Reply:
        """Register a request whose answer may come later."""
        reply = Reply(unique, self)
        with self.lock:
            self._owed[unique] = reply
        return reply

    def has(self, reply: Reply) -> bool:
        """Whether the answer is still pending. Call with the lock held."""
        return self._owed.get(reply.unique) is reply

    def answer(self, reply: Reply, error: int) -> bool:
        """Answer, unless that has already been done."""
        if not self.take(reply):
            return False
        self._send(reply.unique, error, b"")
        return True

    def take(self, reply: Reply) -> bool:
        """Remove a pending answer. False: it was not pending."""
        with self.lock:
            if not self.has(reply):
                return False
            del self._owed[reply.unique]
            return True

    def interrupt(self, unique: int) -> bool:
        """Handle INTERRUPT. False: no such request is waiting (it may have been answered, or not been read yet)."""
        with self.lock:
            reply = self._owed.get(unique)
        if reply is None:
            return False
        reply.interrupt()
        return True

    def abandon(self) -> None:
        """The session ends: give all waiting programs an error; they can no longer be answered."""
        with self.lock:
            left = list(self._owed.values())
        for reply in left:
            try:
                reply.interrupt()
            except Exception:
                log.exception("request %d: its interruption failed", reply.unique)
            reply.fail(errno.ENOTCONN)
