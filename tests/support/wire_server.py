"""A server that speaks the wire protocol and misbehaves as a test wants, for tests of the transport.

    def answer(line, request_id, request, payload): line.reply(request_id, Done())

    with WireServer("DFS1", answer=answer) as server:
        cluster = Cluster([server.address(1)], CREDENTIALS)

It shares only the protocol with the real server. Without `answer` it answers everything with `POSITION`. Each
connection has a thread; all are joined at the end. Every wait has a deadline.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from enum import Enum, auto
from types import TracebackType
from typing import Self

from scramp import ScramException, ScramMechanism
from support.ports import free_ports

from dfs_server.protocol import messages
from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.frames import AFTER_AUTHENTICATION, HEADER_BYTES, pack_header, parse_header
from dfs_server.protocol.messages import Authenticate, Challenge, Error, Message, Position, Prove, Request, Welcome
from dfs_server.protocol.status import Status
from dfsfuse.net.servers import Credentials, ServerAddress

CREDENTIALS = Credentials("alice", "alice-secret")
POSITION = Position(7, b"d" * 32, ZERO)
DEADLINE_S = 10.0
_MECHANISM = ScramMechanism("SCRAM-SHA-256")
_VERIFIER = _MECHANISM.make_auth_info(CREDENTIALS.password)


class Greeting(Enum):
    """How the server treats a new connection."""

    NORMAL = auto()
    SILENT = auto()
    """Accepts connections and sends nothing."""
    CLOSE = auto()
    BUSY = auto()
    GARBAGE = auto()
    IMPOSTOR = auto()
    """Has no verifier, and claims that the client's proof was right."""


class Line:
    """One accepted connection, as the `answer` function sees it."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        sock.settimeout(DEADLINE_S)
        self.socket = sock
        self.number = number  # the first connection is 1

    def reply(self, request_id: int, message: Message, payload: bytes = b"") -> None:
        body = messages.encode(message)
        self.socket.sendall(pack_header(request_id, len(body), len(payload)) + body + payload)

    def reset(self) -> None:
        """Close the connection with RST, as a killed server's kernel does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def receive(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("the client hung up")
            data += part
        return bytes(data)

    def receive_request(self) -> tuple[int, Request, bytes]:
        header = parse_header(self.receive(HEADER_BYTES), AFTER_AUTHENTICATION)
        request = messages.decode_request(self.receive(header.body_bytes))
        return header.request_id, request, self.receive(header.payload_bytes)


AnswerFunction = Callable[[Line, int, Request, bytes], None]


def answer_position(line: Line, request_id: int, request: Request, payload: bytes) -> None:
    """Answer every request with `POSITION`."""
    line.reply(request_id, POSITION)


class WireServer:
    """Listens from its creation until `close`; `kill` and `start` in between are a crash and a restart."""

    def __init__(
        self,
        name: str = "DFS1",
        *,
        greeting: Greeting = Greeting.NORMAL,
        answer: AnswerFunction = answer_position,
        says: str | None = None,
    ) -> None:
        """`says` is the name that it reports, if different."""
        self.name = name
        self.greeting = greeting
        self.answer = answer
        self.says = says or name
        self.identity = b""
        """The identity that it reports; if empty, one of its own."""
        self.accepted = 0
        self.requests: list[Request] = []
        self.released = threading.Event()
        """Set by the test, or by `close`, to release answers that wait for it."""
        (self.port,) = free_ports(1)
        self._lock = threading.Lock()
        self._lines: list[Line] = []  # guarded by _lock
        self._threads: list[threading.Thread] = []
        self.start()

    def address(self, id: int) -> ServerAddress:
        return ServerAddress(id, self.name, "127.0.0.1", self.port)

    def start(self) -> None:
        """Listen, on the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._spawn(self._accept, self._listener)

    def kill(self) -> None:
        """Reset all connections and refuse new ones."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            lines, self._lines = self._lines, []
        for line in lines:
            with contextlib.suppress(OSError):
                line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                line.socket.shutdown(socket.SHUT_RD)  # wakes the accepting thread
            line.socket.close()

    def close(self) -> None:
        self.released.set()
        self.kill()
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait_released(self) -> None:
        assert self.released.wait(DEADLINE_S)

    # ------------------------------------------------------------------ its threads

    def _spawn(self, function: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=function, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                with self._lock:
                    self.accepted += 1
                    line = Line(sock, self.accepted)
                    self._lines.append(line)
                self._spawn(self._serve, line)

    def _serve(self, line: Line) -> None:
        try:
            if self._greet(line):
                while True:
                    request_id, request, payload = line.receive_request()
                    self.requests.append(request)
                    self.answer(line, request_id, request, payload)
        except OSError:
            pass
        finally:
            line.socket.close()

    def _greet(self, line: Line) -> bool:
        if self.greeting is Greeting.CLOSE:
            return False
        if self.greeting is Greeting.GARBAGE:
            line.socket.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n")
        request_id, request, _ = line.receive_request()
        assert isinstance(request, Authenticate)
        match self.greeting:
            case Greeting.SILENT:
                self.wait_released()
                return False
            case Greeting.BUSY:
                line.reply(request_id, Error(Status.BUSY, "too many connections"))
                return False
        scram = _MECHANISM.make_server(lambda user: _VERIFIER)
        scram.set_client_first(request.scram)
        line.reply(request_id, Challenge(scram.get_server_first()))
        request_id, proof, _ = line.receive_request()
        assert isinstance(proof, Prove)
        try:
            scram.set_client_final(proof.scram)
            if request.user != CREDENTIALS.username:
                raise ScramException("unknown user")
        except ScramException:
            line.reply(request_id, Error(Status.AUTHENTICATION_FAILED, "wrong user name or password"))
            return False
        final = "v=" + "A" * 43 + "=" if self.greeting is Greeting.IMPOSTOR else scram.get_server_final()
        line.reply(request_id, Welcome(final, self.says, self.identity or b"%016d" % self.port))
        return True


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for an effect of another thread, by polling."""
    until = time.monotonic() + DEADLINE_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        pause.wait(0.01)
