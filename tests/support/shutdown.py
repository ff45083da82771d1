"""A machine that is shut down: SIGTERM to a mount, its four servers and the program that uses it, in some order.

The program appends to a file that stays open, creates and closes files, and notes each number on the local disk when
all calls for it have returned. Everything that it noted must be there after the next start: on the servers, or kept by
the mount and put back by `dfc recover`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Literal

from support.mounts import Grid, Mount, eventually
from support.servers import start_all

Order = Literal["servers first", "mount first", "all at once"]
ORDERS: Final[tuple[Order, ...]] = ("servers first", "mount first", "all at once")
OPTIONS: Final = ("-o", "unmount_timeout=1,durability=fsync")
LONGEST_S: Final = 18.0
"""Limit for the mount's end on a busy machine: 5 s until programs are cut off, 1 s of `unmount_timeout`, and operations
in progress."""
NOTE_BYTES: Final = 16
_NOTED_FIRST: Final = 40
_PROGRAM: Final = r"""
import os, signal, sys
folder, is_stubborn = sys.argv[1:]
if is_stubborn == "yes":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
folder = os.open(folder, os.O_RDONLY)  # after the mount is gone its path leads to the folder below it
log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, dir_fd=folder)
number = 0
try:
    while True:
        os.write(log, b"%015d\n" % number)
        file = os.open(f"file {number}", os.O_WRONLY | os.O_CREAT, dir_fd=folder)
        os.write(file, b"%015d\n" % number)
        os.close(file)
        os.write(1, b"%015d\n" % number)
        number += 1
except OSError:
    if is_stubborn == "yes":
        signal.pause()  # with its files open
"""


class Machine:
    """A mount, and a program that works in it. SIGTERM ends the program unless `is_stubborn`."""

    def __init__(self, grid: Grid, mount: Mount, folder: Path, *, is_stubborn: bool = False) -> None:
        self._grid = grid
        self._mount = mount
        self._notes = folder / "notes"
        self._is_stubborn = is_stubborn

    def switch_off(self, order: Order) -> tuple[int, float]:
        """Let the program work, then end everything. Returns the mount's exit status, and the seconds until it
        ended."""
        command = [sys.executable, "-c", _PROGRAM, str(self._mount.path), "yes" if self._is_stubborn else "no"]
        with self._notes.open("wb") as notes, subprocess.Popen(command, stdout=notes) as program:
            try:
                eventually(lambda: self._notes.stat().st_size >= _NOTED_FIRST * NOTE_BYTES, "the program works")
                return self._end_all(order, program)
            finally:
                program.kill()

    def _end_all(self, order: Order, program: subprocess.Popen[bytes]) -> tuple[int, float]:
        servers = list(self._grid.servers)
        if order == "servers first":
            for server in servers:
                server.terminate()
        elif order == "all at once":
            for server in servers:
                os.kill(server.pid, signal.SIGTERM)
        began = time.monotonic()
        os.kill(self._mount.pid, signal.SIGTERM)
        program.terminate()
        status = self._mount.unmount()
        took_s = time.monotonic() - began
        if self._is_stubborn:
            program.kill()
        program.wait(LONGEST_S)
        for server in servers:
            if order == "mount first":
                server.terminate()
            server.wait()
        return status, took_s

    def noted(self) -> list[bytes]:
        """What the program has certainly done, in order."""
        found = self._notes.read_bytes()
        return [found[at : at + NOTE_BYTES] for at in range(0, len(found) - NOTE_BYTES + 1, NOTE_BYTES)]

    def switch_on(self) -> str:
        """Start the servers, put back what was kept, and mount. Returns the output of `dfc recover --apply`."""
        start_all(list(self._grid.servers))
        done = self._grid.dfc("recover", "--apply")
        assert done.returncode == 0, done.stderr + done.stdout
        self._mount.mount()
        return done.stdout.decode()

    def lost(self) -> list[str]:
        """What was noted but is missing."""
        noted = self.noted()
        log = (self._mount.path / "log").read_bytes()
        lost = [] if log.startswith(b"".join(noted)) else [f"of the log's {len(noted)} lines: {len(log.splitlines())}"]
        there = set(os.listdir(self._mount.path))  # noqa: PTH208
        for note in noted:
            name = f"file {int(note)}"
            kept = [self._mount.path / one for one in there if one == name or one.startswith(f"{name} [recovered")]
            if not any(one.read_bytes() == note for one in kept):
                lost.append(name)
        return lost
