"""Requests to servers that die, lie, or refuse to talk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.exchange_bench import GET, PIECE, PUT, Bench, ask, failure
from support.wire_server import DEADLINE_S, POSITION, Greeting, Line, WireServer

from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Done,
    Error,
    GetPosition,
    Piece,
    PutPiece,
    Request,
    encode,
)
from dfs_server.protocol.status import Status
from dfsfuse.errors import AuthenticationError, WrongServerError
from dfsfuse.net.exchange import Answer, Call, Exchange
from dfsfuse.net.servers import Credentials

# ---------------------------------------------------------------- servers that die


def test_nothing_listens(bench: Bench) -> None:
    server = bench.add(WireServer())
    server.kill()
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert outcome.text == f"{server.address(1)} does not answer: connection refused"
    assert lines.health.usable == frozenset()


def test_restarted_server_is_not_taken_to_be_down(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    server.kill()
    server.start()
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2
    assert lines.health.usable == {1}


@pytest.mark.parametrize("end", [Line.reset, lambda line: line.socket.close()], ids=["reset", "close"])
def test_call_on_a_stale_connection_is_sent_again_once(bench: Bench, end: Callable[[Line], None]) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if line.number == 1 and isinstance(request, PutPiece):
            end(line)  # for all the client knows, it was lost on the way
        else:
            line.reply(id, Done() if isinstance(request, PutPiece) else POSITION)

    server.answer = answer
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    with Exchange(lines) as exchange:
        exchange.start(Call(1, PUT, (PIECE,), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert server.accepted == 2
    assert lines.health.usable == {1}


def test_call_on_a_fresh_connection_is_not_sent_again(bench: Bench) -> None:
    server = bench.add(WireServer(answer=lambda line, id, request, payload: line.reset()))
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert server.accepted == 1
    assert lines.health.usable == frozenset()


def test_server_that_dies_in_mid_reply(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.socket.sendall(pack_header(id, 10, len(PIECE)) + b"12345")
        line.socket.close()

    server.answer = answer
    sink = bytearray(len(PIECE))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S))
        outcome = failure(exchange.next(DEADLINE_S))
    assert outcome.status is None
    assert outcome.text.endswith("does not answer: the server closed the connection")
    assert server.accepted == 1  # it had begun to answer, so this is not a stale connection
    assert sink == bytes(len(PIECE))


def test_upload_that_is_refused_in_the_middle_has_its_reason(bench: Bench) -> None:
    """The server answers and closes while the client is still sending."""
    server = bench.add(WireServer())
    server.answer = lambda line, id, request, payload: line.reply(id, Error(Status.NO_SPACE, "the disk is full"))
    lines = bench.lines()
    outcome = failure(ask(lines, PUT))
    assert outcome.status is Status.NO_SPACE
    assert lines.health.usable == {1}


# ---------------------------------------------------------------- servers that lie


def _garbage(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def _wrong_id(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.reply(id + 1, POSITION)


def _not_a_message(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.socket.sendall(pack_header(id, 4, 0) + b"\xc1\xc1\xc1\xc1")


def _another_message(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.reply(id, Done())


def _payload(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.reply(id, POSITION, b"surprise")


def _oversized(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.socket.sendall(pack_header(id, 0xFFFFFFFF, 0))


def _to_nobody(line: Line, id: int, request: Request, payload: bytes) -> None:
    line.reply(0, POSITION)


@pytest.mark.parametrize(
    "answer", [_garbage, _wrong_id, _not_a_message, _another_message, _payload, _oversized, _to_nobody]
)
def test_lie_is_a_failure_and_the_end_of_the_connection(bench: Bench, answer: Callable[..., None]) -> None:
    server = bench.add(WireServer(answer=answer))
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert outcome.text.startswith(f"{server.address(1)} does not speak this protocol: ")
    fault = lines.health.faults()[1]
    assert fault.times == 1 and fault.text.startswith("no answer to "), "the fault is remembered"
    assert lines.health.usable == frozenset()
    lines.answered(1)
    server.answer = lambda line, id, request, payload: line.reply(id, POSITION)
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2


def test_a_server_that_reports_a_damaged_map_has_not_lied(bench: Bench) -> None:
    server = bench.add(WireServer())
    server.answer = lambda line, id, request, payload: line.reply(id, Error(Status.DAMAGED, "a row is damaged"))
    lines = bench.lines()
    assert failure(ask(lines)).status is Status.DAMAGED
    assert lines.health.faults() == {}
    server.answer = lambda line, id, request, payload: line.reply(id, Error(Status.DIVERGED, "another log"))
    assert failure(ask(lines)).status is Status.DIVERGED
    assert lines.health.faults()[1].text == "its log is another one than the others'"


def test_payload_longer_than_the_sink_touches_nothing(bench: Bench) -> None:
    bench.add(WireServer(answer=lambda line, id, request, payload: line.reply(id, Piece(9, b""), b"123456789")))
    kept = bytearray(16)
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, GET, sink=memoryview(kept)[:8], stall_s=DEADLINE_S))
        assert "a payload of 9 bytes; there is room for 8" in failure(exchange.next(DEADLINE_S)).text
    assert kept == bytes(16)


def test_second_answer_to_one_request_is_discarded(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        body = encode(POSITION)
        line.socket.sendall((pack_header(id, len(body), 0) + body) * 2)

    server.answer = answer
    lines = bench.lines()
    for _ in range(3):
        assert isinstance(ask(lines), Answer)
    assert server.accepted == 3


def test_last_words_of_a_server_reach_the_caller(bench: Bench) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(0, Error(Status.BAD_REQUEST, "what was that?"))
        line.socket.close()

    bench.add(WireServer(answer=answer))
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is Status.BAD_REQUEST
    assert lines.health.usable == {1}


# ---------------------------------------------------------------- greetings


def test_refused_user_is_an_exception_that_names_server_and_user(bench: Bench) -> None:
    bench.add(WireServer())
    lines = bench.lines(Credentials("alice", "wrong"))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        with pytest.raises(AuthenticationError, match=r"server DFS1 \(127.* refuses user 'alice'"):
            exchange.next(DEADLINE_S)
        assert exchange.unfinished() == 0


def test_refused_user_in_a_trial_is_a_value(bench: Bench) -> None:
    bench.add(WireServer())
    with Exchange(bench.lines(Credentials("alice", "wrong")), trial=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(failure(exchange.next(DEADLINE_S)).error, AuthenticationError)


def test_busy_server_is_not_down(bench: Bench) -> None:
    bench.add(WireServer(greeting=Greeting.BUSY))
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is Status.BUSY
    assert outcome.text.endswith("too many connections")
    assert lines.health.usable == {1}


@pytest.mark.parametrize(
    ("server", "error"),
    [
        (lambda: WireServer("DFS1", says="DFS2"), WrongServerError),
        (lambda: WireServer(greeting=Greeting.IMPOSTOR), WrongServerError),
        (lambda: WireServer(greeting=Greeting.GARBAGE), type(None)),
        (lambda: WireServer(greeting=Greeting.CLOSE), type(None)),
    ],
    ids=["another name", "impostor", "garbage", "close"],
)
def test_greeting_that_fails_is_a_failure(
    bench: Bench, server: Callable[[], WireServer], error: type[Exception]
) -> None:
    bench.add(server())
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert isinstance(outcome.error, error)
    assert lines.health.usable == frozenset()
    assert bench.servers[1].requests == []
