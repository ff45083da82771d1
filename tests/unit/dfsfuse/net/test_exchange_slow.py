"""Servers that are silent: together, and alone."""

from __future__ import annotations

import select
import time

import pytest
from support.exchange_bench import STALL_S, Bench, ask, failure
from support.vanishing import vanish
from support.wire_server import DEADLINE_S, POSITION, Line, WireServer

from dfs_server.protocol.messages import GetPosition, Request
from dfsfuse.net.cluster import Cluster
from dfsfuse.net.exchange import LONGEST_CALL_S, Answer, Call, Exchange
from dfsfuse.net.health import slowness
from dfsfuse.net.lines import Lines


@pytest.fixture
def four(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Lines to four servers that have answered once, with a short TOGETHER_S."""
    monkeypatch.setattr(slowness, "TOGETHER_S", STALL_S / 2)
    for number in range(1, 5):
        bench.add(WireServer(f"DFS{number}"))
    lines = bench.lines()
    for number in bench.servers:
        assert isinstance(ask(lines, server=number), Answer)
    return lines


def silence(bench: Bench, *servers: int) -> None:
    """From now on these servers answer only when they are released."""
    for number in servers:
        server = bench.servers[number]

        def answer(line: Line, id: int, request: Request, payload: bytes, server: WireServer = server) -> None:
            server.wait_released()
            line.reply(id, POSITION)

        server.answer = answer


def begin(exchange: Exchange, *, is_patient: bool) -> None:
    for id in (1, 2, 3, 4):
        exchange.start(Call(id, GetPosition(), stall_s=STALL_S, is_patient=is_patient))


@pytest.mark.parametrize("silent", [(1, 2, 3, 4), (1, 3, 4)])
def test_servers_that_are_slow_together_are_waited_for(bench: Bench, four: Lines, silent: tuple[int, ...]) -> None:
    silence(bench, *silent)
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        for _ in range(4 - len(silent)):
            assert isinstance(exchange.next(DEADLINE_S), Answer)
        assert exchange.next(4 * STALL_S) is None
        for number in silent:
            bench.servers[number].released.set()
        assert all(isinstance(exchange.next(DEADLINE_S), Answer) for _ in silent)
    assert four.health.usable == {1, 2, 3, 4}
    assert four.health.excused_at > float("-inf")


def test_those_that_go_on_last_have_their_time_from_then(
    bench: Bench, four: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once two have answered, the others are no longer silent together; they are not given up because of that."""
    monkeypatch.setattr("dfsfuse.net.exchange.LOOK_AGAIN_S", 0.001)
    silence(bench, 1, 2, 3, 4)
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        assert exchange.next(2 * STALL_S) is None
        for number in (1, 2):
            bench.servers[number].released.set()
        assert all(isinstance(exchange.next(DEADLINE_S), Answer) for _ in (1, 2))
        assert exchange.next(STALL_S / 4) is None
        for number in (3, 4):
            bench.servers[number].released.set()
        assert all(isinstance(exchange.next(DEADLINE_S), Answer) for _ in (3, 4))
    assert four.health.usable == {1, 2, 3, 4}


def test_two_that_are_silent_are_not(bench: Bench, four: Lines) -> None:
    silence(bench, 2, 3)
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        outcomes = [exchange.next(DEADLINE_S) for _ in range(4)]
    assert [isinstance(outcome, Answer) for outcome in outcomes] == [True, True, False, False]
    assert four.health.usable == {1, 4}


def test_they_are_not_waited_for_for_ever(bench: Bench, four: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slowness, "SLOW_S", 3 * STALL_S)
    silence(bench, 1, 2, 3, 4)
    begun = time.monotonic()
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        for _ in range(4):
            failure(exchange.next(DEADLINE_S))
    assert time.monotonic() - begun >= 3 * STALL_S
    assert four.health.usable == frozenset()


def test_those_that_have_vanished_are_not_slow(bench: Bench, four: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is cut: nothing will come, so they are not waited for until the deadline of 30 s."""
    lines: list[Line] = []

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        lines.append(line)
        line.reply(id, POSITION)

    for number, server in bench.servers.items():
        server.answer = answer
        assert isinstance(ask(four, server=number), Answer)
    monkeypatch.setattr("dfsfuse.net.connection.GONE_S", 2 * STALL_S)
    vanish(*(line.socket for line in lines))
    begun = time.monotonic()
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        for _ in range(4):
            failure(exchange.next(DEADLINE_S))
    assert 2 * STALL_S <= time.monotonic() - begun < DEADLINE_S
    assert four.health.usable == frozenset()


def test_a_call_in_a_hurry_does_not_mark_servers_as_down(bench: Bench, four: Lines) -> None:
    """A check of the servers' state ends in time, and its failures do not count for patient calls."""
    silence(bench, 1, 2, 3, 4)
    with Exchange(four) as exchange:
        begin(exchange, is_patient=False)
        for _ in range(4):
            failure(exchange.next(DEADLINE_S))
    assert four.health.usable == {1, 2, 3, 4}


def test_after_ctrl_c_nothing_waits(bench: Bench, four: Lines) -> None:
    silence(bench, 1, 2, 3, 4)
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        assert exchange.next(2 * STALL_S) is None
        four.health.hurry()
        for _ in range(4):
            failure(exchange.next(DEADLINE_S))


def test_before_the_end_nothing_waits_any_more_however_long_it_takes(
    four: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hurry after Ctrl-C wears off; that of an ending mount does not."""
    monkeypatch.setattr(slowness, "SLOW_S", 0.0)
    cluster = Cluster(tuple(four.servers.values()), four._credentials)
    for for_good in (False, True):
        cluster.hurry(for_good=for_good)
        assert slowness.is_waited_for(cluster.health._hurried_at, cluster._lines.clock()) is for_good
    cluster.hurry()
    assert slowness.is_waited_for(cluster.health._hurried_at, cluster._lines.clock()), "a permanent hurry must stay"
    assert not cluster.are_slow()


def test_answers_that_are_owed_are_waited_for_too(bench: Bench, four: Lines) -> None:
    """The servers fell silent with these answers still owed, and the next requests queue behind them."""
    for number in bench.servers:
        with Exchange(four, in_order=True) as exchange:
            exchange.start(Call(number, GetPosition(), stall_s=DEADLINE_S))
            assert isinstance(exchange.next(DEADLINE_S), Answer)
    silence(bench, 1, 2, 3, 4)
    with Exchange(four, in_order=True) as exchange:
        begin(exchange, is_patient=True)
        assert exchange.next(0.0) is None
    late_s = [0.0]
    four.clock = four.health._clock = lambda: time.monotonic() + late_s[0]
    late_s[0] = slowness.SLOW_S / 2
    with Exchange(four, in_order=True) as exchange:
        begin(exchange, is_patient=True)
        assert exchange.next(2 * STALL_S) is None
        for server in bench.servers.values():
            server.released.set()
        assert all(isinstance(exchange.next(DEADLINE_S), Answer) for _ in range(4))


@pytest.mark.parametrize(
    ("is_patient", "stall_s", "look_again_s"), [(False, STALL_S, DEADLINE_S), (True, DEADLINE_S, 0.001)]
)
def test_time_while_this_process_was_stopped_does_not_count_as_silence(
    bench: Bench, four: Lines, monkeypatch: pytest.MonkeyPatch, is_patient: bool, stall_s: float, look_again_s: float
) -> None:
    """This process and one server were stopped, and the server needs a moment to answer. It gets one, and its full time
    again if the call is patient."""
    monkeypatch.setattr("dfsfuse.net.exchange.LOOK_AGAIN_S", look_again_s)
    silence(bench, 1)
    late_s = [0.0]
    four.clock = four.health._clock = lambda: time.monotonic() + late_s[0]
    with Exchange(four) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=stall_s, is_patient=is_patient))
        late_s[0] = 2 * LONGEST_CALL_S
        assert exchange.next(STALL_S) is None
        bench.servers[1].released.set()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert four.health.usable == {1, 2, 3, 4}


def test_a_thread_that_was_busy_elsewhere_did_not_stand_still(bench: Bench, four: Lines) -> None:
    """It took its time to come back for an answer; that excuses no server."""
    late_s = [0.0]
    four.clock = four.health._clock = lambda: time.monotonic() + late_s[0]
    excused_at = four.health.excused_at
    with Exchange(four) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=STALL_S, is_patient=True))
        (flight,) = exchange._flights.values()
        assert select.select([flight.connection.fd], [], [], DEADLINE_S)[0]
        late_s[0] = 2 * LONGEST_CALL_S
        exchange.resume()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert four.health.excused_at == excused_at


def test_nor_does_it_count_for_servers_that_are_slow_together(
    bench: Bench, four: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They get their full time again."""
    monkeypatch.setattr("dfsfuse.net.exchange.LOOK_AGAIN_S", STALL_S / 10)
    silence(bench, 1, 2, 3, 4)
    late_s = [0.0]
    four.clock = four.health._clock = lambda: time.monotonic() + late_s[0]
    with Exchange(four) as exchange:
        begin(exchange, is_patient=True)
        late_s[0] = 2 * slowness.SLOW_S
        assert exchange.next(3 * STALL_S) is None
        for server in bench.servers.values():
            server.released.set()
        assert all(isinstance(exchange.next(DEADLINE_S), Answer) for _ in range(4))
    assert four.health.usable == {1, 2, 3, 4}


def test_a_server_whose_answer_was_not_read_yet_is_not_silent(four: Lines) -> None:
    """A thread that asks beside the log may read its answer late; with two hanging servers, all would then seem to be
    slow together."""
    with Exchange(four) as beside:
        beside.start(Call(1, GetPosition(), stall_s=STALL_S, is_patient=True))
        assert [server for server, _ in beside.silences()] in ([1], [])
        (flight,) = beside._flights.values()
        assert select.select([flight.connection.fd], [], [], DEADLINE_S)[0]
        assert beside.silences() == []
        assert isinstance(beside.next(DEADLINE_S), Answer)
