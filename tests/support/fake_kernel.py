"""The kernel's side of /dev/fuse, over a socket that preserves message boundaries: tests the binding without a mount.

`FakeDevice` has both ends; a test sends requests through it and reads answers. `FakeKernel` also serves an `Operations`
there with the real threads of a real session. Leaving its `with` block "unmounts" and waits for the threads.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.dispatch import NO_PATIENCE, ErrnoOf, Patience, default_errno_of
from dfsfuse.fusekernel.negotiation import Settings
from dfsfuse.fusekernel.operations import Operations
from dfsfuse.fusekernel.session import Session

DEADLINE_S = 10.0
ALL_FLAGS = 2**30 - 1 | wire.FUSE_INIT_EXT
"""All the flags, as a kernel with every feature offers them."""


def request(opcode: int, unique: int, nodeid: int = 1, body: bytes = b"", length: int | None = None) -> bytes:
    """Return the bytes of a request from process 42 of user 10 and group 20."""
    size = wire.fuse_in_header.size + len(body) if length is None else length
    return wire.fuse_in_header.pack(size, opcode, unique, nodeid, 10, 20, 42, 0, 0) + body


def init_body(major: int = 7, minor: int = 40, flags: int = ALL_FLAGS, flags2: int = 2**32 - 1) -> bytes:
    return wire.fuse_init_in.pack(major, minor, 131072, flags, flags2)


class FakeDevice:
    """See the module. `descriptor` is the end that a session serves."""

    def __init__(self) -> None:
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.settimeout(DEADLINE_S)
        for end in (self._ours, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._numbers = itertools.count(2, 2)
        self.descriptor = self._theirs.fileno()

    def unmount(self) -> None:
        """End what the session reads, as when the last program has closed its files of a mount that was unmounted."""
        self._ours.close()

    def close(self) -> None:
        """Close both ends."""
        self._ours.close()
        self._theirs.close()

    def initialise(self) -> None:
        """Send INIT and read its answer."""
        self.ask(wire.FUSE_INIT, body=init_body())

    def send(self, opcode: int, nodeid: int = 1, body: bytes = b"", length: int | None = None) -> int:
        """Send a request and return its number."""
        unique = next(self._numbers)
        self.send_raw(request(opcode, unique, nodeid, body, length))
        return unique

    def send_raw(self, message: bytes) -> None:
        self._ours.send(message)

    def receive(self) -> tuple[int, int, bytes]:
        """Return the next answer or notification: its request's number, errno (or minus the code), and body."""
        message = self._ours.recv(4 << 20)
        length, error, unique = wire.fuse_out_header.unpack_from(message)
        assert length == len(message)
        return unique, -error, message[wire.fuse_out_header.size :]

    def ask(self, opcode: int, nodeid: int = 1, body: bytes = b"", length: int | None = None) -> tuple[int, bytes]:
        """Send a request, and return errno and body of its answer, which must be the next."""
        unique = self.send(opcode, nodeid, body, length)
        answered, error, answer = self.receive()
        assert answered == unique
        return error, answer


class FakeKernel(FakeDevice):
    """See the module."""

    def __init__(
        self,
        operations: Operations,
        settings: Settings | None = None,
        errno_of: ErrnoOf = default_errno_of,
        patience: Patience = NO_PATIENCE,
        on_unmounted: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.session = Session(
            self.descriptor,
            operations,
            settings,
            errno_of=errno_of,
            patience=patience,
            on_unmounted=on_unmounted,
        )
        self._thread = threading.Thread(target=self._serve, name="session")

    def _serve(self) -> None:
        self.session.negotiate()
        self.session.serve()

    def __enter__(self) -> Self:
        self._thread.start()
        self.initialise()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.unmount()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the session did not end"
        self.close()
