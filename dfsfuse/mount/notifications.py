"""Notifies the kernel of changes by others, one notification at a time, and early enough.

A notification about an inode makes the kernel drop attributes that are on their way to it, since they might be older
than the change. A read() that requested them because it reached the end of the file then goes on with the old size, and
ends too early. So everything known about a file when an open() or a lock is answered is sent before the answer
(`wait_until_sent`), and not at some moment during the program's first read().

Notifications that affect pages (`send_all`, and `send_now` with data) wait for requests about those pages, so they are
never sent by a thread that serves requests. Knows only names and inode numbers. Threads: one calls `send_all`, any
number the others; `_changed` guards all state, and is held only briefly.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

PATIENCE_S: Final = 0.1
"""How long `wait_until_sent` waits. The kernel makes a notification wait for pages that are being read, even over the
network."""

Name = tuple[int, bytes]
"""A folder's inode and a name in it."""


class Device(Protocol):
    """The device that sends notifications: `dfsfuse.fusekernel.device.Device`."""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool: ...
    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool: ...


class Notifications:
    """See the module."""

    def __init__(self, device: Device, wake: Callable[[], None], patience_s: float = PATIENCE_S) -> None:
        """`wake` is called when `send_all` has something to do; it must not wait."""
        self._device = device
        self._wake = wake
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._names: dict[Name, None] = {}
        self._inodes: dict[int, bool] = {}
        """Inodes to notify about, and whether their data changed too."""
        self._first: list[int] = []
        """Inodes that a caller is waiting for."""
        self._sending: int | None = None
        self._is_over = False

    def add_name(self, parent: int, name: bytes) -> None:
        """Make the kernel look up this name again."""
        with self._changed:
            self._names[parent, name] = None
        self._wake()

    def add_inode(self, ino: int, *, is_data: bool) -> None:
        """Make the kernel request the inode's attributes again, and with `is_data` its data."""
        with self._changed:
            self._inodes[ino] = is_data or self._inodes.get(ino, False)
        self._wake()

    def wait_until_sent(self, ino: int) -> bool:
        """Wait until the kernel has been notified of everything about this inode that is known by now. Returns False if
        that takes too long."""
        with self._changed:
            if not self._is_due(ino):
                return True
            self._first.append(ino)
            self._wake()
            return self._changed.wait_for(lambda: not self._is_due(ino), 0.0 if self._is_over else self._patience_s)

    def send_now(self, ino: int, *, is_data: bool) -> None:
        """Notify the kernel of an inode immediately. Within an operation only without data: then no pages are affected.
        Raises OSError."""
        self._device.inval_inode(ino, 0 if is_data else -1)

    def send_all(self) -> None:
        """Send everything pending: first inodes that a caller waits for, then names, then inodes. Never within an
        operation."""
        while not self._is_over:
            with self._changed:
                ino, name, is_data = self._take()
                self._sending = ino
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
                    self._sending = None
                    self._changed.notify_all()

    def end(self) -> None:
        """Send nothing more: `send_all` returns, and no caller waits."""
        with self._changed:
            self._is_over = True
            self._patience_s = 0.0
            self._changed.notify_all()

    def _is_due(self, ino: int) -> bool:
        return ino in self._inodes or ino == self._sending

    def _take(self) -> tuple[int | None, Name | None, bool]:
        """The next inode or name, if any, and whether the inode's data changed."""
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
