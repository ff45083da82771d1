"""One request to one server: directly as a rule, and by an exchange whenever something is unusual."""

from __future__ import annotations

import pytest
from support.exchange_bench import GET, PIECE, Bench, ask
from support.wire_server import DEADLINE_S, POSITION, Line, WireServer, wait_until

from dfs_server.protocol.frames import HEADER_BYTES, pack_header
from dfs_server.protocol.messages import Error, GetPosition, Piece, Request, encode
from dfs_server.protocol.status import Status
from dfsfuse.net.exchange import Answer, Call, Exchange, Failure
from dfsfuse.net.lines import Lines
from dfsfuse.net.single import ask_one

DIGESTS = b"d" * 512
HEAD_BYTES = HEADER_BYTES + len(encode(Piece(len(PIECE), DIGESTS)))


def answer_piece(line: Line, id: int, request: Request, payload: bytes) -> None:
    if isinstance(request, GetPosition):
        line.reply(id, POSITION)
    else:
        line.reply(id, Piece(len(PIECE), DIGESTS), PIECE)


def get(head_bytes: int = HEAD_BYTES) -> Call:
    sink = memoryview(bytearray(len(PIECE)))
    return Call(1, GET, sink=sink, stall_s=DEADLINE_S, head_bytes=head_bytes)


def met(bench: Bench, server: WireServer) -> Lines:
    """Lines to this server, with an idle connection."""
    bench.add(server)
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    return lines


def finished(result: Answer | Exchange) -> Answer | Failure:
    """The outcome of a call that was left to an exchange."""
    assert isinstance(result, Exchange)
    with result as exchange:
        outcome = exchange.next(DEADLINE_S)
        assert exchange.unfinished() == 0
    assert outcome is not None
    return outcome


@pytest.mark.parametrize("head_bytes", [HEAD_BYTES, 0, HEADER_BYTES, HEAD_BYTES + 1])
def test_the_answer_comes_over_the_idle_connection(bench: Bench, head_bytes: int) -> None:
    server = WireServer(answer=answer_piece)
    lines = met(bench, server)
    for _ in range(3):
        call = get(head_bytes)
        assert ask_one(lines, call, DEADLINE_S) == Answer(call, Piece(len(PIECE), DIGESTS), len(PIECE))
        assert call.sink == PIECE
    assert server.accepted == 1
    assert isinstance(ask(lines), Answer), "the connection must be free for other calls"
    assert server.accepted == 1


def test_without_an_idle_connection_an_exchange_makes_one(bench: Bench) -> None:
    server = bench.add(WireServer(answer=answer_piece))
    lines = bench.lines()
    call = get()
    assert finished(ask_one(lines, call, DEADLINE_S)) == Answer(call, Piece(len(PIECE), DIGESTS), len(PIECE))
    assert isinstance(ask_one(lines, get(), DEADLINE_S), Answer)
    assert server.accepted == 1


def test_an_error_is_the_exchanges_and_the_connection_is_used_again(bench: Bench) -> None:
    said = Error(Status.NOT_FOUND, "this server does not have this piece" * 30)

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(id, POSITION if isinstance(request, GetPosition) else said)

    server = WireServer(answer=answer)
    lines = met(bench, server)
    for _ in range(2):
        outcome = finished(ask_one(lines, get(), DEADLINE_S))
        assert isinstance(outcome, Failure)
        assert outcome.status is Status.NOT_FOUND
    assert len(server.requests) == 3, "the server must not be asked twice"
    assert server.accepted == 1


def test_a_connection_that_was_lost_while_it_lay_idle_is_not_the_servers_fault(bench: Bench) -> None:
    server = WireServer(answer=answer_piece)
    lines = met(bench, server)
    server.kill()
    server.start()
    assert isinstance(finished(ask_one(lines, get(), DEADLINE_S)), Answer)
    assert server.accepted == 2
    assert lines.health.usable == {1}


def test_a_server_that_dies_in_the_middle_of_its_answer(bench: Bench) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, GetPosition):
            line.reply(id, POSITION)
            return
        body = encode(Piece(len(PIECE), DIGESTS))
        line.socket.sendall(pack_header(id, len(body), len(PIECE)) + body + PIECE[:1000])
        server.kill()

    server = WireServer(answer=answer)
    lines = met(bench, server)
    outcome = finished(ask_one(lines, get(), DEADLINE_S))
    assert isinstance(outcome, Failure)
    assert outcome.status is None
    assert lines.health.usable == frozenset()


def test_what_is_not_this_protocol_is_noted(bench: Bench) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, GetPosition):
            line.reply(id, POSITION)
        else:
            line.socket.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    lines = met(bench, WireServer(answer=answer))
    outcome = finished(ask_one(lines, get(), DEADLINE_S))
    assert isinstance(outcome, Failure)
    assert "does not speak this protocol" in outcome.text
    assert lines.health.faults()[1].times == 2, "each bad answer counts"


@pytest.mark.parametrize("sent", [0, 5, HEAD_BYTES, HEAD_BYTES + 1000])
def test_an_answer_that_comes_late_comes_by_the_exchange(bench: Bench, sent: int) -> None:
    """The exchange continues the call where it stands; nothing is sent twice."""

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, GetPosition):
            line.reply(id, POSITION)
            return
        body = encode(Piece(len(PIECE), DIGESTS))
        data = pack_header(id, len(body), len(PIECE)) + body + PIECE
        line.socket.sendall(data[:sent])
        server.wait_released()
        line.socket.sendall(data[sent:])

    server = WireServer(answer=answer)
    lines = met(bench, server)
    call = get()
    result = ask_one(lines, call, 0.05)
    assert isinstance(result, Exchange)
    with result as exchange:
        assert exchange.next(0.0) is None
        assert [server for server, _ in exchange.silences()] == [1]
        server.released.set()
        assert exchange.next(DEADLINE_S) == Answer(call, Piece(len(PIECE), DIGESTS), len(PIECE))
    assert call.sink == PIECE
    assert len(server.requests) == 2
    assert isinstance(ask_one(lines, get(), DEADLINE_S), Answer)
    assert server.accepted == 1


def test_a_call_that_is_given_up_lets_go_of_its_buffer(bench: Bench) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, GetPosition):
            line.reply(id, POSITION)
        else:
            server.wait_released()

    server = WireServer(answer=answer)
    lines = met(bench, server)
    sink = bytearray(10)
    call = Call(1, GET, sink=memoryview(sink), stall_s=DEADLINE_S, head_bytes=HEAD_BYTES)
    result = ask_one(lines, call, 0.0)
    assert isinstance(result, Exchange)
    with result:
        pass
    call.sink = None
    sink.append(1)  # BufferError while anything refers to it


def test_a_server_that_is_down_is_not_asked(bench: Bench) -> None:
    server = WireServer(answer=answer_piece)
    lines = met(bench, server)
    lines.failed(1, "DFS1 was down a moment ago", quick=False)
    outcome = finished(ask_one(lines, get(), DEADLINE_S))
    assert isinstance(outcome, Failure)
    assert len(server.requests) == 1


def test_several_threads_have_a_connection_each(bench: Bench) -> None:
    server = WireServer(answer=answer_piece)
    lines = met(bench, server)
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(finished(ask_one(lines, get(), DEADLINE_S)), Answer)
        assert exchange.next(DEADLINE_S) is not None
    wait_until(lambda: server.accepted == 2)
