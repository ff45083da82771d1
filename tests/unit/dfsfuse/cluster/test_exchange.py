"""Requests side by side, with servers that hang, lie and die."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from support.wire_server import CREDENTIALS, DEADLINE_S, POSITION, Greeting, Line, WireServer

from dfs_server.protocol.frames import pack_header
from dfs_server.protocol.messages import (
    Done,
    Error,
    GetPiece,
    GetPosition,
    HavePieces,
    Piece,
    PutPiece,
    Request,
    encode,
)
from dfs_server.protocol.status import Status
from dfsfuse.cluster.exchange import MAX_CALLS_PER_SERVER, Answer, Call, Exchange, Failure
from dfsfuse.cluster.lines import Lines
from dfsfuse.cluster.servers import Credentials
from dfsfuse.errors import AuthenticationError, WrongServerError

STALL_S = 0.15
"""For calls that are meant to stall; long enough for a greeting on a busy machine."""
PIECE = bytes(range(256)) * 4096
GET = GetPiece(b"s" * 16, 1)
PUT = PutPiece(b"s" * 16, 1, b"")


class Bench:
    """Some servers and the lines to them."""

    def __init__(self) -> None:
        self.servers: dict[int, WireServer] = {}
        self._made: list[Lines] = []

    def add(self, server: WireServer) -> WireServer:
        self.servers[len(self.servers) + 1] = server
        return server

    def lines(self, credentials: Credentials = CREDENTIALS) -> Lines:
        lines = Lines([server.address(id) for id, server in self.servers.items()], credentials)
        self._made.append(lines)
        return lines

    def close(self) -> None:
        for lines in self._made:
            lines.close()
        for server in self.servers.values():
            server.close()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


def ask(
    lines: Lines, request: Request | None = None, *, server: int = 1, stall_s: float = DEADLINE_S
) -> Answer | Failure:
    """One call in an exchange of its own."""
    with Exchange(lines) as exchange:
        exchange.start(Call(server, request or GetPosition(), stall_s=stall_s))
        outcome = exchange.next(DEADLINE_S)
    assert outcome is not None
    return outcome


def failure(outcome: Answer | Failure | None) -> Failure:
    assert isinstance(outcome, Failure), outcome
    return outcome


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


def test_connection_is_used_again(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
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
    assert lines.usable() == {1}


def test_status_of_a_newer_server(bench: Bench) -> None:
    bench.add(WireServer(answer=lambda line, id, request, payload: line.reply(id, Error(77, "strange"))))
    assert failure(ask(bench.lines())).status is Status.IO_ERROR


# ---------------------------------------------------------------- servers that hang


def test_hung_server_costs_one_stall_and_nobody_else_waits_for_it(bench: Bench) -> None:
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
    assert lines.usable() == {1, 3, 4}
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
    server.wait_released()  # said after the answer: it is not to be taken for the next one
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
    monkeypatch.setattr("dfsfuse.cluster.exchange.LONGEST_CALL_S", 0.2)

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.socket.sendall(pack_header(id, 1_000_000, 0))
        while not bench.servers[1].released.wait(0.01):
            line.socket.sendall(b"x")

    bench.add(WireServer(answer=answer))
    assert "the call was not over" in failure(ask(bench.lines())).text


# ---------------------------------------------------------------- late answers


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
        line.socket.sendall(pack_header(id, 0, len(PIECE)) + PIECE[:100_000])  # stops in mid-payload
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
    """Not even when another connection is idle and free, which is what other calls take."""
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
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S, in_order=True))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
        exchange.start(Call(1, HavePieces(()), stall_s=DEADLINE_S, in_order=True))
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S, in_order=True))
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
        exchange.abandon(calls[-1])  # waits for its turn
        exchange.abandon(calls[0])  # is under way; the one that waits takes its place
        assert exchange.unfinished() == len(calls) - 2
        exchange.abandon(calls[0])  # no harm
    lines.failed(1, "down", quick=False)
    with Exchange(lines) as exchange:
        exchange.start(calls[0])
        assert exchange.unfinished() == 1
        exchange.abandon(calls[0])  # has failed already
        assert exchange.unfinished() == 0
        assert exchange.next(None) is None


# ---------------------------------------------------------------- servers that die


def test_nobody_listens(bench: Bench) -> None:
    server = bench.add(WireServer())
    server.kill()
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert outcome.text == f"{server.address(1)} does not answer: connection refused"
    assert lines.usable() == frozenset()


def test_restarted_server_is_not_taken_to_be_down(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    server.kill()
    server.start()
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2
    assert lines.usable() == {1}


@pytest.mark.parametrize("end", [Line.reset, lambda line: line.socket.close()], ids=["reset", "close"])
def test_call_on_a_stale_connection_is_sent_again_once(bench: Bench, end: Callable[[Line], None]) -> None:
    server = bench.add(WireServer())

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        if line.number == 1 and isinstance(request, PutPiece):
            end(line)  # it was lost on the way, as far as the client can tell
        else:
            line.reply(id, Done() if isinstance(request, PutPiece) else POSITION)

    server.answer = answer
    lines = bench.lines()
    assert isinstance(ask(lines), Answer)
    with Exchange(lines) as exchange:
        exchange.start(Call(1, PUT, (PIECE,), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert server.accepted == 2
    assert lines.usable() == {1}


def test_call_on_a_fresh_connection_is_not_sent_again(bench: Bench) -> None:
    server = bench.add(WireServer(answer=lambda line, id, request, payload: line.reset()))
    lines = bench.lines()
    outcome = failure(ask(lines))
    assert outcome.status is None
    assert server.accepted == 1
    assert lines.usable() == frozenset()


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
    assert server.accepted == 1  # it had begun to answer, so this is no old story
    assert sink == bytes(len(PIECE))


def test_upload_that_is_refused_in_the_middle_has_its_reason(bench: Bench) -> None:
    """The server answers and closes while the client still sends."""
    server = bench.add(WireServer())
    server.answer = lambda line, id, request, payload: line.reply(id, Error(Status.NO_SPACE, "the disk is full"))
    lines = bench.lines()
    outcome = failure(ask(lines, PUT))
    assert outcome.status is Status.NO_SPACE
    assert lines.usable() == {1}


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
    fault = lines.faults.by_server()[1]
    assert fault.times == 1 and fault.text.startswith("no answer to "), "it is remembered against the server"
    assert lines.usable() == frozenset()
    lines.answered(1)
    server.answer = lambda line, id, request, payload: line.reply(id, POSITION)
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2


def test_payload_longer_than_the_sink_touches_nothing(bench: Bench) -> None:
    bench.add(WireServer(answer=lambda line, id, request, payload: line.reply(id, Piece(9, b""), b"123456789")))
    kept = bytearray(16)
    with Exchange(bench.lines()) as exchange:
        exchange.start(Call(1, GET, sink=memoryview(kept)[:8], stall_s=DEADLINE_S))
        assert "a payload of 9 bytes; there is room for 8" in failure(exchange.next(DEADLINE_S)).text
    assert kept == bytes(16)


def test_second_answer_to_one_request_is_for_nobody(bench: Bench) -> None:
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
    assert lines.usable() == {1}


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
    assert lines.usable() == {1}


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
    assert lines.usable() == frozenset()
    assert bench.servers[1].requests == []
