"""Requests that are being handled, and how a program that is told to end is released from one that waits for servers.

An operation under way cannot be stopped at an arbitrary point: it holds locks, or is agreeing with servers on
something. So the program is *released*: it gets EINTR, the operation goes on without it, and its result is not sent.
From then on the operation must not make any change that it has not begun to make (`withdraw`), and whatever the kernel
would have counted, had it received the answer, is undone (`UNDO`).

This is done only while operations wait for servers (`lacks_servers`): otherwise they end soon, and their programs
expect no EINTR. The kernel reports only once that a program has received a signal, so a thread watches such programs
until they are answered. It does not report that a program is ending; such a program cannot be gone before its files are
closed, so programs that are closing a file are watched in any case.

Threads: any; one watcher while any program is watched, and for a moment after that. The thread that takes a request out
of `_requests`, which is atomic, answers it. `_lock` guards the watcher, and ensures that a thread is withdrawn only
from the intended request.
"""

from __future__ import annotations

import errno
import logging
import os
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.requests import Request
from dfsfuse.fusekernel.values import Buffer

log = logging.getLogger(__name__)

POLL_S: Final = 0.1
"""How often to check whether a program must be released."""
IDLE_POLLS: Final = 20
"""Number of polls with no program to watch after which the watcher ends: files are often closed one after another."""

Undo: TypeAlias = Callable[[Operations, Request, Sequence[Buffer]], None]

SAVES: Final = frozenset({wire.FUSE_FLUSH, wire.FUSE_FSYNC, wire.FUSE_FSYNCDIR})
"""These change nothing but make durable what was answered, which is wanted in any case."""
_NODE: Final = struct.Struct("=Q")
"""The first field of the answer for an entry, and for an open file or folder."""


class Interruption:
    """See the module."""

    def __init__(
        self,
        answer: Callable[[int, int], None],
        *,
        is_told_to_end: Callable[[int], bool],
        is_ending: Callable[[int], bool],
        lacks_servers: Callable[[], bool],
        withdraw: Callable[[int], bool],
        forget: Callable[[], None],
    ) -> None:
        """`answer` gets a request's number and an errno; `is_told_to_end` and `is_ending` the number of a thread of a
        program; `withdraw` the number of one of our threads; `forget` is called by that thread when its operation is
        over."""
        self._answer = answer
        self._is_told_to_end = is_told_to_end
        self._is_ending = is_ending
        self._lacks_servers = lacks_servers
        self._withdraw = withdraw
        self._forget = forget
        self._lock = threading.Lock()
        self._requests: dict[int, tuple[Request, int]] = {}
        """Requests being handled, by number, with the thread that handles them."""
        self._interrupted: set[int] = set()
        """The numbers of requests whose programs have received a signal; also after they were handled, until `done`."""
        self._watcher: threading.Thread | None = None

    def __contains__(self, unique: int) -> bool:
        return unique in self._requests

    def begin(self, request: Request, *, is_interrupted: bool = False) -> None:
        """This thread handles the request from now on."""
        self._requests[request.unique] = request, threading.get_ident()
        if is_interrupted:
            self.interrupt(request.unique)
        elif request.opcode == wire.FUSE_FLUSH and self._watcher is None:
            self._start_watcher()

    def end(self, unique: int) -> bool:
        """The request has been handled. Return whether it still has to be answered: its program was not released."""
        if self._requests.pop(unique, None) is None:
            with self._lock:
                if self._requests.pop(unique, None) is None:
                    self._forget()
                    return False
        return True

    def was_interrupted(self, unique: int) -> bool:
        """Whether its program received a signal while it was handled. Call it before `done`."""
        return unique in self._interrupted

    def done(self, unique: int) -> None:
        """The request has been handled, and was answered or is waiting. Call it after `end`."""
        self._interrupted.discard(unique)

    def interrupt(self, unique: int) -> bool:
        """A program has received a signal. Return whether its request is being handled."""
        self._interrupted.add(unique)
        if unique not in self._requests:
            self._interrupted.discard(unique)
            return False
        self._start_watcher()
        return True

    def _start_watcher(self) -> None:
        with self._lock:
            if self._watcher is None:
                watcher = threading.Thread(target=self._watch, name="fuse-interruption", daemon=True)
                try:
                    watcher.start()
                except (RuntimeError, MemoryError):
                    log.warning("no thread can be started to watch for terminated programs")
                else:
                    self._watcher = watcher

    def _watch(self) -> None:
        idle = 0
        while True:
            time.sleep(POLL_S)
            watched = [unique for unique, (request, _) in list(self._requests.items()) if self._is_watched(request)]
            idle = 0 if watched else idle + 1
            try:
                if watched and self._lacks_servers():
                    for unique in watched:
                        self._release_if_due(unique)
            except Exception:
                log.exception("watching for terminated programs failed; it goes on")
            with self._lock:
                if idle >= IDLE_POLLS and not any(map(self._requests.__contains__, list(self._interrupted))):
                    self._watcher = None
                    return

    def _is_watched(self, request: Request) -> bool:
        return request.unique in self._interrupted or request.opcode == wire.FUSE_FLUSH

    def _release_if_due(self, unique: int) -> None:
        found = self._requests.get(unique)
        if found is None or not self._must_be_released(found[0]):
            return
        request, thread = found
        with self._lock:
            if self._requests.pop(unique, None) is None:
                return
            if request.opcode not in SAVES and not self._withdraw(thread):
                self._requests[unique] = found  # it has already changed something, and will finish normally
                return
        self._answer(unique, errno.EINTR)

    def _must_be_released(self, request: Request) -> bool:
        thread = request.context.pid
        if request.unique in self._interrupted and self._is_told_to_end(thread):
            return True
        return request.opcode == wire.FUSE_FLUSH and self._is_ending(thread)


def _looked_up(operations: Operations, _request: Request, parts: Sequence[Buffer]) -> None:
    """Undo lookups: the kernel did not get these entries."""
    for part in parts:
        (ino,) = _NODE.unpack_from(part)
        if ino:
            operations.forget(ino, 1)


def _created(operations: Operations, request: Request, parts: Sequence[Buffer]) -> None:
    (ino,) = _NODE.unpack_from(parts[0])
    (handle,) = _NODE.unpack_from(parts[0], wire.fuse_entry_out.size)
    _close(operations, request, ino, handle)
    operations.forget(ino, 1)


def _opened(operations: Operations, request: Request, parts: Sequence[Buffer]) -> None:
    (handle,) = _NODE.unpack_from(parts[0])
    _close(operations, request, request.nodeid, handle)
    flags, _ = request.fields(wire.fuse_open_in)
    if flags & os.O_TRUNC:
        operations.invalidate(request.nodeid)


def _close(operations: Operations, request: Request, ino: int, handle: int) -> None:
    operations.release(request.context, ino, handle, None)
    operations.released(request.context, ino, handle)


def _changed(operations: Operations, request: Request, _parts: Sequence[Buffer]) -> None:
    operations.invalidate(request.nodeid)


def _folder_opened(operations: Operations, request: Request, parts: Sequence[Buffer]) -> None:
    (handle,) = _NODE.unpack_from(parts[0])
    operations.releasedir(request.context, request.nodeid, handle)


UNDO: Final[dict[int, Undo]] = {
    wire.FUSE_LOOKUP: _looked_up,
    wire.FUSE_SYMLINK: _looked_up,
    wire.FUSE_MKNOD: _looked_up,
    wire.FUSE_MKDIR: _looked_up,
    wire.FUSE_LINK: _looked_up,
    wire.FUSE_READDIRPLUS: _looked_up,
    wire.FUSE_CREATE: _created,
    wire.FUSE_OPEN: _opened,
    wire.FUSE_OPENDIR: _folder_opened,
    wire.FUSE_SETATTR: _changed,
    wire.FUSE_FALLOCATE: _changed,
}
"""Undo functions for operations that succeeded after their program was released. The parts are those of the answer."""


def undo(operations: Operations, request: Request, body: Buffer | Sequence[Buffer]) -> None:
    """Undo what an answer that is not sent would have given to the kernel."""
    undo_one = UNDO.get(request.opcode)
    if undo_one is not None:
        undo_one(operations, request, [body] if isinstance(body, bytes | bytearray | memoryview) else body)
