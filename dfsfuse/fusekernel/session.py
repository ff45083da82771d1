"""Serves one mount: threads that read requests, handle them and answer, until it is unmounted.

Each thread has one buffer, which is all the memory that requests need. There are as many threads as operations that had
to wait at the same time, up to `threads_max` (`readers`).

    session = Session(descriptor, operations)
    session.negotiate()          # INIT; the mount works as soon as there are threads
    session.serve()              # until unmounted, or `cut_off`

Threads: `serve` may be called once; `cut_off` by any thread.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from typing import Final

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.device import Device
from dfsfuse.fusekernel.dispatch import NO_PATIENCE, Dispatcher, ErrnoOf, Patience, default_errno_of
from dfsfuse.fusekernel.negotiation import Negotiated, Settings, UnsupportedKernelError, negotiate
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.readers import Readers, ReaderState
from dfsfuse.fusekernel.requests import MalformedError, parse

log = logging.getLogger(__name__)

HEADER_ROOM_BYTES: Final = 4096
"""The size of a buffer beyond the data of the largest write."""


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
        patience: Patience = NO_PATIENCE,
        on_unmounted: Callable[[], None] = lambda: None,
        on_start: Callable[[ReaderState], None] = lambda _: None,
    ) -> None:
        """`on_unmounted` is called, perhaps more than once, when the mount is gone: waiting operations should then not
        wait for long, since `serve` waits for them. It must not block. `on_start` is called by each thread before it
        serves: for operations that wait, and can check in the meantime whether the next request has arrived."""
        self.device = Device(descriptor)
        self._operations = operations
        self._settings = settings or Settings()
        self._dispatcher = Dispatcher(operations, self.device, errno_of, patience)
        self._buffer_bytes = max(self._settings.max_write_bytes + HEADER_ROOM_BYTES, wire.FUSE_MIN_READ_BUFFER)
        self._readers = Readers(
            self.device.read_into,
            self._handle,
            self._buffer_bytes,
            threads_max,
            on_unmounted,
            descriptor,
            on_start,
        )
        self._is_cut_off = False

    def negotiate(self) -> Negotiated:
        """Read INIT and answer it. Raises `UnsupportedKernelError`, also if the mount is already gone."""
        buffer = bytearray(self._buffer_bytes)
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
        self._readers.start()
        self._readers.ended.wait()
        self._dispatcher.abandon()
        if not self._is_cut_off:
            self._readers.join()
        self._operations.destroy()

    def cut_off(self) -> None:
        """End although the mount is in use: every further request gets ENOTCONN. Threads that wait for a request cannot
        be woken; they end with the process or the mount."""
        self._is_cut_off = True
        self._readers.abandon()

    def _handle(self, message: memoryview) -> None:
        if self._is_cut_off:
            self._dispatcher.refuse(message, errno.ENOTCONN)
        else:
            self._dispatcher.handle(message)
