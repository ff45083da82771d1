"""What can be found out about the process that asks, beyond what a request says: by /proc. No state.

A program that waits is told to end by a signal that ends it, or that it handles as most do that were asked to stop.
Signals that only tell it something (a child has ended, a window was resized, a timer of a profiler, another thread's
wish to be heard) do not count, and neither do those that suspend it: it is suspended when the operation is over.
"""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from dfsfuse.fusekernel.values import Context

_NEWS: Final = frozenset({
    signal.SIGCHLD, signal.SIGCONT, signal.SIGIO, signal.SIGPROF, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN,
    signal.SIGTTOU, signal.SIGURG, signal.SIGVTALRM, signal.SIGWINCH,
})  # fmt: skip
_NEWS_MASK: Final = sum(1 << (number - 1) for number in _NEWS)
_MASKS: Final = (b"SigPnd", b"ShdPnd", b"SigBlk", b"SigIgn")
_ENDING_FLAG: Final = 0x4
"""PF_EXITING of the kernel."""
_FLAGS_FIELD: Final = 6
"""Of /proc/PID/stat, counted from the one after the name."""

PROC: Final = Path("/proc")


def is_in_group(context: Context, gid: int) -> bool:
    """Whether the caller is in the group, by his group or by a supplementary one. One of whom that cannot be found out
    (he lives in another pid namespace, or is gone) is not."""
    if context.gid == gid:
        return True
    if not context.pid:
        return False
    try:
        return b"%d" % gid in _status(context.pid, PROC).get(b"Groups", b"").split()
    except OSError:
        return False


def is_told_to_end(thread: int, proc: Path = PROC) -> bool:
    """Whether this thread of a program is told to end, or is gone. Also if that cannot be seen."""
    try:
        status = _status(thread, proc)
        pending, shared, blocked, ignored = (int(status[name], 16) for name in _MASKS)
    except (OSError, KeyError, ValueError):
        return True
    return bool((pending | shared) & ~blocked & ~ignored & ~_NEWS_MASK)


def _status(thread: int, proc: Path) -> dict[bytes, bytes]:
    """The fields of /proc/PID/status. Whoever runs a program chooses its name, in which the kernel escapes newlines and
    nothing else that may end a line. Raises OSError."""
    lines = (proc / str(thread) / "status").read_bytes().split(b"\n")
    return {name: value for name, _, value in (line.partition(b":") for line in lines)}


def is_ending(thread: int, proc: Path = PROC) -> bool:
    """Whether this thread is ending already: the kernel closes its files, and no signal reaches it any more."""
    try:
        stat = (proc / str(thread) / "stat").read_text(errors="replace")
        flags = int(stat.rpartition(")")[2].split()[_FLAGS_FIELD])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & _ENDING_FLAG)
