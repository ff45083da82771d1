"""Telling the kernel what others have changed, one notification after the other, and in time.

A notification about an inode makes the kernel drop the attributes that are under way to it: they might be older than
the change. A read() that has asked for them, because it comes to the end of the file, goes on with the size of before,
and ends too early. So what is known of a file when an open() or a lock is answered is told before (`told`), and not at
some moment beside the program's first read().

Notifications that touch pages (`tell_all`, and `tell_here` of data) wait for requests about those pages, so they are
never sent by a thread that serves requests. Knows names and inode numbers only. Threads: one calls `tell_all`, any
number the others; `_changed` guards all state, and is held for moments.
"""

from __future__ import annotations

import logging
import threading
from typing import Final, Protocol

log = logging.getLogger(__name__)

PATIENCE_S: Final = 0.1
"""How long `told` waits. The kernel lets a notification wait for pages that are being read, also over the network."""

Name = tuple[int, bytes]
"""A folder's inode and a name in it."""


class Device(Protocol):
    """Where notifications go: `dfsfuse.fusekernel.device.Device`."""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool: ...
    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool: ...


class Notifications:
    """See the module."""

    def __init__(self, device: Device, wake: threading.Event, patience_s: float = PATIENCE_S) -> None:
        self._device = device
        self._wake = wake
        """Set when there is something for `tell_all` to do."""
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._names: dict[Name, None] = {}
        self._inodes: dict[int, bool] = {}
        """What is to be told, and whether of its data too."""
        self._first: list[int] = []
        """Inodes that somebody waits for."""
        self._telling: int | None = None
        self._is_over = False

    def add_name(self, parent: int, name: bytes) -> None:
        """The kernel is to look this name up anew."""
        with self._changed:
            self._names[parent, name] = None
        self._wake.set()

    def add_inode(self, ino: int, *, is_data: bool) -> None:
        """It is to ask for the inode's attributes anew, and with `is_data` for its data."""
        with self._changed:
            self._inodes[ino] = is_data or self._inodes.get(ino, False)
        self._wake.set()

    def told(self, ino: int) -> bool:
        """Wait until the kernel has been told all of this inode that is known by now. False: it takes too long."""
        with self._changed:
            if not self._is_due(ino):
                return True
            self._first.append(ino)
            self._wake.set()
            return self._changed.wait_for(lambda: not self._is_due(ino), 0.0 if self._is_over else self._patience_s)

    def tell_here(self, ino: int, *, is_data: bool) -> None:
        """Tell of an inode at once. Within an operation only without data: then no pages are touched. Raises
        OSError."""
        self._device.inval_inode(ino, 0 if is_data else -1)

    def tell_all(self) -> None:
        """Tell all that waits: what somebody waits for, then names, then inodes. Never within an operation."""
        while not self._is_over:
            with self._changed:
                ino, name, is_data = self._take()
                self._telling = ino
            try:
                if ino is not None:
                    self._device.inval_inode(ino, 0 if is_data else -1)
                elif name is not None:
                    self._device.inval_entry(*name, expire_only=True)
                else:
                    return
            except OSError as error:
                log.warning("the kernel cannot be told of a change: %s", error)
            finally:
                with self._changed:
                    self._telling = None
                    self._changed.notify_all()

    def end(self) -> None:
        """Nothing more is told: `tell_all` returns, and nobody waits."""
        with self._changed:
            self._is_over = True
            self._patience_s = 0.0
            self._changed.notify_all()

    def _is_due(self, ino: int) -> bool:
        return ino in self._inodes or ino == self._telling

    def _take(self) -> tuple[int | None, Name | None, bool]:
        """An inode, a name, or neither; and whether its data changed."""
        while self._first:
            ino = self._first.pop(0)
            if ino in self._inodes:
                return ino, None, self._inodes.pop(ino)
        if self._names:
            name = next(iter(self._names))
            del self._names[name]
            return None, name, False
        if self._inodes:
            ino = next(iter(self._inodes))
            return ino, None, self._inodes.pop(ino)
        return None, None, False
