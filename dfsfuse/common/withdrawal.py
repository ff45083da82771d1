"""Operations that no program waits for any more, since it was ended: what they have not changed yet, they must
not change later, after what others do meanwhile.

A thread that carries out such an operation is *withdrawn*, by another thread. It continues, for it may hold locks or be
agreeing on a batch; but before it changes something it calls `check` here, and gives up. A batch that is in flight is
not taken back: it gets its place in the log before whatever comes later, or never. An operation that cannot call
`check` during its next step checks for the last time with `pass_point`, and is not withdrawn from then on.

Threads: any. `_lock` guards both sets; `check` reads one of them without it, since a withdrawal that comes too late for
it is the same as one that comes while the change is in flight.
"""

from __future__ import annotations

import errno
import threading
from threading import get_ident

from dfsfuse.errors import posix_error

_lock = threading.Lock()
_withdrawn: set[int] = set()
_past_point: set[int] = set()


def withdraw(thread: int) -> bool:
    """Withdraw what this thread does. Returns whether that is possible: it is not past the point."""
    with _lock:
        if thread in _past_point:
            return False
        _withdrawn.add(thread)
        return True


def forget() -> None:
    """Record that this thread's next operation is a different one."""
    with _lock:
        _withdrawn.discard(get_ident())


def check() -> None:
    """Raise InterruptedError if what this thread does is withdrawn."""
    if _withdrawn and get_ident() in _withdrawn:
        raise posix_error(errno.EINTR)


def pass_point() -> None:
    """Raise InterruptedError if what this thread does is withdrawn; otherwise it cannot be withdrawn until `over`."""
    thread = get_ident()
    with _lock:
        if thread in _withdrawn:
            raise posix_error(errno.EINTR)
        _past_point.add(thread)


def over() -> None:
    """Record that whatever has passed the point is over."""
    _past_point.discard(get_ident())
