"""From the bytes of a request to its answer: chooses the handler, and handles errors.

Whatever a request contains and whatever an operation raises, the kernel gets one answer (none for FORGET) and the
thread survives. A request is handled once, or again and again while it waits (`parking`); anything that must happen
only once, when its outcome is known, is in `ENDINGS`. If its program is told to end, it may be answered before it is
handled (`interruption`): then its result is not sent, and is undone.

Threads: any number; no state except that of `parking`, `interruption` and `replies`.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from dfsfuse.fusekernel import handlers_files as files
from dfsfuse.fusekernel import handlers_names as names
from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.device import Device
from dfsfuse.fusekernel.interruption import Interruption, undo
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.parking import Parked, Parking
from dfsfuse.fusekernel.replies import Replies
from dfsfuse.fusekernel.requests import MalformedError, Request, parse
from dfsfuse.fusekernel.values import Buffer

log = logging.getLogger(__name__)

Answer: TypeAlias = Buffer | Sequence[Buffer]
Handler: TypeAlias = Callable[[Operations, Request], Answer]
Ending: TypeAlias = Callable[[Operations, Request], None]
ErrnoOf: TypeAlias = Callable[[Exception, str], int]
"""The positive errno for an exception raised by an operation; the text names the operation."""


@dataclass(frozen=True)
class Patience:
    """Which failed requests wait rather than being answered (`parking`); and which programs are released while their
    request waits for servers (`interruption`)."""

    may_wait_s: Callable[[Exception, str, int], float]
    """How long a request may wait, given the error, the operation's name, and the number of the program's thread. 0:
    not at all. Only for an operation that had no effect, or that can be repeated."""
    changes: Callable[[], object]
    """Returns a value that changes when retrying is worthwhile. Must not block."""
    is_told_to_end: Callable[[int], bool]
    """Whether the program of this thread is told to end while it waits."""
    is_ending: Callable[[int], bool] = lambda _: False
    """Whether this thread of a program is ending, so that signals no longer reach it."""
    lacks_servers: Callable[[], bool] = lambda: False
    """Whether operations under way may currently have to wait long for servers. Must not block."""
    withdraw: Callable[[int], bool] = lambda _: True
    """Prevents the operation that this thread of ours carries out from beginning any change. False: it is too late."""
    forget_withdrawal: Callable[[], None] = lambda: None
    """Ends the effect of `withdraw` for the calling thread, which goes on to another operation."""


NO_PATIENCE: Final = Patience(lambda _error, _operation, _thread: 0.0, lambda: None, lambda _: False)
"""All requests are answered when they fail, and no program is released."""
_ERRNO_MAX: Final = 511
"""The kernel accepts no larger errno."""

HANDLERS: Final[dict[int, Handler]] = {
    wire.FUSE_LOOKUP: names.lookup,
    wire.FUSE_GETATTR: names.getattr_,
    wire.FUSE_SETATTR: names.setattr_,
    wire.FUSE_READLINK: names.readlink,
    wire.FUSE_SYMLINK: names.symlink,
    wire.FUSE_MKNOD: names.mknod,
    wire.FUSE_MKDIR: names.mkdir,
    wire.FUSE_UNLINK: names.unlink,
    wire.FUSE_RMDIR: names.rmdir,
    wire.FUSE_RENAME: names.rename,
    wire.FUSE_RENAME2: names.rename2,
    wire.FUSE_LINK: names.link,
    wire.FUSE_STATFS: names.statfs,
    wire.FUSE_ACCESS: names.access,
    wire.FUSE_SETXATTR: names.setxattr,
    wire.FUSE_GETXATTR: names.getxattr,
    wire.FUSE_LISTXATTR: names.listxattr,
    wire.FUSE_REMOVEXATTR: names.removexattr,
    wire.FUSE_CREATE: files.create,
    wire.FUSE_OPEN: files.open_,
    wire.FUSE_READ: files.read,
    wire.FUSE_WRITE: files.write,
    wire.FUSE_FLUSH: files.flush,
    wire.FUSE_RELEASE: files.release,
    wire.FUSE_FSYNC: files.fsync,
    wire.FUSE_FALLOCATE: files.fallocate,
    wire.FUSE_LSEEK: files.lseek,
    wire.FUSE_COPY_FILE_RANGE: files.copy_file_range,
    wire.FUSE_IOCTL: files.ioctl,
    wire.FUSE_OPENDIR: files.opendir,
    wire.FUSE_READDIR: files.readdir,
    wire.FUSE_RELEASEDIR: files.releasedir,
    wire.FUSE_FSYNCDIR: files.fsyncdir,
    wire.FUSE_GETLK: files.getlk,
}
"""Requests that are answered when their handler returns. The others are in `Dispatcher`."""
ENDINGS: Final[dict[int, Ending]] = {
    wire.FUSE_FLUSH: files.flushed,
    wire.FUSE_RELEASE: files.released,
}
"""Functions that are called just before a request is answered, once and whatever its outcome, but not while it waits to
be handled again. An exception raised here becomes the answer."""


def default_errno_of(error: Exception, operation: str) -> int:
    """An OSError's own number; EIO for an unexpected exception, with a traceback in the log."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    log.error("%s failed unexpectedly; the program gets EIO", operation, exc_info=error)
    return errno.EIO


class Dispatcher:
    """Handles the requests of one session."""

    def __init__(
        self,
        operations: Operations,
        device: Device,
        errno_of: ErrnoOf = default_errno_of,
        patience: Patience = NO_PATIENCE,
    ) -> None:
        self._operations = operations
        self._patience = patience
        self._device = device
        self._errno_of = errno_of

        def refuse(unique: int, error: int) -> None:
            self._answer(unique, error, b"")

        self._parking = Parking(
            self._handle_again, refuse, changes=patience.changes, is_told_to_end=patience.is_told_to_end
        )
        self._interruption = Interruption(
            refuse,
            is_told_to_end=patience.is_told_to_end,
            is_ending=patience.is_ending,
            lacks_servers=patience.lacks_servers,
            withdraw=patience.withdraw,
            forget=patience.forget_withdrawal,
        )
        self._handlers = {**HANDLERS, wire.FUSE_READDIRPLUS: self._readdirplus}
        self._silent: dict[int, Callable[[Request], None]] = {
            wire.FUSE_FORGET: self._forget,
            wire.FUSE_BATCH_FORGET: self._forget,
            wire.FUSE_INTERRUPT: self._interrupt,
            wire.FUSE_SETLK: self._set_lock,
            wire.FUSE_SETLKW: self._set_lock,
            wire.FUSE_DESTROY: self._destroy,
        }
        self.replies = Replies(self._answer)

    def handle(self, message: memoryview) -> None:
        """Handle one request, as it was read. Raises nothing."""
        try:
            request = parse(message)
        except MalformedError as error:
            log.error("the kernel sent a malformed request: %s", error)  # noqa: TRY400
            return
        handler = self._handlers.get(request.opcode)
        if handler is None:
            self._handle_other(request)
            return
        self._interruption.begin(request)
        try:
            body = handler(self._operations, request)
        except Exception as error:  # noqa: BLE001 - the boundary: the kernel must get an answer
            number = self._errno(error, request)
            if not self._park(request, message, error, number):
                self._finish(request, number, b"")
        else:
            self._finish(request, 0, body)
        finally:
            self._interruption.done(request.unique)

    def _may_wait_s(self, error: Exception, request: Request) -> float:
        return self._patience.may_wait_s(error, self._name(request), request.context.pid)

    def _park(self, request: Request, message: memoryview, error: Exception, number: int) -> bool:
        """Keep a failed request, if it may wait and its program still waits for it."""
        wait_s = self._may_wait_s(error, request)
        if not wait_s or not self._interruption.end(request.unique):
            return False
        give_up = self._give_up if request.opcode in ENDINGS else None
        is_parked = self._parking.park(request.unique, request.context.pid, message, number, wait_s, give_up)
        if not is_parked:
            self._interruption.begin(request)  # it must be answered after all
        elif self._interruption.was_interrupted(request.unique):
            # checked once it can be found there; `_interrupt` uses the reverse order
            self._parking.interrupt(request.unique)
        return is_parked

    def _handle_again(self, parked: Parked) -> None:
        """Handle a parked request again. Raises nothing."""
        request = parse(memoryview(parked.message))
        self._interruption.begin(request, is_interrupted=parked.is_interrupted)
        try:
            body = self._handlers[request.opcode](self._operations, request)
        except Exception as error:  # noqa: BLE001 - as in `handle`
            number = self._errno(error, request)
            if self._put_back(parked, request, error, number):
                return
            self._finish(request, number, b"")
        else:
            self._finish(request, 0, body)
        finally:
            self._interruption.done(request.unique)
        self._parking.done(parked)

    def _put_back(self, parked: Parked, request: Request, error: Exception, number: int) -> bool:
        """As `_park`."""
        if not self._may_wait_s(error, request) or not self._interruption.end(request.unique):
            return False
        is_parked = self._parking.put_back(parked, number)
        if not is_parked:
            self._interruption.begin(request)
        return is_parked

    def _give_up(self, parked: Parked, number: int) -> None:
        """Answer a request with an ending that has waited in vain."""
        request = parse(memoryview(parked.message))
        self._interruption.begin(request)
        self._finish(request, number, b"")
        self._interruption.done(request.unique)
        self._parking.done(parked)

    def _finish(self, request: Request, number: int, body: Answer) -> None:
        """The outcome is known: run the ending of such a request, and answer it, or undo it if no program waits for it
        any more."""
        ending = ENDINGS.get(request.opcode)
        if ending is not None:
            try:
                ending(self._operations, request)
            except Exception as error:  # noqa: BLE001 - as in `handle`
                number, body = self._errno(error, request), b""
        is_awaited = self._interruption.end(request.unique)
        if number and request.opcode == wire.FUSE_FLUSH:
            is_reported = is_awaited and self._is_reported(request, number)
            try:
                files.close_failed(self._operations, request, is_reported=is_reported)
            except Exception as error:  # noqa: BLE001 - as in `handle`; the answer stays what it is
                self._errno(error, request)
        if is_awaited:
            self._answer(request.unique, number, body)
        elif not number:
            self._undo(request, body)

    def _is_reported(self, request: Request, number: int) -> bool:
        """Whether the program takes note of this error. An interrupted program learns nothing about its data from
        it."""
        thread = request.context.pid
        return number != errno.EINTR and not (self._patience.is_ending(thread) or self._patience.is_told_to_end(thread))

    def _undo(self, request: Request, body: Answer) -> None:
        try:
            undo(self._operations, request, body)
        except Exception as error:  # noqa: BLE001 - no program waits for it
            self._errno(error, request)

    def abandon(self) -> None:
        """The session ends: give all waiting programs an error."""
        self.replies.abandon()
        self._parking.abandon()

    def refuse(self, message: memoryview, error: int) -> None:
        """Answer a request without handling it."""
        try:
            request = parse(message)
        except MalformedError:
            return
        if request.opcode not in {wire.FUSE_FORGET, wire.FUSE_BATCH_FORGET, wire.FUSE_INTERRUPT}:
            self._answer(request.unique, error, b"")

    def _handle_other(self, request: Request) -> None:
        handler = self._silent.get(request.opcode)
        if handler is None:
            self._answer(request.unique, errno.ENOSYS, b"")
            return
        try:
            handler(request)
        except Exception as error:  # noqa: BLE001 - as above
            number = self._errno(error, request)
            if handler != self._forget:
                self._answer(request.unique, number, b"")

    def _readdirplus(self, operations: Operations, request: Request) -> Answer:
        return files.readdirplus(operations, request, lambda error: self._errno(error, request))

    def _forget(self, request: Request) -> None:
        if request.opcode == wire.FUSE_FORGET:
            names.forget(self._operations, request)
        else:
            names.batch_forget(self._operations, request)

    def _set_lock(self, request: Request) -> None:
        files.setlk(self._operations, request, self.replies.expect)

    def _interrupt(self, request: Request) -> None:
        """There is no answer, except that the kernel should try again if the request to interrupt is still on its way
        from the device to its handler. If that request has been answered instead, the kernel ignores our answer."""
        (unique,) = request.fields(wire.fuse_interrupt_in)
        is_handled = self._interruption.interrupt(unique)
        is_parked = self._parking.interrupt(unique)
        if not is_handled and not is_parked and not self.replies.interrupt(unique):
            self._answer(request.unique, errno.EAGAIN, b"")

    def _destroy(self, request: Request) -> None:
        """The session calls `destroy` when all threads have ended."""
        self._answer(request.unique, 0, b"")

    def _errno(self, error: Exception, request: Request) -> int:
        what = f"{self._name(request)} of inode {request.nodeid}"
        if isinstance(error, MalformedError):
            log.error("%s is malformed: %s", what, error)
            return errno.EINVAL
        number = self._errno_of(error, what)
        return number if 0 < number <= _ERRNO_MAX else errno.EIO

    def _name(self, request: Request) -> str:
        handler = self._handlers.get(request.opcode)
        return handler.__name__.strip("_") if handler else f"opcode {request.opcode}"

    def _answer(self, unique: int, error: int, body: Answer) -> None:
        try:
            self._device.answer(unique, error, body)
        except OSError:
            log.exception("request %d cannot be answered", unique)
