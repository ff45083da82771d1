"""What else a thread watches while it waits for a server.

A thread that serves a mount, and has to wait for a server, must not keep others from being served meanwhile. Having
another thread ready beside it for each request would cost more than most requests do. So it waits for both, the server
and the next request, and hands the latter to another thread if it comes first.

Threads: a watch belongs to one thread, which sets it itself.
"""

from __future__ import annotations

import select
import threading
from math import ceil
from typing import Protocol


class Watch(Protocol):
    """What a thread does beside waiting. None of this may wait."""

    @property
    def descriptor(self) -> int:
        """Return a descriptor that is readable when there is other work."""

    def begin(self) -> bool:
        """Prepare for a wait. Returns whether the descriptor is to be watched too."""

    def end(self) -> None:
        """End the wait."""

    def hand_over(self) -> None:
        """Hand over the other work. Called at most once per wait, while the thread waits on."""


class _Waiter(threading.local):
    """One per thread."""

    def __init__(self) -> None:
        self.poll = select.poll()
        self.watch: Watch | None = None


_waiter = _Waiter()


def watch(wanted: Watch | None) -> None:
    """Make this thread watch that too from now on (None: nothing else) when it waits for a server."""
    _waiter.watch = wanted


def wait(descriptor: int, events: int, timeout_s: float) -> int:
    """Wait for these events of a server's connection. Returns those that have come; 0 if none has in time."""
    poll, other = _waiter.poll, _waiter.watch
    timeout_ms = ceil(max(0.0, timeout_s) * 1000)
    poll.register(descriptor, events)
    try:
        if other is None:
            found = poll.poll(timeout_ms)
            return found[0][1] if found else 0
        try:
            return _wait_for_both(poll, descriptor, other, timeout_ms)
        finally:
            other.end()
    finally:
        poll.unregister(descriptor)


def wait_for_any(poll: select.poll, timeout_ms: int) -> list[tuple[int, int]]:
    """Wait for what is registered with the poll object. Returns what has come; nothing on a timeout, or if the other
    work was handed over: then the caller must work out how much longer to wait."""
    other = _waiter.watch
    if other is None:
        return poll.poll(timeout_ms)
    try:
        if not other.begin():
            return poll.poll(timeout_ms)
        descriptor = other.descriptor
        poll.register(descriptor, select.POLLIN)
        try:
            ready = poll.poll(timeout_ms)
        finally:
            poll.unregister(descriptor)
        found = [one for one in ready if one[0] != descriptor]
        if ready and not found:
            other.hand_over()
        return found
    finally:
        other.end()


def _wait_for_both(poll: select.poll, descriptor: int, other: Watch, timeout_ms: int) -> int:
    if other.begin():
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
