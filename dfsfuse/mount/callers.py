"""What /proc says about the process that made a request, beyond what the request itself says. No state.

A waiting program is told to end by a signal that terminates it, or that it handles the way most programs do when asked
to stop. Signals that only inform it (a child has ended, a window was resized, a profiling timer, a notification from
another thread) do not count, nor do those that suspend it: it is suspended when the operation is over.
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
"""The kernel's PF_EXITING."""
_FLAGS_FIELD: Final = 6
"""Index of the flags in /proc/PID/stat, counted from the field after the name."""

PROC: Final = Path("/proc")


def is_in_group(context: Context, gid: int) -> bool:
    """Whether the caller is in the group, by its primary or a supplementary group. False if that cannot be determined
    (the caller is in another pid namespace, or is gone)."""
    if context.gid == gid:
        return True
    if not context.pid:
        return False
    try:
        return b"%d" % gid in _status(context.pid, PROC).get(b"Groups", b"").split()
    except OSError:
        return False


def is_told_to_end(thread: int, proc: Path = PROC) -> bool:
    """Whether this thread of a program is told to end, or is gone. Also True if that cannot be determined."""
    try:
        status = _status(thread, proc)
        pending, shared, blocked, ignored = (int(status[name], 16) for name in _MASKS)
    except (OSError, KeyError, ValueError):
        return True
    return bool((pending | shared) & ~blocked & ~ignored & ~_NEWS_MASK)


def _status(thread: int, proc: Path) -> dict[bytes, bytes]:
    """The fields of /proc/PID/status. The name is chosen by the user who runs the program; the kernel escapes newlines
    in it, and no other line separators. Raises OSError."""
    lines = (proc / str(thread) / "status").read_bytes().split(b"\n")
    return {name: value for name, _, value in (line.partition(b":") for line in lines)}


def is_ending(thread: int, proc: Path = PROC) -> bool:
    """Whether this thread is already ending: the kernel is closing its files, and signals no longer reach it."""
    try:
        stat = (proc / str(thread) / "stat").read_text(errors="replace")
        flags = int(stat.rpartition(")")[2].split()[_FLAGS_FIELD])
    except (OSError, ValueError, IndexError):
        return False
    return bool(flags & _ENDING_FLAG)
