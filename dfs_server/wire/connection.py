"""One client's socket: sends and receives frames, each with a deadline, and notices that the server is stopping.

Knows sockets and the layout of frames, but no messages. Between frames a connection may be idle indefinitely
(keep-alive detects a peer whose machine is gone); once a frame has begun, in either direction, some byte must move
every `stall_s` seconds. `deadline`, while it is set, ends everything. Has its own small buffer for data that arrives
together with a header; otherwise uses only the caller's buffers.

Threads: belongs to one. `stop_descriptor` becomes readable when the server stops and stays so; a connection that waits
for a frame then returns immediately, one in the middle of a frame goes on.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from typing import Final

from dfs_server.protocol.frames import HEADER_BYTES
from dfs_server.protocol.pieces import Buffer

CLIENT_STALL_S: Final = 30.0
BUFFER_BYTES: Final = 8 * 1024
"""Most requests arrive complete, header and body, with one system call."""
LINGER_S: Final = 0.5
LINGER_BYTES: Final = 1024 * 1024

_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class ConnectionLostError(Exception):
    """The peer is gone, or too slow. It can no longer be told."""


class Connection:
    """A connected, non-blocking socket."""

    def __init__(self, sock: socket.socket, stop_descriptor: int, *, stall_s: float = CLIENT_STALL_S) -> None:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        self._socket = sock
        self.peer = _shown(sock)
        """The client's address, for the log."""
        self._stop = stop_descriptor
        self._stall_s = stall_s
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0  # received and not yet consumed data is _buffer[_start:_end]
        self._frame_poll = select.poll()
        self._frame_poll.register(sock, select.POLLIN)
        self._frame_poll.register(stop_descriptor, select.POLLIN)
        self.deadline: float | None = None

    # -------------------------------------------------------------- receiving

    def receive_header(self) -> memoryview | None:
        """The next frame's header, valid until the next call; None: the peer has closed the connection, or the server
        is stopping."""
        if self._start == self._end:
            self._start = self._end = 0
            if not self._wait_for_frame():
                return None
            self._end = self._receive_some(self._buffer)
            if self._end == 0:
                return None
        return self.receive(HEADER_BYTES)

    def receive(self, size: int) -> memoryview:
        """The next `size` bytes, valid until the next call. Raises `ConnectionLostError`, as below."""
        end = self._start + size
        if end <= self._end:
            view = self._buffer[self._start : end]
            self._start = end
            return view
        view = memoryview(bytearray(size))
        self.receive_into(view)
        return view

    def receive_into(self, view: memoryview) -> None:
        """Fill `view`. Raises `ConnectionLostError`, also if the peer closes the connection first."""
        if self._start < self._end:
            count = min(self._end - self._start, len(view))
            view[:count] = self._buffer[self._start : self._start + count]
            self._start += count
            view = view[count:]
        while view:
            received = self._receive_some(view)
            if received == 0:
                raise ConnectionLostError("the peer hung up in the middle of a frame")
            view = view[received:]

    def _receive_some(self, view: memoryview) -> int:
        while True:
            try:
                return self._socket.recv_into(view)
            except BlockingIOError:
                self._wait(select.POLLIN)
            except OSError as error:
                raise ConnectionLostError(str(error)) from error

    # -------------------------------------------------------------- sending

    def send(self, buffers: Sequence[Buffer], *, more: bool = False) -> None:
        """Send all buffers, none of which is empty. `more`: a file follows immediately and should share the packets.
        Raises `ConnectionLostError`."""
        flags = socket.MSG_MORE if more else 0
        rest = list(buffers)
        while rest:
            try:
                sent = self._socket.sendmsg(rest, (), flags)
            except BlockingIOError:
                self._wait(select.POLLOUT)
                continue
            except OSError as error:
                raise ConnectionLostError(str(error)) from error
            while rest and sent >= len(rest[0]):
                sent -= len(rest.pop(0))
            if sent:
                rest[0] = memoryview(rest[0])[sent:]

    def send_file(self, descriptor: int, offset: int, size: int) -> None:
        """Send `size` bytes of a file without reading them into this process. Raises `ConnectionLostError`.

        A disk error comes too late for an error reply: it ends the connection like any other error.
        """
        while size:
            try:
                sent = os.sendfile(self._socket.fileno(), descriptor, offset, size)
            except BlockingIOError:
                self._wait(select.POLLOUT)
                continue
            except OSError as error:
                raise ConnectionLostError(str(error)) from error
            if sent == 0:
                raise ConnectionLostError("the file is shorter than announced")
            offset += sent
            size -= sent

    # -------------------------------------------------------------- ending

    def hang_up(self) -> None:
        """Close so that the peer still receives the last data: closing with unread input would discard it (RST)."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            self.deadline = time.monotonic() + LINGER_S
            scratch = memoryview(bytearray(16 * 1024))
            discarded = 0
            while discarded < LINGER_BYTES and (received := self._receive_some(scratch)):
                discarded += received
        except (OSError, ConnectionLostError):
            pass
        self.close()

    def close(self) -> None:
        self._socket.close()

    # -------------------------------------------------------------- waiting

    def _wait_for_frame(self) -> bool:
        """Whether the peer sends something (or closes the connection) before the server stops."""
        timeout_s = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        events = self._frame_poll.poll(None if timeout_s is None else timeout_s * 1000)
        if not events:
            raise ConnectionLostError("the peer did not continue in time")
        return len(events) == 1 and events[0][0] != self._stop

    def _wait(self, event: int) -> None:
        timeout_s = self._stall_s
        if self.deadline is not None:
            timeout_s = min(timeout_s, max(0.0, self.deadline - time.monotonic()))
        poll = select.poll()
        poll.register(self._socket, event)
        if not poll.poll(timeout_s * 1000):
            raise ConnectionLostError(f"no byte moved for {timeout_s:g} s in the middle of a frame")


def _shown(sock: socket.socket) -> str:
    try:
        peer = sock.getpeername()
    except OSError:  # already disconnected
        return "a client that is gone"
    if not isinstance(peer, tuple):  # a socket pair, in tests
        return "this process"
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
