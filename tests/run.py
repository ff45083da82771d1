"""Run pytest within a time limit and leave nothing behind: `python tests/run.py --limit-s 1800 -- PYTEST_ARGUMENTS`.

Everything that the tests start is a descendant of this process, daemons included: it is their subreaper (prctl(2)).
Everything that they write or mount is below a temporary folder that it makes for them (TMPDIR). However the run ends
(after the last test, at the time limit, by Ctrl-C or SIGTERM), the mounts below that folder are detached, the
descendants killed, and the folder removed.

At the limit pytest gets a SIGINT, so that it reports what has failed and what was running (`tests/conftest.py`).
Exit status: pytest's own; 124 at the limit, like timeout(1); 130 and 143 after SIGINT and SIGTERM. Uses the standard
library only.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Final

TIMED_OUT: Final = 124
AT_THE_LIMIT: Final = """
The tests were not finished within {} s and are ended. What failed until now, and which tests were running, is below.
On a slow or busy machine: make test TEST_TIMEOUT_S=3600"""
GRACE_S: Final = 30
"""Seconds that pytest may take to report after an interrupt."""
CLEANING_S: Final = 30.0
_PR_SET_CHILD_SUBREAPER: Final = 36


class Interrupted(BaseException):
    """A signal arrived: at the time limit (SIGALRM), or to end the run."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


def run(command: Sequence[str], limit_s: int) -> int:
    """Run `command` with a temporary folder of its own, clean up after it, and return the exit status."""
    _become_subreaper()
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupt)
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix="dfsfuse-tests.")))
    try:
        return _run_within(command, limit_s, folder)
    finally:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # nothing may cut the cleaning short; it is bounded
        signal.alarm(0)
        clean(folder)


def _run_within(command: Sequence[str], limit_s: int, folder: Path) -> int:
    process = subprocess.Popen(command, env=os.environ | {"TMPDIR": str(folder)})
    try:
        signal.alarm(limit_s)
        process.returncode = _wait_for(process.pid)
    except Interrupted as interruption:
        status = 128 + interruption.signal_number
        if interruption.signal_number == signal.SIGALRM:
            status = TIMED_OUT
            print(AT_THE_LIMIT.format(limit_s), file=sys.stderr, flush=True)
        process.returncode = _end(process.pid)
        return status
    return process.returncode


def _end(pid: int) -> int:
    """Ask pytest to report and end; kill it if it does not. Returns its exit status."""
    _signal(pid, signal.SIGINT)
    try:
        signal.alarm(GRACE_S)
        return _wait_for(pid)
    except Interrupted:
        print(
            f"pytest did not end within {GRACE_S} s of being interrupted, and is killed.", file=sys.stderr, flush=True
        )
        _signal(pid, signal.SIGKILL)
        return -signal.SIGKILL


def clean(folder: Path) -> None:
    """Detach all mounts below `folder`, kill all descendants of this process, remove the folder."""
    deadline = time.monotonic() + CLEANING_S
    for mountpoint in mounts_below(folder, Path("/proc/self/mountinfo").read_bytes()):
        # Mounts first, since a process that waits in one cannot be killed.
        if subprocess.run(["umount", "--lazy", mountpoint], check=False, capture_output=True).returncode:
            subprocess.run(["fusermount3", "-u", "-z", mountpoint], check=False)
    while (left := list(descendants(os.getpid(), _parents()))) and time.monotonic() < deadline:
        for pid in left:
            _signal(pid, signal.SIGKILL)
        _reap()
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


def mounts_below(folder: Path, mountinfo: bytes) -> list[bytes]:
    """The mountpoints below `folder` in the text of /proc/self/mountinfo (proc(5)), the last mounted first. Other users
    choose names too, so only a newline ends a line, and lines that cannot be parsed are skipped."""
    prefix = os.fsencode(folder) + b"/"
    points = (_unescape(fields[4]) for line in mountinfo.split(b"\n") if len(fields := line.split(b" ")) > 4)
    return [point for point in points if point.startswith(prefix)][::-1]


def _unescape(text: bytes) -> bytes:
    """Decode blanks, tabs, newlines and backslashes, which the kernel writes as three octal digits."""
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), text)


def descendants(pid: int, parents: dict[int, int]) -> Iterator[int]:
    """Return all processes below `pid`, from a table of each process's parent."""
    for child, parent in parents.items():
        if parent == pid:
            yield child
            yield from descendants(child, parents)


def _parents() -> dict[int, int]:
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_bytes()
        except OSError:
            continue  # ended meanwhile
        found[int(stat.parent.name)] = parent_in(text)
    return found


def parent_in(stat: bytes) -> int:
    """Return the parent's pid from /proc/PID/stat (proc(5)): the second field after the name, which may contain
    anything."""
    return int(stat[stat.rindex(b")") + 1 :].split()[1])


def _wait_for(pid: int) -> int:
    """Reap every descendant that ends until `pid` does; return the latter's exit status, negative for a signal."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return os.waitstatus_to_exitcode(status)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # ended meanwhile
        os.kill(pid, number)


def _become_subreaper() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _interrupt(signal_number: int, frame: FrameType | None) -> None:
    raise Interrupted(signal_number)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--limit-s", type=int, default=1800, help="how long pytest may take, in seconds")
    parser.add_argument("arguments", nargs="*", help="what pytest gets, after --")
    given = parser.parse_args()
    return run([sys.executable, "-m", "pytest", *given.arguments], given.limit_s)


if __name__ == "__main__":
    sys.exit(main())
