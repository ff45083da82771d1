"""What a client keeps for each server: circuits, addresses, idle connections."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from typing import cast

import pytest
from support.wire_server import CREDENTIALS, DEADLINE_S, POSITION, Greeting, Line, WireServer

from dfs_server.protocol.messages import GetPosition, HavePieces, Request
from dfsfuse.net.connection import Connection
from dfsfuse.net.exchange import Answer, Call, Exchange, Failure
from dfsfuse.net.health.slowness import SLOW_S, TOGETHER_S
from dfsfuse.net.lines import AUTHENTICATION_S, MAX_IDLE, OWED_S, Lines
from dfsfuse.net.name_service import Target
from dfsfuse.net.ordered_lines import OrderedLines
from dfsfuse.net.servers import ServerAddress


class Clock:
    """The real clock, plus what the test adds to it."""

    def __init__(self) -> None:
        self.added_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.added_s


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(server: WireServer, clock: Clock) -> Iterator[Lines]:
    lines = Lines([server.address(1)], CREDENTIALS, clock=clock)
    yield lines
    lines.close()


def ask(lines: Lines) -> Answer | Failure:
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        outcome = exchange.next(DEADLINE_S)
    assert outcome is not None
    return outcome


def abandon(lines: Lines) -> None:
    """Ask for pieces, and do not wait for the answer."""
    with Exchange(lines) as exchange:
        exchange.start(Call(1, HavePieces(()), stall_s=DEADLINE_S))


def test_one_line_is_logged_for_each_change(lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    server = lines.servers[1]
    with caplog.at_level(logging.INFO):
        lines.failed(1, f"{server} does not answer: connection refused", quick=True)
        lines.failed(1, f"{server} does not answer: connection refused", quick=True)
        assert lines.health.comebacks() == {1: 0}
        lines.answered(1)
        lines.answered(1)
    assert lines.health.comebacks() == {1: 1}
    assert caplog.messages == [
        f"{server} does not answer: connection refused; trying again in the background",
        f"{server} answers again",
    ]


def test_down_server_is_refused_until_its_trial_is_due(lines: Lines, clock: Clock) -> None:
    assert lines.health.refusal(1) is None
    lines.failed(1, "it hangs", quick=False)
    assert lines.health.refusal(1) == "it hangs"
    assert lines.health.usable == frozenset()
    clock.added_s += 0.6
    assert lines.health.refusal(1) is None
    assert lines.health.refusal(1) == "it hangs"


def test_requests_leave_trials_to_the_pinger_if_there_is_one(lines: Lines, clock: Clock) -> None:
    lines.health.tried_elsewhere = True
    lines.failed(1, "it hangs", quick=False)
    clock.added_s += 0.6
    assert lines.health.refusal(1) == "it hangs"
    clock.added_s += 1.0
    assert lines.health.refusal(1) is None


def test_server_that_goes_down_loses_its_idle_connections(lines: Lines, server: WireServer) -> None:
    assert isinstance(ask(lines), Answer)
    lines.failed(1, "it hangs", quick=False)
    lines.answered(1)
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 2


def test_owed_reply_that_came_meanwhile_is_no_burden_however_long_ago(
    lines: Lines, server: WireServer, clock: Clock
) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        line.reply(id, POSITION)
        if isinstance(request, HavePieces):
            server.released.set()

    server.answer = answer
    assert isinstance(ask(lines), Answer)
    abandon(lines)
    server.wait_released()
    clock.added_s += 10 * OWED_S
    assert isinstance(ask(lines), Answer)
    assert server.accepted == 1


def test_connection_that_has_owed_a_reply_for_too_long_tells_that_the_server_hangs(
    lines: Lines, server: WireServer, clock: Clock
) -> None:
    """Nothing waited for that reply, since other servers were faster; the hang is detected all the same, without
    waiting."""
    assert isinstance(ask(lines), Answer)
    server.answer = lambda line, id, request, payload: server.wait_released()
    abandon(lines)
    abandon(lines)
    clock.added_s += OWED_S + 0.1
    outcome = ask(lines)
    assert isinstance(outcome, Failure)
    assert outcome.text.endswith("does not answer: it has owed an answer for too long")
    assert lines.health.usable == frozenset()


def test_greeting_that_nothing_waits_for_shows_it_too(server: WireServer, lines: Lines, clock: Clock) -> None:
    server.greeting = Greeting.SILENT
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        assert exchange.next(0.05) is None
    clock.added_s += AUTHENTICATION_S
    assert isinstance(ask(lines), Failure)
    assert server.accepted == 1


def test_old_greeting_that_the_server_went_on_with_is_just_too_old(
    server: WireServer, lines: Lines, clock: Clock
) -> None:
    abandon(lines)  # left while connecting, for a while
    clock.added_s += AUTHENTICATION_S
    assert isinstance(ask(lines), Answer)
    assert lines.health.usable == {1}


def test_no_more_idle_connections_than_the_cap(server: WireServer, lines: Lines) -> None:
    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        server.wait_released()
        line.reply(id, POSITION)

    server.answer = answer
    exchanges = [Exchange(lines) for _ in range(MAX_IDLE + 3)]
    for exchange in exchanges:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
    server.released.set()
    for exchange in exchanges:
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    idle = []
    while (connection := lines.borrow(1)) is not None:
        idle.append(connection)
    assert len(idle) == MAX_IDLE
    for connection in idle:
        connection.close()


def test_connection_given_back_after_the_end_is_closed(server: WireServer) -> None:
    lines = Lines([server.address(1)], CREDENTIALS)
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition(), stall_s=DEADLINE_S))
        lines.close()
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    assert lines.borrow(1) is None


def test_host_without_an_address_is_a_failure() -> None:
    def unknown(server: ServerAddress) -> tuple[Target, ...]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    lines = Lines([ServerAddress(1, "DFS1", "nas.example", 10001)], CREDENTIALS, look_up=unknown)
    lines.look_up(1)
    outcome = ask(lines)
    assert isinstance(outcome, Failure)
    assert outcome.text == "DFS1 (nas.example:10001) does not answer: its host name 'nas.example' cannot be resolved"


def test_second_address_of_a_host_is_tried_and_remembered(server: WireServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        closed = listener.getsockname()[1]
    targets = tuple(Target(socket.AF_INET, ("127.0.0.1", port)) for port in (closed, server.port))
    lines = Lines([ServerAddress(1, "DFS1", "localhost", server.port)], CREDENTIALS, look_up=lambda _: targets)
    lines.look_up(1)
    assert isinstance(ask(lines), Answer)
    server.kill()
    lines.hang_up()
    assert isinstance(ask(lines), Failure)  # after one attempt at each address
    lines.close()


NOW = 100.0
SILENT = NOW - TOGETHER_S
JUST_ASKED = NOW - TOGETHER_S / 2


class Owing:
    """A connection that is owed an answer."""

    ready = True
    owed = 1

    def __init__(self, server: ServerAddress, since: float | None) -> None:
        self.server = server
        self._since = since

    def silent_since(self) -> float | None:
        return self._since

    def close(self) -> None:
        pass


class Owed:
    """An exchange to which these servers owe an answer."""

    def __init__(self, *owed: tuple[int, float]) -> None:
        self._owed = list(owed)

    def silences(self) -> list[tuple[int, float]]:
        return self._owed


class Silences:
    """Four servers, and the answers that they owe in each place."""

    def __init__(self) -> None:
        addresses = [ServerAddress(id, f"DFS{id}", "127.0.0.1", 10000 + id) for id in range(1, 5)]
        self.lines = Lines(addresses, CREDENTIALS, clock=lambda: NOW)
        self._borrowed: list[Connection] = []

    def owing(self, id: int, since: float | None) -> Connection:
        return cast("Connection", Owing(self.lines.servers[id], since))

    def idle(self, id: int, since: float | None = SILENT) -> None:
        self.lines.give_back(self.owing(id, since))

    def ordered(self, id: int, since: float | None = SILENT) -> None:
        kept = OrderedLines()
        kept.connections[id] = self.owing(id, since)
        self.lines.put_back(kept)

    def borrowed(self, id: int, since: float | None = SILENT) -> None:
        self._borrowed.append(self.owing(id, since))

    def exchange(self, id: int, since: float = SILENT) -> None:
        self.lines.exchanges.add(Owed((id, since)))

    def are_slow(self) -> bool:
        return self.lines.are_slow(*self._borrowed)


@pytest.mark.parametrize("third", [Silences.idle, Silences.ordered, Silences.borrowed, Silences.exchange])
def test_wherever_three_servers_owe_an_answer_they_are_slow(third: Callable[[Silences, int], None]) -> None:
    silences = Silences()
    silences.idle(1)
    silences.exchange(2)
    assert not silences.are_slow()
    third(silences, 3)
    assert silences.are_slow()


@pytest.mark.parametrize("is_old_one_first", [True, False])
def test_the_answer_that_a_server_has_owed_for_longest_counts(is_old_one_first: bool) -> None:
    silences = Silences()
    for id in (1, 2):
        silences.idle(id)
    for id in (3, 4):  # idle connections are checked before the exchanges
        silences.idle(id, SILENT if is_old_one_first else JUST_ASKED)
    assert silences.are_slow() is is_old_one_first
    for id in (3, 4):
        silences.exchange(id, JUST_ASKED if is_old_one_first else SILENT)
    assert silences.are_slow()


def test_a_server_that_owes_nothing_is_down_or_was_just_asked_is_not_slow() -> None:
    silences = Silences()
    for id in (1, 2):
        silences.exchange(id)
    silences.idle(3, None)
    silences.idle(3, JUST_ASKED)
    silences.exchange(4)
    assert silences.are_slow()
    silences.lines.failed(4, "it has closed the connection", quick=True)
    assert not silences.are_slow()


def test_nothing_waits_in_a_hurry() -> None:
    silences = Silences()
    for id in (1, 2, 3):
        silences.exchange(id)
    silences.lines.health._hurried_at = NOW - SLOW_S + 1.0
    assert not silences.are_slow()
    silences.lines.health._hurried_at = NOW - SLOW_S
    assert silences.are_slow()
