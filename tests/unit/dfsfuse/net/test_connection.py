"""One connection, driven step by step."""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest
from support.vanishing import vanish
from support.wire_server import CREDENTIALS, DEADLINE_S, POSITION, Line, WireServer

from dfs_server.protocol.messages import GetPosition, Piece, Reply, Request, encode
from dfsfuse.net.connection import MAX_OWED, Connection, is_deaf
from dfsfuse.net.health.slowness import GONE_S, SLOW_S
from dfsfuse.net.name_service import look_up_number
from dfsfuse.net.servers import ServerAddress

ASK = encode(GetPosition())


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def connection(server: WireServer) -> Iterator[Connection]:
    address = server.address(1)
    connection = Connection(address, look_up_number(address)[0], CREDENTIALS, 0.0)
    yield connection
    connection.close()


def drive(connection: Connection, until: Callable[[], bool] = lambda: False) -> Reply | None:
    """Advance the connection until there is a reply or `until` is true."""
    while not until():
        poll = select.poll()
        poll.register(connection.fd, connection.events)
        ready = poll.poll(DEADLINE_S * 1000)
        assert ready, "nothing happened"
        reply = connection.advance(ready[0][1])
        if reply is not None:
            return reply
    return None


def test_request_begun_before_the_greeting_goes_out_after_it(server: WireServer, connection: Connection) -> None:
    assert connection.connecting
    connection.begin(ASK)
    assert drive(connection) == POSITION
    assert connection.ready
    assert connection.finish()
    assert connection.silent_since() is None
    assert server.requests == [GetPosition()]


def test_greeting_let_go_of_is_taken_up_again(server: WireServer, connection: Connection) -> None:
    connection.begin(ASK)
    assert connection.let_go(0.0, 0.0)
    drive(connection, until=lambda: connection.ready)
    assert server.requests == []
    connection.begin(ASK)
    assert drive(connection) == POSITION


def test_catching_up_is_a_greeting_step_by_step(connection: Connection) -> None:
    poll = select.poll()
    while not connection.ready:
        poll.register(connection.fd, connection.events)
        assert poll.poll(DEADLINE_S * 1000)
        assert connection.catch_up()
    assert not connection.catch_up()
    assert not connection.is_hung_up()


def test_closed_by_the_server_it_is_hung_up(server: WireServer, connection: Connection) -> None:
    drive(connection, until=lambda: connection.ready)
    server.kill()
    poll = select.poll()
    poll.register(connection.fd, select.POLLIN)
    assert poll.poll(DEADLINE_S * 1000)
    assert connection.is_hung_up()


def test_only_so_many_replies_may_be_owed(server: WireServer, connection: Connection) -> None:
    server.answer = lambda line, id, request, payload: server.wait_released()
    drive(connection, until=lambda: connection.ready)
    for n in range(MAX_OWED):
        connection.begin(ASK)
        assert connection.let_go(float(n), 0.0)
    assert connection.owed_until == 0.0
    connection.begin(ASK)
    assert not connection.let_go(99.0, 0.0)


def test_owed_replies_are_skipped(server: WireServer, connection: Connection) -> None:
    drive(connection, until=lambda: connection.ready)
    for _ in range(5):
        connection.begin(ASK)
        assert connection.let_go(1.0, 0.0)
    connection.begin(ASK)
    assert drive(connection) == POSITION
    assert connection.owed_until is None
    assert len(server.requests) == 6


def test_unfinished_upload_cannot_be_let_go_of(server: WireServer, connection: Connection) -> None:
    server.answer = lambda line, id, request, payload: server.wait_released()
    drive(connection, until=lambda: connection.ready)
    connection.begin(ASK)
    assert connection.let_go(1.0, 0.0)
    connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    payload = bytearray(1024 * 1024)  # more than the sockets hold
    connection.begin(ASK, (payload,))
    assert connection.events & select.POLLOUT
    assert not connection.let_go(1.0, 0.0)
    connection.close()
    payload.append(1)  # BufferError while anything refers to it


def test_reply_ends_the_hold_on_the_sink(server: WireServer, connection: Connection) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(id, Piece(4, b""), b"abcd")

    server.answer = answer
    sink = bytearray(4)
    connection.begin(ASK, (), memoryview(sink))
    assert drive(connection) == Piece(4, b"")
    assert connection.payload_bytes == 4
    sink.append(1)  # BufferError while anything refers to it
    assert sink == b"abcd\x01"


def test_socket_that_meets_itself_is_refused() -> None:
    """TCP connects a socket to itself if it happens to be bound to the port that it connects to."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    address = ServerAddress(1, "DFS1", "127.0.0.1", port)
    connection = Connection(address, look_up_number(address)[0], CREDENTIALS, 0.0)
    try:
        with socket.socket() as myself:
            myself.bind(("127.0.0.1", 0))
            myself.connect(myself.getsockname())
            connection._socket.close()
            connection._socket = myself
            with pytest.raises(ConnectionRefusedError):
                connection.advance(select.POLLOUT)
    finally:
        connection.close()


def _info(*, retransmits: int = 0, probes: int = 0, heard_ago_s: float = 0.0) -> bytes:
    """Linux's `struct tcp_info`, as far as it matters here."""
    return struct.pack("=8B13I", 1, 0, retransmits, probes, 0, 0, 0, 0, *[0] * 12, round(heard_ago_s * 1000)) + bytes(
        100
    )


@pytest.mark.parametrize(
    ("info", "deaf"),
    [
        (_info(retransmits=3, heard_ago_s=10.0), True),
        (_info(probes=3, heard_ago_s=10.0), True),
        (_info(retransmits=3, heard_ago_s=9.9), False),
        (_info(heard_ago_s=60.0), False),  # nothing is in flight
        (b"short", False),
    ],
)
def test_a_peer_whose_kernel_confirms_nothing_is_gone(info: bytes, deaf: bool) -> None:
    assert is_deaf(info) is deaf


def test_a_peer_that_does_not_read_is_there(
    server: WireServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its buffers are full, and TCP's own timeout for unacknowledged data is running."""

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(id, POSITION)

    server.answer = answer
    connection.begin(ASK)
    assert drive(connection) == POSITION
    monkeypatch.setattr("dfsfuse.net.connection.GONE_S", 0.1)
    peer = connection._socket
    assert peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == SLOW_S * 1000
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection._socket = socket.create_connection(listener.getsockname())
        connection._socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            while True:
                connection._socket.send(bytes(65536))
        assert not select.select([], [], [connection._socket], 0.5)[2]
        assert not connection.is_peer_gone()
        connection._socket.close()
    assert connection.is_peer_gone(), "it has closed the connection"
    connection._socket = peer


def test_a_peer_that_has_vanished_is_gone_when_it_was_asked_something(
    server: WireServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing reports that its machine is off: its kernel just stops acknowledging."""
    lines: list[Line] = []

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        lines.append(line)
        line.reply(id, POSITION)

    server.answer = answer
    connection.begin(ASK)
    assert drive(connection) == POSITION
    monkeypatch.setattr("dfsfuse.net.connection.GONE_S", 0.5)
    vanish(lines[0].socket)
    connection.begin(ASK)
    assert not connection.is_peer_gone(), "it was heard from a moment ago"
    deadline = time.monotonic() + DEADLINE_S
    while not connection.is_peer_gone():
        assert time.monotonic() < deadline
        assert not select.select([connection.fd], [], [], 0.02)[0]


def test_while_nothing_is_on_its_way_tcp_asks_whether_the_peer_is_there(connection: Connection) -> None:
    """This checks the options only; tests/programs/test_gone_servers.py waits for the real thing."""

    def option(name: str) -> int:
        return connection._socket.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))

    assert connection._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert option("TCP_KEEPIDLE") + option("TCP_KEEPINTVL") * option("TCP_KEEPCNT") == GONE_S
