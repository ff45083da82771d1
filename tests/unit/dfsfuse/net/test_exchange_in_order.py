"""Requests in order: one connection to each server, which stays registered from one exchange to the next."""

from __future__ import annotations

import select
import socket
from collections.abc import Callable

import pytest
from support.exchange_bench import Bench, ask, failure
from support.wire_server import DEADLINE_S, POSITION, Line, WireServer, wait_until

from dfs_server.protocol.messages import Done, GetPosition, HavePieces, Request
from dfsfuse.net import exchange as exchange_module
from dfsfuse.net import meanwhile
from dfsfuse.net.connection import Connection
from dfsfuse.net.exchange import Answer, Call, Exchange
from dfsfuse.net.lines import MAX_ORDERED, Lines


def ask_all(lines: Lines, *servers: int) -> list[int]:
    """Make one call to each of these servers, in order, and return those that answered."""
    answered = []
    with Exchange(lines, in_order=True) as exchange:
        for id in servers:
            exchange.start(Call(id, GetPosition(), stall_s=DEADLINE_S))
        while (outcome := exchange.next(DEADLINE_S)) is not None:
            assert isinstance(outcome, Answer), outcome
            answered.append(outcome.call.server)
    return sorted(answered)


def test_the_next_exchange_goes_on_with_the_same_connections_and_asks_nothing_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(4):
        bench.add(WireServer(f"DFS{n + 1}"))
    lines = bench.lines()
    assert ask_all(lines, 1, 2, 3, 4) == [1, 2, 3, 4]

    def forbidden(*_: object) -> None:
        raise AssertionError("that costs a system call for each request, or an object")

    monkeypatch.setattr(select, "poll", forbidden)
    monkeypatch.setattr(Connection, "_peek", forbidden)
    for _ in range(3):
        assert ask_all(lines, 1, 2, 3, 4) == [1, 2, 3, 4]
    assert [server.accepted for server in bench.servers.values()] == [1, 1, 1, 1]


def test_a_call_waits_for_the_one_before_it(bench: Bench) -> None:
    server = bench.add(WireServer())
    with Exchange(bench.lines(), in_order=True) as exchange:
        calls = [Call(1, GetPosition(), stall_s=DEADLINE_S) for _ in range(5)]
        for call in calls:
            exchange.start(call)
        answered = [exchange.next(DEADLINE_S) for _ in calls]
    assert [outcome.call for outcome in answered if isinstance(outcome, Answer)] == calls
    assert server.accepted == 1


def test_a_server_that_was_restarted_meanwhile_is_asked_over_a_new_connection(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert ask_all(lines, 1) == [1]
    server.kill()
    server.start()
    assert ask_all(lines, 1) == [1]
    assert server.accepted == 2
    assert lines.health.usable == {1}


def late(bench: Bench, answer: object) -> Lines:
    """Two servers; the first answers requests for pieces with `answer`, and only when it is released."""
    first, _ = bench.add(WireServer()), bench.add(WireServer("DFS2"))

    def answer_first(line: Line, id: int, request: Request, payload: bytes) -> None:
        if isinstance(request, HavePieces):
            first.wait_released()
            assert callable(answer)
            answer(line, id)
        else:
            line.reply(id, POSITION)

    first.answer = answer_first
    lines = bench.lines()
    assert ask_all(lines, 1, 2) == [1, 2]
    return lines


def overhear(bench: Bench, lines: Lines, exchange: Exchange) -> None:
    """Abandon a call to the first server, whose answer then arrives during the wait for the second."""
    first, second = bench.servers[1], bench.servers[2]

    def answer_second(line: Line, id: int, request: Request, payload: bytes) -> None:
        first.released.set()
        wait_until(lambda: not lines_of(exchange, 1) or lines_of(exchange, 1)[0].owed_until is None)
        line.reply(id, POSITION)

    second.answer = answer_second
    call = Call(1, HavePieces(()), stall_s=DEADLINE_S)
    exchange.start(call)
    exchange.abandon(call)
    exchange.start(Call(2, GetPosition(), stall_s=DEADLINE_S))
    assert isinstance(exchange.next(DEADLINE_S), Answer)


def lines_of(exchange: Exchange, server: int) -> list[Connection]:
    assert exchange._ordered is not None
    return [each for id, each in exchange._ordered.connections.items() if id == server]


def test_a_late_answer_is_taken_while_others_are_waited_for(bench: Bench) -> None:
    lines = late(bench, lambda line, id: line.reply(id, Done()))
    with Exchange(lines, in_order=True) as exchange:
        overhear(bench, lines, exchange)
        assert exchange.silences() == []
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert bench.servers[1].accepted == 1
    assert not lines.health.faults()


def test_a_late_lie_is_noted_and_ends_the_connection(bench: Bench) -> None:
    lines = late(bench, lambda line, id: line.reply(id + 7, Done()))
    with Exchange(lines, in_order=True) as exchange:
        overhear(bench, lines, exchange)
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert bench.servers[1].accepted == 2
    assert "earlier request" in lines.health.faults()[1].text
    assert lines.health.usable == {1, 2}


def test_a_connection_that_ends_while_others_are_waited_for_is_dropped(bench: Bench) -> None:
    lines = late(bench, lambda line, id: line.reset())
    with Exchange(lines, in_order=True) as exchange:
        overhear(bench, lines, exchange)
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert bench.servers[1].accepted == 2


def test_a_server_that_owes_an_answer_in_order_counts_as_silent(bench: Bench) -> None:
    lines = late(bench, lambda line, id: line.reply(id, Done()))
    with Exchange(lines, in_order=True) as exchange:
        call = Call(1, HavePieces(()), stall_s=DEADLINE_S)
        exchange.start(call)
        exchange.abandon(call)
        assert [server for server, _ in exchange.silences()] == [1]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_exchange_leaves_no_connection_behind(bench: Bench, error: type[BaseException]) -> None:
    """What the interrupted step has done to it is not known."""
    server = bench.add(WireServer())
    lines = bench.lines()
    assert ask_all(lines, 1) == [1]
    with pytest.raises(error), Exchange(lines, in_order=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        raise error
    assert ask_all(lines, 1) == [1]
    assert server.accepted == 2


def test_an_error_of_the_caller_leaves_them(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    with pytest.raises(LookupError), Exchange(lines, in_order=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
        raise LookupError
    assert ask_all(lines, 1) == [1]
    assert server.accepted == 1


def test_a_server_that_goes_down_loses_its_connection_and_the_others_keep_theirs(bench: Bench) -> None:
    for n in range(2):
        bench.add(WireServer(f"DFS{n + 1}"))
    lines = bench.lines()
    assert ask_all(lines, 1, 2) == [1, 2]
    lines.failed(1, "it hangs", quick=False)
    lines.answered(1)
    assert ask_all(lines, 1, 2) == [1, 2]
    assert [server.accepted for server in bench.servers.values()] == [2, 1]


def test_a_server_that_was_killed_is_noticed_without_being_asked(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert ask_all(lines, 1) == [1]
    server.kill()

    def is_noticed() -> bool:
        lines.notice_hang_ups()
        return lines.health.usable == frozenset()

    wait_until(is_noticed)


def test_two_exchanges_at_once_have_connections_of_their_own_and_few_are_kept(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    exchanges = [Exchange(lines, in_order=True) for _ in range(MAX_ORDERED + 2)]
    for exchange in exchanges:
        with exchange:
            exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
            assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert server.accepted == len(exchanges)
    again = [Exchange(lines, in_order=True) for _ in exchanges]
    assert [len(lines_of(exchange, 1)) for exchange in again] == [1] * MAX_ORDERED + [0, 0]
    for exchange in again:
        with exchange:
            pass


def test_what_is_put_back_after_the_end_is_closed(bench: Bench) -> None:
    bench.add(WireServer())
    lines = bench.lines()
    with Exchange(lines, in_order=True) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        lines.close()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
        (connection,) = lines_of(exchange, 1)
    with pytest.raises(OSError, match="file descriptor"):
        socket.fromfd(connection.fd, socket.AF_INET, socket.SOCK_STREAM).close()
    assert not lines.take_ordered().connections


def test_other_calls_do_not_use_them(bench: Bench) -> None:
    server = bench.add(WireServer())
    lines = bench.lines()
    assert ask_all(lines, 1) == [1]
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2
    server.kill()
    failure(ask(lines))


def four(bench: Bench) -> Lines:
    """Four servers, of which the last ones have answered last."""
    for n in range(4):
        bench.add(WireServer(f"DFS{n + 1}"))
    lines = bench.lines()
    for id in (1, 2, 3, 4):
        assert ask_all(lines, id) == [id]
    return lines


def answers_when(bench: Bench, server: int, condition: Callable[[], bool]) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        wait_until(condition)
        line.reply(id, POSITION)

    bench.servers[server].answer = answer


def ask_four(exchange: Exchange) -> None:
    for id in (1, 2, 3, 4):
        exchange.start(Call(id, GetPosition(), stall_s=DEADLINE_S))


def test_who_needs_three_answers_is_not_woken_for_the_first_two(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "PARTLY_S", DEADLINE_S)
    waits: list[None] = []
    wait_for_any = meanwhile.wait_for_any

    def counted(poll: select.poll, timeout_ms: int) -> list[tuple[int, int]]:
        waits.append(None)
        return wait_for_any(poll, timeout_ms)

    lines = four(bench)
    monkeypatch.setattr(meanwhile, "wait_for_any", counted)
    with Exchange(lines, in_order=True) as exchange:

        def are_unread() -> bool:
            return all(lines_of(exchange, id)[0].has_unread() for id in (1, 2))

        for id in (1, 2):
            answers_when(bench, id, lambda: bool(waits))
        answers_when(bench, 3, are_unread)
        answers_when(bench, 4, bench.servers[4].released.is_set)
        ask_four(exchange)
        found = [exchange.next(DEADLINE_S, needed) for needed in (3, 2, 1)]
        assert sorted(one.call.server for one in found if isinstance(one, Answer)) == [1, 2, 3]
        assert len(waits) == 1
        bench.servers[4].released.set()
        last = exchange.next(DEADLINE_S)
        assert isinstance(last, Answer) and last.call.server == 4


def test_the_others_are_waited_for_too_if_those_that_are_usually_last_hang(bench: Bench) -> None:
    lines = four(bench)
    for id in (3, 4):
        answers_when(bench, id, bench.servers[id].released.is_set)
    with Exchange(lines, in_order=True) as exchange:
        ask_four(exchange)
        found = [exchange.next(DEADLINE_S, needed) for needed in (3, 2)]
        assert sorted(one.call.server for one in found if isinstance(one, Answer)) == [1, 2]


def test_a_connection_that_ends_is_noticed_whoever_is_waited_for(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "PARTLY_S", DEADLINE_S)
    lines = four(bench)
    bench.servers[1].answer = lambda line, *_: line.reset()
    for id in (2, 3, 4):
        answers_when(bench, id, bench.servers[id].released.is_set)
    with Exchange(lines, in_order=True) as exchange:
        ask_four(exchange)
        assert failure(exchange.next(DEADLINE_S, 3)).call.server == 1


def test_who_answered_late_is_expected_last(bench: Bench) -> None:
    lines = four(bench)
    answers_when(bench, 1, bench.servers[1].released.is_set)
    with Exchange(lines, in_order=True) as exchange:
        ask_four(exchange)
        for needed in (3, 2, 1):
            assert isinstance(exchange.next(DEADLINE_S, needed), Answer)
    bench.servers[1].released.set()
    with Exchange(lines, in_order=True) as exchange:
        wait_until(lines_of(exchange, 1)[0].has_unread)
        ask_four(exchange)
        assert exchange._ordered is not None and exchange._ordered.order[-1] == 1
