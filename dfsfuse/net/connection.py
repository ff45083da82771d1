"""One connection to one server: opened, authenticated, then one request after another. Never blocks.

Knows its socket, but neither poll nor deadlines: its driver calls `advance` when the socket is ready for what `events`
says. A connection belongs to one exchange at a time, or is idle in `Lines`; so it needs no lock. Only `silent_since`
may be called by any thread at any time.

States: connecting -> authenticating (neither `connecting` nor `ready`) -> ready, and closed from any of them. A request
begun before it is ready waits inside and is sent automatically.

Invariants:
- The buffers of a request (payload, sink) are held only while it is in flight. After its reply, `let_go` or `close`
  nothing here refers to them, so a late answer has nowhere to go.
- Replies come in the order of the requests. A request that nothing waits for any more leaves an *owed* reply, which is
  read and discarded before the next one counts.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys
from collections import deque
from collections.abc import Sequence
from typing import Final, NoReturn

from dfs_server.protocol import messages
from dfs_server.protocol.frames import AFTER_AUTHENTICATION, BEFORE_AUTHENTICATION, Header, ProtocolError
from dfs_server.protocol.messages import Error, Reply
from dfs_server.protocol.pieces import Buffer
from dfsfuse.errors import posix_error
from dfsfuse.net.framing import FrameReader, FrameWriter
from dfsfuse.net.handshake import Handshake, RefusalError
from dfsfuse.net.health.slowness import GONE_S, SLOW_S
from dfsfuse.net.name_service import Target
from dfsfuse.net.servers import Credentials, ServerAddress

MAX_OWED: Final = 32
MAX_ID: Final = (1 << 32) - 1
NOBODY: Final = 0
"""The request id of an `Error` that a server sends in response to a header that it cannot make sense of."""
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR
_WRITABLE: Final = select.POLLOUT | select.POLLHUP | select.POLLERR
_PROBE_AFTER_S: Final = 5
"""How long nothing moves on a connection before the peer's kernel is asked for a sign of life, once a second."""
_TCP_INFO: Final = struct.Struct("=2x B B 4x 48x I")
"""From Linux's `struct tcp_info`: retransmissions and unacknowledged probes, milliseconds since the last
acknowledgement."""


class Connection:
    """See the module. All methods may raise OSError when the connection is lost, and `ProtocolError`, and what
    `Handshake.step` raises; the caller must `close()` it then."""

    __slots__ = (
        "_closed", "_current", "_handshake", "_last_id", "_out", "_owed_since", "_pending", "_reader", "_sink",
        "_socket", "answering", "connecting", "fd", "heard", "is_met", "opened_at", "owed", "payload_bytes", "ready",
        "server", "unsent", "watched",
    )  # fmt: skip

    def __init__(self, server: ServerAddress, target: Target, credentials: Credentials, now: float) -> None:
        self.server = server
        self.opened_at = now
        self.connecting = True  # nothing is known about the server yet, not even that there is one
        self.ready = False  # the server has let us in
        self.answering = False  # whether a byte of the reply to the request in flight has come
        self.heard = False  # whether the last `advance` or `catch_up` has received something
        self.is_met = False  # whether its driver has checked the server's identity
        self.watched = 0  # the events that it is registered for with a poll object
        self.payload_bytes = 0  # of the last reply
        self._handshake = Handshake(server, credentials)
        self._reader = FrameReader(BEFORE_AUTHENTICATION)
        self._out = FrameWriter()
        self.unsent = self._out.views  # what is still to be sent
        self._last_id = 0
        self._current: int | None = None  # the id of the request whose reply is awaited
        self._pending: tuple[bytes, Sequence[Buffer]] | None = None  # a request that waits for READY
        self._sink: memoryview | None = None
        self.owed: deque[tuple[int, float]] = deque()  # id, and when it should have come
        self._owed_since = now  # since when nothing of them has come
        self._closed = False
        self._socket = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            self._open(target)
        except BaseException:
            self._socket.close()
            raise
        self.fd = self._socket.fileno()

    # ------------------------------------------------------------------ state

    @property
    def events(self) -> int:
        """Return what to poll for."""
        if self.connecting:
            return select.POLLOUT
        return select.POLLIN | select.POLLOUT if self.unsent else select.POLLIN

    @property
    def identity(self) -> bytes:
        """Return the identity of the server's folder, once it is ready."""
        return self._handshake.identity

    @property
    def owed_until(self) -> float | None:
        """Return when the oldest reply that is still owed should have come."""
        return self.owed[0][1] if self.owed else None

    def silent_since(self) -> float | None:
        """Return since when an idle connection owes an answer, or a greeting, of which nothing has come; None if it
        does not, or if nothing is known about the server yet."""
        if self.connecting or (self.ready and not self.owed) or self._peek() is not None:
            return None
        return self._owed_since if self.ready else self.opened_at

    def has_unread(self) -> bool:
        """Return whether something has come that its driver has not read yet. May be called by any thread."""
        return self._peek() is not None

    def is_peer_gone(self) -> bool:
        """Return whether not even the peer's kernel has acknowledged anything for `GONE_S`, though it was asked to.
        False if the system does not tell."""
        if not hasattr(socket, "TCP_INFO") or sys.platform != "linux":
            return False
        try:
            return is_deaf(self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size))
        except OSError:
            return True

    # ------------------------------------------------------------------ while idle

    def is_hung_up(self) -> bool:
        """Return whether the server has closed an idle connection: it was stopped, or killed."""
        return self.ready and self._peek() == b""

    def catch_up(self) -> bool:
        """Continue the greeting, or read owed replies, if that is possible now. Returns whether it was."""
        if self.ready:
            self._receive()
            return self.heard
        poll = select.poll()
        poll.register(self.fd, self.events)
        ready = poll.poll(0)
        if ready:
            self.advance(ready[0][1])
        return bool(ready)

    # ------------------------------------------------------------------ one request

    def begin(
        self, body: bytes, payload: Sequence[Buffer] = (), sink: memoryview | None = None, head_bytes: int = 0
    ) -> None:
        """Send a request; `payload`'s buffers and `sink` are held until it is over. `head_bytes`: see `Call`."""
        if head_bytes and sink is not None and self.ready and not self.owed and self._reader.at_rest:
            self._reader.foresee(head_bytes, sink)
        self._sink = sink
        self.answering = False
        if self.ready:
            self._current = self._send(body, payload)
        else:
            self._pending = body, payload

    def advance(self, events: int) -> Reply | None:
        """Do what is possible now that poll has reported `events`. Returns the reply to the request in flight, once it
        is complete."""
        if self.connecting:
            self._connected()
            return None
        if events & _WRITABLE and self._out.views:
            try:
                self._flush()
            except OSError:  # the server may have said why before it closed
                self._out.clear()
                reply = self._receive()
                if reply is not None:
                    return reply
                raise
        return self._receive() if events & _READABLE else None

    def let_go(self, patience_until: float, silent_since: float) -> bool:
        """Stop waiting for the request in flight. Returns whether the connection can be used again.

        Its reply is owed then, and should come before `patience_until`; nothing of it has come since `silent_since`.
        """
        self._pending = None
        if self._closed:
            return False
        if not self.ready:
            self._sink = None
            return True
        if self._out.views or self._sink is not None or len(self.owed) >= MAX_OWED:
            return False
        if self._current is not None:
            if not self.owed:
                self._owed_since = silent_since
            self.owed.append((self._current, patience_until))
            self._current = None
        return True

    def finish(self) -> bool:
        """Finish the request, whose reply was returned. Returns whether the connection can be used again."""
        return self.ready and self._reader.at_rest and not self._out.views

    def close(self) -> None:
        """Close the socket and release all buffers."""
        self._closed, self.connecting, self.ready = True, False, False
        self._socket.close()
        self._out.clear()
        self._reader.drop()
        self._pending = self._sink = self._current = None
        self.owed.clear()

    # ------------------------------------------------------------------ inside

    def _peek(self) -> bytes | None:
        """Return the next byte that has come. None: nothing has. Empty: the connection is lost."""
        try:
            return self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _open(self, target: Target) -> None:
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _watch_peer(self._socket)
        failure = self._socket.connect_ex(target.address)
        if failure not in (0, errno.EINPROGRESS):
            raise posix_error(failure)

    def _connected(self) -> None:
        failure = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise posix_error(failure)
        if self._socket.getsockname() == self._socket.getpeername():
            # TCP lets a socket connect to itself if it is given the very port that it connects to
            raise posix_error(errno.ECONNREFUSED)
        self.connecting = False
        self._current = self._send(messages.encode(self._handshake.first()))

    def _send(self, body: bytes, payload: Sequence[Buffer] = ()) -> int:
        self._last_id = self._last_id % MAX_ID + 1
        self._out.add(self._last_id, body, payload)
        self._flush()
        return self._last_id

    def _flush(self) -> None:
        out, views = self._out, self._out.views
        try:
            while views:
                if len(views) > 1:
                    out.sent(self._socket.sendmsg(views))
                elif (count := self._socket.send(views[0])) == len(views[0]):
                    views.clear()
                else:
                    out.sent(count)
        except BlockingIOError:
            pass

    def _receive(self) -> Reply | None:
        """Read until nothing more is there, or the awaited reply is complete."""
        reader = self._reader
        self.heard = False
        while True:
            try:
                if reader.foreseen:
                    parts = reader.parts()
                    room, count = sum(map(len, parts)), self._socket.recvmsg_into(parts)[0]
                else:
                    buffer = reader.buffer()
                    room, count = len(buffer), self._socket.recv_into(buffer)
            except BlockingIOError:
                return None
            if count == 0:
                raise ConnectionResetError(errno.ECONNRESET, "the server closed the connection")
            self.heard = True
            reader.received(count)
            while (body := reader.frame(self._expect)) is not None:
                reply = self._take(body)
                if reply is not None:
                    return reply
            if count < room:
                return None

    def _expect(self, header: Header) -> memoryview | None:
        """Check that this frame may come next, and return where its payload goes."""
        if self.owed:
            wanted: int | None = self.owed[0][0]
        else:
            wanted = self._current
        if header.request_id == NOBODY and not header.payload_bytes:
            return None  # the server's last words, see `_take`
        if header.request_id != wanted:
            raise ProtocolError(f"an answer to request {header.request_id}; the next one should be to {wanted}")
        if self.owed:
            return None
        if self.ready:
            self.answering = True
            return self._sink
        return None

    @staticmethod
    def _last_words(reply: Reply) -> NoReturn:
        """Raise what the server says about this connection, rather than about a request."""
        if isinstance(reply, Error):
            raise RefusalError(reply.status, reply.text)
        raise ProtocolError(f"{type(reply).__name__} to no request")

    def _take(self, body: memoryview) -> Reply | None:
        """Handle a complete frame. Returns the reply if it is the awaited one."""
        if self._reader.header.request_id == NOBODY:
            self._last_words(messages.decode_reply(body))
        if self.owed:
            self.owed.popleft()
            return None
        self._current = None
        reply = messages.decode_reply(body)
        if self.ready:
            self.payload_bytes = self._reader.header.payload_bytes
            self._sink = None
            return reply
        proof = self._handshake.step(reply)
        if proof is not None:
            self._current = self._send(messages.encode(proof))
        else:
            self.ready = True
            self._reader.limits = AFTER_AUTHENTICATION
            if self._pending is not None:
                request, self._pending = self._pending, None
                self._current = self._send(*request)
        return None


def is_deaf(info: bytes) -> bool:
    """Return whether the kernel is retransmitting to the peer, and has heard nothing from it for `GONE_S`. A peer whose
    program does not read, so that its buffers are full, still acknowledges probes. `info`: Linux's `struct
    tcp_info`."""
    if len(info) < _TCP_INFO.size:
        return False
    retransmits, probes, heard_ago_ms = _TCP_INFO.unpack_from(info)
    return bool(retransmits or probes) and heard_ago_ms >= GONE_S * 1000


def _watch_peer(connection: socket.socket) -> None:
    """Have TCP end the connection if the peer's kernel has given no sign of life for `GONE_S` while nothing is being
    sent to it: a server that is stopped or busy keeps its connections, one whose machine or network is gone does not.
    While something is being sent, `is_peer_gone` applies; TCP's own timeout for that also counts against a peer that is
    alive and whose buffers are full, and is longer than anyone is willing to wait."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", _PROBE_AFTER_S),
        ("TCP_KEEPINTVL", 1),
        ("TCP_KEEPCNT", int(GONE_S) - _PROBE_AFTER_S),
        ("TCP_USER_TIMEOUT", int(SLOW_S * 1000)),
    ):
        if hasattr(socket, option):  # systems differ
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
