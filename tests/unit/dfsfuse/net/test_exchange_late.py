"""Answers to abandoned calls are never taken for other answers."""

from __future__ import annotations

import pytest
from support.exchange_bench import GET, PIECE, PUT, STALL_S, Bench, ask, failure
from support.wire_server import DEADLINE_S, POSITION, Line, WireServer

from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Done,
    Error,
    GetPosition,
    HavePieces,
    Piece,
    PutPiece,
    Request,
)
from dfs_server.protocol.status import Status
from dfsfuse.net.exchange import MAX_CALLS_PER_SERVER, Answer, Call, Exchange


def test_late_answer_never_lands_in_a_buffer(bench: Bench) -> None:
    server = bench.add(WireServer())
    sent = []

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if line.number == 1:
            server.wait_released()
            try:
                line.reply(id, Piece(len(PIECE), b""), PIECE)
            except OSError:
                sent.append("refused")
            else:
                sent.append("taken")
        else:
            line.reply(id, Piece(3, b""), b"new")

    server.answer = answer
    lines = bench.lines()
    sink = bytearray(len(PIECE))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GET, sink=memoryview(sink), stall_s=STALL_S))
        stalled = failure(exchange.next(DEADLINE_S))
        assert stalled.status is None
        stalled.call.sink = None
        sink += b"."  # BufferError while anything refers to it
        lines.answered(1)
        server.released.set()
        exchange.start(Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S))
        outcome = exchange.next(DEADLINE_S)
    assert isinstance(outcome, Answer)
    assert sink == b"new" + bytes(len(PIECE) - 3) + b"."
    assert server.accepted == 2


@pytest.mark.parametrize("leave", ["abandon", "exit"])
def test_abandoned_call_with_a_sink_takes_its_connection_along(bench: Bench, leave: str) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.socket.sendall(pack_header(id, 0, len(PIECE)) + PIECE[:100_000])  # stops in the middle of the payload
        server.released.set()

    server.answer = answer
    sink = bytearray(len(PIECE))
    lines = bench.lines()
    with Exchange(lines) as exchange:
        call = Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S)
        exchange.start(call)
        while not server.released.is_set():
            assert exchange.next(0.0) is None
        if leave == "abandon":
            exchange.abandon(call)
            assert exchange.unfinished() == 0
            call.sink = None
            sink.append(1)  # BufferError while anything refers to it
    call.sink = None
    sink.append(1)
    server.answer = lambda line, id, request, payload: line.reply(id, POSITION)
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2


def test_abandoned_call_leaves_an_owed_reply_that_the_next_one_skips(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, HavePieces):
            server.wait_released()
            line.reply(id, Error(Status.IO_ERROR, "late"))
        else:
            line.reply(id, POSITION)

    server.answer = answer
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    for _ in range(3):
        with Exchange(lines) as exchange:
            exchange.start(Call(1, HavePieces(()), stall_s=DEADLINE_S))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert exchange.next(0.0) is None
        server.released.set()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert server.accepted == 1


def test_owed_payload_has_nowhere_to_go(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        server.wait_released()
        line.reply(id, Piece(3, b""), b"abc")

    server.answer = answer
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GET, stall_s=DEADLINE_S))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        server.released.set()
        assert "a payload of 3 bytes; there is room for 0" in failure(exchange.next(DEADLINE_S)).text
    assert server.accepted == 1


def test_call_in_order_never_overtakes_an_abandoned_one(bench: Bench) -> None:
    """Not even if another connection is idle, which other calls would use."""
    server = bench.add(WireServer())
    arrived: list[tuple[int, Request]] = []

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        arrived.append((line.number, request))
        if isinstance(request, HavePieces):
            server.wait_released()
        line.reply(id, Done() if isinstance(request, PutPiece) else POSITION)

    server.answer = answer
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    with Exchange(lines, in_order=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
        exchange.start(Call(1, HavePieces(()), stall_s=DEADLINE_S))
    with Exchange(lines, in_order=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(ask(lines, PUT), Answer)
        assert exchange.next(0.0) is None
        server.released.set()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert [request for number, request in arrived if number == 2] == [GetPosition(), HavePieces(()), GetPosition()]
    assert [request for number, request in arrived if number == 1] == [GetPosition(), PUT]


def test_abandoned_greeting_is_taken_up_by_the_next_call(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 1
    assert len(server.requests) == 1  # the first call was never sent


def test_abandon_knows_calls_in_every_state(bench: Bench) -> None:
    server = bench.add(WireServer())
    server.answer = lambda line, id, request, payload: server.wait_released()
    lines = bench.lines()
    calls = [Call(1, GetPosition(), stall_s=DEADLINE_S) for _ in range(MAX_CALLS_PER_SERVER + 2)]
    with Exchange(lines) as exchange:
        for call in calls:
            exchange.start(call)
        exchange.abandon(calls[-1])  # still queued
        exchange.abandon(calls[0])  # in progress; the next call in the queue takes its place
        assert exchange.unfinished() == len(calls) - 2
        exchange.abandon(calls[0])  # does no harm
    lines.failed(1, "down", quick=False)
    with Exchange(lines) as exchange:
        exchange.start(calls[0])
        assert exchange.unfinished() == 1
        exchange.abandon(calls[0])  # has failed already
        assert exchange.unfinished() == 0
        assert exchange.next(None) is None
