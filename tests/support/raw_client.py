"""A blocking client of one server in a hundred lines, for tests that speak the protocol themselves.

    with RawClient(port) as client:
        client.authenticate("alice", "alice-secret")
        reply, payload = client.call(GetStatus())

It shares only the protocol with the real client. Every wait has a deadline (`timeout_s`).
"""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from scramp import ScramClient

from dfs_server.protocol import messages
from dfs_server.protocol.frames import (
    AFTER_AUTHENTICATION,
    HEADER_BYTES,
    VERSION,
    Limits,
    pack_header,
    parse_header,
)
from dfs_server.protocol.messages import (
    Authenticate,
    Challenge,
    Error,
    Message,
    Prove,
    PutPiece,
    Reply,
    Welcome,
)
from dfs_server.protocol.pieces import Buffer, block_digests
from dfs_server.protocol.status import Status


class ServerError(Exception):
    """The server answered with an unexpected Error."""

    def __init__(self, error: Error) -> None:
        self.status = Status(error.status)
        self.text = error.text
        super().__init__(f"{self.status.name}: {error.text}")


class RawClient:
    """One connection to one server."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, timeout_s: float = 15.0) -> None:
        self.socket = socket.create_connection((host, port), timeout=timeout_s)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next_id = 1
        self._limits: Limits = AFTER_AUTHENTICATION

    @property
    def address(self) -> tuple[str, int]:
        """The address that the server sees."""
        host, port = self.socket.getsockname()[:2]
        return host, port

    def authenticate(self, user: str, password: str) -> Welcome:
        """Perform the whole handshake, including the check of the server's proof. Raises `ServerError`."""
        scram = ScramClient(["SCRAM-SHA-256"], user, password)
        challenge = self.ask(Authenticate(VERSION, user, scram.get_client_first()))
        assert isinstance(challenge, Challenge), challenge
        scram.set_server_first(challenge.scram)
        welcome = self.ask(Prove(scram.get_client_final()))
        assert isinstance(welcome, Welcome), welcome
        scram.set_server_final(welcome.scram)
        return welcome

    def ask(self, request: Message, payload: Buffer = b"") -> Reply:
        """Send a request and return its reply; an `Error` is raised as `ServerError`."""
        reply, _ = self.call(request, payload)
        if isinstance(reply, Error):
            raise ServerError(reply)
        return reply

    def put_piece(self, segment: bytes, number: int, data: Buffer) -> Reply:
        """Put a piece with the right digests. Raises `ServerError`."""
        return self.ask(PutPiece(segment, number, block_digests(data)), data)

    def call(self, request: Message, payload: Buffer = b"") -> tuple[Reply, bytes]:
        """Send a request, and return its reply and the reply's payload."""
        sent_id = self.send(request, payload)
        reply_id, reply, reply_payload = self.receive()
        assert reply_id == sent_id, f"the reply to request {reply_id} came for request {sent_id}"
        return reply, reply_payload

    def send(self, request: Message, payload: Buffer = b"") -> int:
        """Send a request without waiting, and return its id."""
        request_id, self._next_id = self._next_id, self._next_id + 1
        body = messages.encode(request)
        self.send_raw(pack_header(request_id, len(body), len(payload)) + body)
        self.send_raw(payload)
        return request_id

    def send_raw(self, data: Buffer) -> None:
        """Send any bytes."""
        self.socket.sendall(data)

    def receive(self) -> tuple[int, Reply, bytes]:
        """Return the next reply: its request's id, the reply, its payload. Raises ConnectionError if the server hung
        up."""
        header = parse_header(self._receive_exactly(HEADER_BYTES), self._limits)
        reply = messages.decode_reply(self._receive_exactly(header.body_bytes))
        return header.request_id, reply, self._receive_exactly(header.payload_bytes)

    def is_closed_by_server(self) -> bool:
        """Whether the server sends nothing more and hangs up; waits for that until the deadline."""
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _receive_exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            part = self.socket.recv(min(size - len(received), 1 << 20))
            if not part:
                raise ConnectionError("the server hung up")
            received += part
        return bytes(received)
