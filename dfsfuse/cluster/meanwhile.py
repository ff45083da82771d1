"""What else a thread looks at while it waits for a server.

A thread that serves a mount, and has to wait for a server, is not to keep others from being served meanwhile. To have
another thread ready beside it at each request would cost more than most requests do. So it waits for both, the server
and the next request, and has somebody else see to that if it comes first.

Threads: a watch is of one thread, set by itself.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from math import ceil


class Watch:
    """`descriptor` becomes readable when there is other work; then `hand_over` is called, once for each wait, if
    `is_wanted`. Neither may wait."""

    def __init__(self, descriptor: int, is_wanted: Callable[[], bool], hand_over: Callable[[], None]) -> None:
        self.descriptor = descriptor
        self.is_wanted = is_wanted
        self.hand_over = hand_over


class _Waiter(threading.local):
    """Of each thread its own."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.watch: Watch | None = None


_waiter = _Waiter()


def watch(wanted: Watch | None) -> None:
    """From now on this thread looks at that too (None: at nothing else) when it waits for a server."""
    _waiter.watch = wanted


def wait(descriptor: int, events: int, timeout_s: float) -> int:
    """Wait for these events of a server's connection. Returns which have come; 0 if none has in time."""
    poll, other = _waiter.poll, _waiter.watch
    timeout_ms = ceil(max(0.0, timeout_s) * 1000)
    poll.register(descriptor, events)
    try:
        if other is not None and other.is_wanted():
            poll.register(other.descriptor, select.POLLIN)
            try:
                ready = dict(poll.poll(timeout_ms))
            finally:
                poll.unregister(other.descriptor)
            if descriptor in ready or not ready:
                return ready.get(descriptor, 0)
            other.hand_over()
        found = poll.poll(timeout_ms)
        return found[0][1] if found else 0
    finally:
        poll.unregister(descriptor)
