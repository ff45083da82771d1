"""Concurrent requests: answers, payloads, and servers that hang."""

from __future__ import annotations

import os
import threading
import time

import pytest
from support.exchange_bench import GET, PIECE, PUT, STALL_S, Bench, ask, failure
from support.wire_server import DEADLINE_S, POSITION, Greeting, Line, WireServer

from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Done,
    Error,
    GetPosition,
    HavePieces,
    Piece,
    PutPiece,
    Request,
    encode,
)
from dfs_server.protocol.status import Status
from dfsfuse.net import meanwhile
from dfsfuse.net.connection import Connection
from dfsfuse.net.exchange import MAX_CALLS_PER_SERVER, Answer, Call, Exchange

# ---------------------------------------------------------------- what is meant to happen


def test_answer_comes_back_with_its_call(bench: Bench) -> None:
    bench.add(WireServer())
    call = Call(1, GetPosition(), stall_s=DEADLINE_S)
    with Exchange(bench.lines()) as exchange:
        assert exchange.unfinished() == 0
        exchange.start(call)
        assert exchange.unfinished() == 1
        assert exchange.next(DEADLINE_S) == Answer(call, POSITION, 0)
        assert exchange.unfinished() == 0
        assert exchange.next(None) is None


def test_connection_is_used_again_without_a_check(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    monkeypatch.delattr(Connection, "_peek")
    for _ in range(5):
        assert isinstance(ask(lines), Answer)
    assert server.accepted == 1


def test_payload_travels_both_ways_in_the_callers_buffers(bench: Bench) -> None:
    kept: list[bytes] = []

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, PutPiece):
            kept.append(payload)
            line.reply(id, Done())
        else:
            line.reply(id, Piece(len(PIECE), b""), PIECE)

    bench.add(WireServer(answer=answer))
    sink = bytearray(len(PIECE))
    parts = (memoryview(PIECE)[:1000], b"", memoryview(PIECE)[1000:])
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, PUT, parts, stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
        exchange.start(Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S))
        answered = exchange.next(DEADLINE_S)
    assert isinstance(answered, Answer)
    assert answered.payload_bytes == len(PIECE)
    assert kept == [PIECE]
    assert sink == PIECE
    answered.call.sink = None
    sink.append(1)  # BufferError while anything refers to it


def test_payload_may_be_shorter_than_the_sink(bench: Bench) -> None:
    bench.add(WireServer(answer=lambda line, id, request, payload: line.reply(id, Piece(3, b""), b"abc")))
    sink = bytearray(b"." * 8)
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S))
        answered = exchange.next(DEADLINE_S)
    assert isinstance(answered, Answer)
    assert answered.payload_bytes == 3
    assert sink == b"abc....."


def test_an_answer_is_arriving_once_part_of_it_has_come(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        body = encode(POSITION)
        frame = pack_header(id, len(body), 0) + body
        server.wait_released()
        server.released.clear()
        line.socket.sendall(frame[:-1])
        server.wait_released()
        line.socket.sendall(frame[-1:])

    server.answer = answer
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert exchange.next(STALL_S) is None
        assert not exchange.is_receiving(DEADLINE_S), "only the greeting has come"
        server.released.set()
        until = time.monotonic() + DEADLINE_S
        while not exchange.is_receiving(DEADLINE_S):
            assert exchange.next(0.001) is None
            assert time.monotonic() < until
        assert not exchange.is_receiving(0.0)
        server.released.set()
        assert isinstance(exchange.next(DEADLINE_S), Answer)


def test_calls_to_one_server_go_side_by_side_up_to_the_cap(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if len(server.requests) >= MAX_CALLS_PER_SERVER:
            server.released.set()
        server.wait_released()
        line.reply(id, POSITION)

    server.answer = answer
    calls = [Call(1, GetPosition(), stall_s=DEADLINE_S) for _ in range(3 * MAX_CALLS_PER_SERVER)]
    with Exchange(bench.lines()) as exchange:
        for call in calls:
            exchange.start(call)
        assert exchange.unfinished() == len(calls)
        finished = [exchange.next(DEADLINE_S) for _ in calls]
        assert exchange.next(None) is None
    assert {outcome.call for outcome in finished if isinstance(outcome, Answer)} == set(calls)
    assert server.accepted == MAX_CALLS_PER_SERVER


def test_each_call_is_finished_once_whatever_the_order(bench: Bench) -> None:
    for n in range(4):
        bench.add(WireServer(f"DFS{n + 1}"))
    calls = [Call(1 + n % 4, GetPosition(), stall_s=DEADLINE_S) for n in range(100)]
    with Exchange(bench.lines()) as exchange:
        for call in calls:
            exchange.start(call)
        seen = []
        while (outcome := exchange.next(DEADLINE_S)) is not None:
            assert isinstance(outcome, Answer)
            seen.append(outcome.call)
    assert len(seen) == len(calls)
    assert set(seen) == set(calls)
    assert all(server.accepted <= MAX_CALLS_PER_SERVER for server in bench.servers.values())


def test_server_says_no(bench: Bench) -> None:
    bench.add(
        WireServer(answer=lambda line, id, request, payload: line.reply(id, Error(Status.NOT_FOUND, "no such piece")))
    )
    lines = bench.lines()
    outcome = failure(ask(lines, HavePieces(())))
    assert outcome.status is Status.NOT_FOUND
    assert outcome.text == f"{bench.servers[1].address(1)}: no such piece"
    assert lines.health.usable == {1}


def test_status_of_a_newer_server(bench: Bench) -> None:
    bench.add(WireServer(answer=lambda line, id, request, payload: line.reply(id, Error(77, "strange"))))
    assert failure(ask(bench.lines())).status is Status.IO_ERROR


# ---------------------------------------------------------------- servers that hang


def test_hung_server_costs_one_stall_and_no_further_waiting(bench: Bench) -> None:
    for n in range(4):
        bench.add(WireServer(f"DFS{n + 1}"))
    hung = bench.servers[2]
    lines = bench.lines()
    assert isinstance(ask(lines, server=2), Answer)
    hung.requests.clear()
    hung.answer = lambda line, id, request, payload: hung.wait_released()
    with Exchange(lines) as exchange:
        for id in (1, 2, 3, 4):
            exchange.start(Call(id, GetPosition(), stall_s=STALL_S if id == 2 else DEADLINE_S))
        outcomes = [exchange.next(DEADLINE_S) for _ in range(4)]
    assert {outcome.call.server for outcome in outcomes[:3] if isinstance(outcome, Answer)} == {1, 3, 4}
    stalled = failure(outcomes[3])
    assert stalled.status is None
    assert stalled.text == f"{hung.address(2)} does not answer: no byte moved for {STALL_S} s"
    assert lines.health.usable == {1, 3, 4}
    before = time.monotonic()
    assert failure(ask(lines, server=2)).text == stalled.text  # at once
    assert time.monotonic() - before < STALL_S
    assert len(hung.requests) == 1


def test_server_that_accepts_and_never_speaks(bench: Bench) -> None:
    bench.add(WireServer(greeting=Greeting.SILENT))
    outcome = failure(ask(bench.lines(), stall_s=STALL_S))
    assert outcome.status is None
    assert outcome.text.endswith("does not answer: it did not authenticate in time")


def test_next_returns_when_its_time_is_over_and_the_call_goes_on(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        server.wait_released()
        line.reply(id, POSITION)

    server.answer = answer
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert exchange.next(0.0) is None
        assert exchange.next(0.02) is None
        assert exchange.unfinished() == 1
        server.released.set()
        assert isinstance(exchange.next(DEADLINE_S), Answer)


def test_caller_that_was_busy_for_longer_than_the_stall_still_gets_the_answer(bench: Bench) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(id, POSITION)
        server.released.set()

    server.answer = answer
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    server.wait_released()  # set after the answer, so it must not be taken for the next one
    server.released.clear()
    late = [0.0]
    lines.clock = lambda: time.monotonic() + late[0]
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=STALL_S))
        server.wait_released()
        late[0] = 100 * STALL_S
        assert isinstance(exchange.next(DEADLINE_S), Answer)


def test_answer_that_comes_by_drops_is_no_stall_while_it_comes(bench: Bench) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        body = encode(POSITION)
        for byte in pack_header(id, len(body), 0) + body:
            line.socket.sendall(bytes([byte]))

    bench.add(WireServer(answer=answer))
    assert isinstance(ask(bench.lines()), Answer)


def test_answer_that_never_ends_ends(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dfsfuse.net.exchange.LONGEST_CALL_S", 0.2)

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.socket.sendall(pack_header(id, 1_000_000, 0))
        while not bench.servers[1].released.wait(0.01):
            line.socket.sendall(b"x")

    bench.add(WireServer(answer=answer))
    assert "the call was not finished" in failure(ask(bench.lines())).text


class OtherWork:
    """Work that is waiting already; handing it over lets the server answer. A `Watch`."""

    def __init__(self) -> None:
        self.descriptor, work = os.pipe()
        os.close(work)
        self.is_handed_over = threading.Event()

    def begin(self) -> bool:
        return not self.is_handed_over.is_set()

    def end(self) -> None:
        pass

    def hand_over(self) -> None:
        self.is_handed_over.set()


@pytest.mark.parametrize("in_order", [True, False])
def test_other_work_of_the_waiting_thread_is_handed_over(bench: Bench, *, in_order: bool) -> None:
    work = OtherWork()

    def answer(line: Line, id: int, _request: Request, _payload: bytes) -> None:
        assert work.is_handed_over.wait(DEADLINE_S)
        line.reply(id, POSITION)

    bench.add(WireServer(answer=answer))
    call = Call(1, GetPosition(), stall_s=DEADLINE_S)
    meanwhile.watch(work)
    try:
        with Exchange(bench.lines(), in_order=in_order) as exchange:
            exchange.start(call)
            assert exchange.next(DEADLINE_S) == Answer(call, POSITION, 0)
    finally:
        meanwhile.watch(None)
        os.close(work.descriptor)
