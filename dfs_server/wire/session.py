"""One client's connection, from its first byte to its last: authenticate, then request and reply, one at a time.

Knows which requests are allowed when, and transfers payloads; `accounts` and `namespaces` carry the requests out,
`connection` knows the byte format. Whatever a client does, the session answers with an `Error` if that is possible,
closes the connection if it must, and holds no more than one body, one reply and buffers of 8 and 128 KiB.

Threads: runs in its own thread; `ServerContext` and its contents are shared by all sessions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final, ParamSpec

from dfs_server.namespace import Namespace
from dfs_server.namespaces import Namespaces
from dfs_server.pieces.open_piece import OpenPiece
from dfs_server.pieces.tables import StoredPiece
from dfs_server.protocol import messages
from dfs_server.protocol.frames import (
    AFTER_AUTHENTICATION,
    BEFORE_AUTHENTICATION,
    Header,
    Limits,
    ProtocolError,
    pack_header,
    parse_header,
)
from dfs_server.protocol.messages import (
    Authenticate,
    Challenge,
    Done,
    Error,
    GetBatches,
    GetChanges,
    GetFindings,
    GetPiece,
    GetPieces,
    ListPieces,
    Message,
    Piece,
    Prove,
    PutPiece,
    ReadKeys,
    ReadRange,
    Request,
    Welcome,
)
from dfs_server.protocol.pieces import BLOCK_BYTES, Buffer
from dfs_server.protocol.status import Status
from dfs_server.wire.accounts import Accounts, RefusedError
from dfs_server.wire.connection import Connection, ConnectionLostError
from dfs_server.wire.failures import RequestFailedError, failures_told
from dfs_server.wire.shares import SMALL_BYTES, Hold, Shares, TooBusyError

AUTHENTICATION_S: Final = 10.0
PAYLOAD_BUFFER_BYTES: Final = 2 * BLOCK_BYTES
LARGE_REPLY_BYTES: Final = 2 * 1024 * 1024
"""Memory that the reply to a reading request may need while it is built and sent."""
_LARGE_REPLIES: Final = frozenset({ReadKeys, ReadRange, GetBatches, GetChanges, GetFindings, ListPieces, GetPieces})
"""Requests whose replies may be large."""
_ANSWERED_HERE: Final = frozenset({PutPiece, GetPiece, Authenticate, Prove})
_LAST_WORDS: Final = frozenset({Status.BAD_REQUEST, Status.UNAUTHENTICATED, Status.AUTHENTICATION_FAILED})

P = ParamSpec("P")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerContext:
    """What all sessions of a server share. `stopping`: whether no new request may begin."""

    server: str
    identity: bytes
    accounts: Accounts
    namespaces: Namespaces
    shares: Shares
    stopping: Callable[[], bool]
    authentication_s: float = AUTHENTICATION_S


class Session:
    """Serves one connection. `crowded`: there are too many connections; the client is told so and disconnected."""

    def __init__(self, connection: Connection, context: ServerContext, *, crowded: bool = False) -> None:
        self._connection = connection
        self._context = context
        self._crowded = crowded
        self._limits: Limits = BEFORE_AUTHENTICATION
        self._request_id = 0
        self._payload_buffer: memoryview | None = None

    def run(self) -> None:
        """Serve until the client hangs up or misbehaves, or the server stops. Raises nothing."""
        try:
            self._serve()
        except ConnectionLostError as error:
            log.debug("a connection was lost: %s", error)
        except Exception:
            log.exception("a session ended with an unexpected exception")
        finally:
            self._connection.close()

    def _serve(self) -> None:
        try:
            self._connection.deadline = time.monotonic() + self._context.authentication_s
            if (proven := self._authenticate()) is None:
                return
            user, final = proven
            with self._context.shares.take(user) as share:
                namespace = self._context.namespaces.of(user)
                self._connection.deadline = None
                self._limits = AFTER_AUTHENTICATION
                self._send(Welcome(final, self._context.server, self._context.identity))
                with share.hold() as held:
                    while self._serve_request(namespace, held):
                        pass
        except ProtocolError as error:
            self._refuse(Status.BAD_REQUEST, str(error))
        except TooBusyError as error:
            self._refuse(Status.BUSY, f"server {self._context.server}: {error}")
        except (RefusedError, RequestFailedError) as error:
            self._refuse(error.status, str(error))

    def _refuse(self, status: Status, text: str) -> None:
        """Send the last reply of a connection: whatever else the client sends is discarded."""
        level = logging.WARNING if status is Status.AUTHENTICATION_FAILED else logging.INFO
        log.log(level, "the connection from %s is closed: %s", self._connection.peer, text)
        self._send(Error(status, text))
        self._connection.hang_up()

    # -------------------------------------------------------------- authentication

    def _authenticate(self) -> tuple[str, str] | None:
        """(user, the final SCRAM message) once the client has proven that it knows the password; None: it
        disconnected."""
        handshake = self._context.accounts.handshake()
        while (header := self._receive_header()) is not None:
            request = self._receive_body(header)
            if self._crowded:
                raise TooBusyError("too many connections")
            match request:
                case Authenticate():
                    self._send(Challenge(handshake.challenge(request)))
                case Prove():
                    return handshake.prove(request)
                case _:
                    raise RefusedError(Status.UNAUTHENTICATED, "authenticate first")
        return None

    # -------------------------------------------------------------- requests

    def _serve_request(self, namespace: Namespace, held: Hold) -> bool:
        """Answer the next request; False if there is none or the connection must end."""
        if self._context.stopping() or (header := self._receive_header()) is None:
            return False
        if header.body_bytes > SMALL_BYTES:
            held.change(header.body_bytes)
        request = self._receive_body(header)
        kind = type(request)
        if kind in _ANSWERED_HERE:
            goes_on = self._answer_here(namespace, request, header)
        else:
            if kind in _LARGE_REPLIES:
                held.change(LARGE_REPLY_BYTES)
            goes_on = self._answer(namespace, request, held)
        if held.size_bytes:
            held.change(0)
        return goes_on

    def _answer_here(self, namespace: Namespace, request: Request, header: Header) -> bool:
        """Answer a request that moves a payload, or has its time before all others."""
        match request:
            case PutPiece():
                return self._send(self._put_piece(namespace, request, header.payload_bytes))
            case GetPiece():
                return self._send_piece(namespace, request)
            case _:
                raise ProtocolError("this connection is authenticated already")

    def _answer(self, namespace: Namespace, request: Request, held: Hold) -> bool:
        """Answer a request without payloads; its share is released once the reply is known not to need it."""
        try:
            reply: Message = namespace.answer(request)
        except RequestFailedError as error:
            reply = Error(error.status, str(error))
        body = messages.encode(reply)
        if len(body) > self._limits.body_bytes:
            raise ProtocolError(f"the reply would have {len(body)} bytes: ask for less at once")
        if held.size_bytes and len(body) <= SMALL_BYTES:
            held.change(0)
        return self._send_body(reply, body)

    # -------------------------------------------------------------- pieces

    def _put_piece(self, namespace: Namespace, request: PutPiece, length: int) -> Message:
        """Receive the payload, and store it, or discard it once the request has failed; returns the reply."""
        failure: RequestFailedError | None = None
        with ExitStack() as opened:
            try:
                upload = opened.enter_context(namespace.put_piece(request, length))
            except RequestFailedError as error:
                failure = error
            buffer = self._buffer()
            while length:
                block = buffer[: min(length, len(buffer))]
                self._connection.receive_into(block)
                length -= len(block)
                failure = failure or _failure_of(upload.write, block)
            failure = failure or _failure_of(upload.commit)
        return Done() if failure is None else Error(failure.status, str(failure))

    def _send_piece(self, namespace: Namespace, request: GetPiece) -> bool:
        if request.first_block < 0 or request.block_count < 0:
            raise ProtocolError("blocks of a piece are counted from 0")
        try:
            found = namespace.get_piece(request)
        except RequestFailedError as error:
            return self._send(Error(error.status, str(error)))
        start = request.first_block * BLOCK_BYTES
        if isinstance(found, StoredPiece):
            data = memoryview(found.data)[start:]
            if request.block_count:
                data = data[: request.block_count * BLOCK_BYTES]
            self._send(Piece(len(found.data), found.digests), data)
            return True
        with found:
            self._send_file(found, start, request.block_count)
        return True

    def _send_file(self, piece: OpenPiece, start: int, block_count: int) -> None:
        size = max(0, piece.length - start)
        if block_count:
            size = min(size, block_count * BLOCK_BYTES)
        body = messages.encode(Piece(piece.length, piece.digests))
        self._connection.send([pack_header(self._request_id, len(body), size), body], more=size > 0)
        self._connection.send_file(piece.fileno(), piece.data_offset + start, size)

    def _buffer(self) -> memoryview:
        if self._payload_buffer is None:
            self._payload_buffer = memoryview(bytearray(PAYLOAD_BUFFER_BYTES))
        return self._payload_buffer

    # -------------------------------------------------------------- frames

    def _receive_header(self) -> Header | None:
        self._request_id = 0
        received = self._connection.receive_header()
        if received is None:
            return None
        header = parse_header(received, self._limits)
        self._request_id = header.request_id
        return header

    def _receive_body(self, header: Header) -> Request:
        request = messages.decode_request(self._connection.receive(header.body_bytes))
        if header.payload_bytes and not isinstance(request, PutPiece):
            raise ProtocolError(f"a payload does not belong to {type(request).__name__}")
        return request

    def _send(self, reply: Message, payload: Buffer = b"") -> bool:
        """Send a reply; returns whether the connection can be used further."""
        return self._send_body(reply, messages.encode(reply), payload)

    def _send_body(self, reply: Message, body: bytes, payload: Buffer = b"") -> bool:
        header = pack_header(self._request_id, len(body), len(payload))
        frame: list[Buffer] = [header + body] if len(body) <= SMALL_BYTES else [header, body]
        if len(payload):
            frame.append(payload)
        self._connection.send(frame)
        if isinstance(reply, Error) and reply.status in _LAST_WORDS:
            self._connection.hang_up()
            return False
        return True


def _failure_of(step: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> RequestFailedError | None:
    """The failure of a step of an upload, if any: the whole payload must be read from the connection all the same."""
    try:
        with failures_told():
            step(*args, **kwargs)
    except RequestFailedError as error:
        return error
    return None
