"""One socket: frames arrive whole or not at all, every wait has a deadline, and a stop wakes idle connections."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfs_server.protocol.frames import HEADER_BYTES
from dfs_server.wire.connection import Connection, ConnectionLostError

HEADER = bytes(range(HEADER_BYTES))
SHORT_S = 0.05


class Ends:
    """A connection and its peer's socket."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.peer = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=10))
            sock, _ = listener.accept()
        self.stop_read, self.stop_write = os.pipe()
        stack.callback(os.close, self.stop_read)
        stack.callback(self.stop)
        self.connection = Connection(sock, self.stop_read, stall_s=SHORT_S)
        stack.callback(self.connection.close)

    def stop(self) -> None:
        descriptor, self.stop_write = self.stop_write, -1
        if descriptor >= 0:
            os.close(descriptor)


@pytest.fixture
def ends() -> Iterator[Ends]:
    with contextlib.ExitStack() as stack:
        yield Ends(stack)


def received(ends: Ends, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = ends.peer.recv(size - len(data))
        assert part
        data += part
    return bytes(data)


def test_a_header_and_a_body(ends: Ends) -> None:
    ends.peer.sendall(HEADER + b"body")
    assert bytes(ends.connection.receive_header() or b"") == HEADER
    body = bytearray(4)
    ends.connection.receive_into(memoryview(body))
    assert body == b"body"


class CountingSocket:
    """A connection's socket that counts the calls of recv_into."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.received = 0

    def recv_into(self, buffer: memoryview) -> int:
        self.received += 1
        return self._sock.recv_into(buffer)

    def __getattr__(self, name: str) -> object:
        return getattr(self._sock, name)


def test_a_request_comes_with_one_system_call(ends: Ends) -> None:
    counting = CountingSocket(ends.connection._socket)
    ends.connection._socket = counting  # type: ignore[assignment]
    for _ in range(2):
        ends.peer.sendall(HEADER + b"a body")
        assert bytes(ends.connection.receive_header() or b"") == HEADER
        assert bytes(ends.connection.receive(6)) == b"a body"
    assert counting.received == 2


def test_requests_that_arrive_together_are_separated(ends: Ends) -> None:
    """Two small ones, and one larger than the buffer, whose payload goes into its sink."""
    large, payload = bytes(range(256)) * 40, b"payload" * 1000
    ends.peer.sendall(HEADER + b"one" + HEADER + b"two" + HEADER + large + payload + HEADER)
    for body in (b"one", b"two", large):
        assert bytes(ends.connection.receive_header() or b"") == HEADER
        assert bytes(ends.connection.receive(len(body))) == body
    sink = bytearray(len(payload))
    ends.connection.receive_into(memoryview(sink))
    assert sink == payload
    assert bytes(ends.connection.receive_header() or b"") == HEADER


def test_a_header_that_comes_byte_by_byte(ends: Ends) -> None:
    def dribble() -> None:
        for byte in HEADER:
            ends.peer.sendall(bytes([byte]))

    thread = threading.Thread(target=dribble)
    thread.start()
    assert bytes(ends.connection.receive_header() or b"") == HEADER
    thread.join(10)


def test_hanging_up_between_frames_is_no_error(ends: Ends) -> None:
    ends.peer.close()
    assert ends.connection.receive_header() is None


def test_hanging_up_in_the_middle_of_a_frame_is(ends: Ends) -> None:
    ends.peer.sendall(HEADER[:5])
    ends.peer.close()
    with pytest.raises(ConnectionLostError, match="in the middle"):
        ends.connection.receive_header()


def test_a_frame_that_has_begun_must_go_on(ends: Ends) -> None:
    ends.peer.sendall(HEADER[:5])
    with pytest.raises(ConnectionLostError, match="no byte moved"):
        ends.connection.receive_header()


def test_before_a_frame_only_the_deadline_counts(ends: Ends) -> None:
    begun = time.monotonic()
    ends.connection.deadline = begun + 2 * SHORT_S
    with pytest.raises(ConnectionLostError, match="did not continue in time"):
        ends.connection.receive_header()
    assert time.monotonic() - begun >= 1.5 * SHORT_S


def test_the_deadline_also_ends_a_slow_peer(ends: Ends) -> None:
    ends.connection.deadline = time.monotonic() - 1
    ends.peer.sendall(HEADER[:5])
    with pytest.raises(ConnectionLostError):
        while True:
            ends.connection.receive_header()


def test_a_stop_wakes_a_thread_that_waits_for_a_frame(ends: Ends) -> None:
    timer = threading.Timer(SHORT_S, ends.stop)
    timer.start()
    assert ends.connection.receive_header() is None
    timer.join()


def test_a_stop_does_not_disturb_a_frame_that_has_begun(ends: Ends) -> None:
    ends.peer.sendall(HEADER)
    assert bytes(ends.connection.receive_header() or b"") == HEADER
    ends.stop()
    ends.peer.sendall(b"body")
    body = bytearray(4)
    ends.connection.receive_into(memoryview(body))
    assert body == b"body"


def test_a_reset_is_a_lost_connection(ends: Ends) -> None:
    ends.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    ends.peer.close()
    with pytest.raises(ConnectionLostError):
        ends.connection.receive_header()


def test_sending_much_in_parts(ends: Ends) -> None:
    parts = [b"a" * 300_000, b"", memoryview(b"b" * 3_000_000), b"c"]
    sent = threading.Thread(target=ends.connection.send, args=(parts,))
    sent.start()
    assert received(ends, 3_300_001) == b"a" * 300_000 + b"b" * 3_000_000 + b"c"
    sent.join(10)


def test_a_peer_that_does_not_read_is_given_up(ends: Ends) -> None:
    with pytest.raises(ConnectionLostError, match="no byte moved"):
        ends.connection.send([bytes(64 * 1024 * 1024)])


def test_sending_a_part_of_a_file(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1000) + b"x" * 3_000_000 + bytes(1000))
    with (tmp_path / "file").open("rb") as file:
        sent = threading.Thread(target=ends.connection.send_file, args=(file.fileno(), 1000, 3_000_000))
        sent.start()
        assert received(ends, 3_000_000) == b"x" * 3_000_000
        sent.join(10)


def test_a_file_that_is_shorter_than_promised(ends: Ends, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    with (tmp_path / "file").open("rb") as file, pytest.raises(ConnectionLostError, match="the file is shorter"):
        ends.connection.send_file(file.fileno(), 0, 4)


def test_last_words_reach_a_peer_that_is_still_sending(ends: Ends) -> None:
    ends.peer.sendall(b"x" * 100_000)
    ends.connection.send([b"last words"])
    hanging_up = threading.Thread(target=ends.connection.hang_up)
    hanging_up.start()
    assert received(ends, 10) == b"last words"
    assert ends.peer.recv(1) == b""
    ends.peer.close()
    hanging_up.join(10)
    assert not hanging_up.is_alive()


def test_hanging_up_does_not_wait_for_ever(ends: Ends) -> None:
    ends.connection.hang_up()
    assert ends.peer.recv(1) == b""
