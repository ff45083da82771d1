"""One mount, served: threads that read requests, handle them and answer, until it is unmounted.

Each thread has one buffer, which is the whole memory that requests take. When all threads are busy, one more is
started, up to `threads_max`: operations may wait for a network. Threads that find nothing to do end.

    session = Session(descriptor, operations)
    session.negotiate()          # INIT; the mount works as soon as there are threads
    session.serve()              # until unmounted, or `cut_off`

Threads: `_lock` guards the counts and the state. `serve` may be called once; `cut_off` by any thread.
"""

from __future__ import annotations

import errno
import logging
import threading
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.device import Device
from dfsfuse.fusekernel.dispatch import Dispatcher, ErrnoOf, default_errno_of
from dfsfuse.fusekernel.negotiation import Negotiated, Settings, UnsupportedKernelError, negotiate
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.requests import MalformedError, parse

log = logging.getLogger(__name__)

HEADER_ROOM_BYTES: Final = 4096
"""What a buffer has beyond the data of the largest write."""


class Session:
    """See the module. `device` is for notifications."""

    def __init__(
        self,
        descriptor: int,
        operations: Operations,
        settings: Settings | None = None,
        *,
        errno_of: ErrnoOf = default_errno_of,
        threads_max: int = 16,
        idle_max: int = 3,
    ) -> None:
        self.device = Device(descriptor)
        self._operations = operations
        self._settings = settings or Settings()
        self._dispatcher = Dispatcher(operations, self.device, errno_of)
        self._threads_max = threads_max
        self._idle_max = idle_max
        self._lock = threading.Lock()
        self._idle = 0
        self._threads: set[threading.Thread] = set()
        self._numbers = 0
        self._is_cut_off = False
        self._ended = threading.Event()

    def negotiate(self) -> Negotiated:
        """Read INIT and answer it. Raises `UnsupportedKernelError`; also if the mount is gone already."""
        buffer = self._buffer()
        while True:
            length = self.device.read_into(buffer)
            if length is None:
                raise UnsupportedKernelError("the kernel ended the connection before it began")
            message = memoryview(buffer)[:length]
            try:
                request = parse(message)
                if request.opcode != wire.FUSE_INIT:
                    self._dispatcher.refuse(message, errno.EIO)
                    continue
                agreed, answer = negotiate(request, self._settings)
            except (MalformedError, UnsupportedKernelError) as error:
                self._dispatcher.refuse(message, errno.EPROTO)
                if isinstance(error, MalformedError):
                    raise UnsupportedKernelError(f"INIT is malformed: {error}") from error
                raise
            self.device.answer(request.unique, 0, answer)
            if agreed is not None:
                log.debug("FUSE 7.%d, flags %#x", agreed.minor, agreed.flags)
                return agreed

    def serve(self) -> None:
        """Handle requests until the mount is gone or cut off. Call it once, after `negotiate`."""
        with self._lock:
            self._start_thread()
        self._ended.wait()
        self._dispatcher.replies.abandon()
        if not self._is_cut_off:
            for thread in list(self._threads):
                thread.join()
        self._operations.destroy()

    def cut_off(self) -> None:
        """End although the mount is in use: every further request gets ENOTCONN. Threads that wait for one cannot
        be woken; they end with the process or the mount."""
        self._is_cut_off = True
        self._ended.set()

    # ------------------------------------------------------------------ threads

    def _start_thread(self) -> None:
        """With the lock held."""
        self._numbers += 1
        thread = threading.Thread(target=self._work, name=f"fuse-{self._numbers}", daemon=True)
        self._threads.add(thread)
        self._idle += 1
        thread.start()

    def _work(self) -> None:
        try:
            self._read_and_handle()
        except Exception:
            log.exception("a thread of the mount ends")
        finally:
            with self._lock:
                self._threads.discard(threading.current_thread())
                is_last = not self._threads
            if is_last:
                self._ended.set()

    def _read_and_handle(self) -> None:
        buffer = self._buffer()
        view = memoryview(buffer)
        while (length := self.device.read_into(buffer)) is not None:
            with self._lock:
                self._idle -= 1
                if self._idle == 0 and len(self._threads) < self._threads_max:
                    self._start_thread()
            if self._is_cut_off:
                self._dispatcher.refuse(view[:length], errno.ENOTCONN)
            else:
                self._dispatcher.handle(view[:length])
            with self._lock:
                if self._idle >= self._idle_max:
                    return
                self._idle += 1
        with self._lock:
            self._idle -= 1

    def _buffer(self) -> bytearray:
        return bytearray(max(self._settings.max_write_bytes + HEADER_ROOM_BYTES, wire.FUSE_MIN_READ_BUFFER))
