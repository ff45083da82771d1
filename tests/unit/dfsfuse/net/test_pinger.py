"""The thread that tries servers that are down."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from support.wire_server import CREDENTIALS, DEADLINE_S, Greeting, Line, WireServer, wait_until

from dfs_server.protocol.messages import GetPosition, GetStatus, Request, ServerStatus
from dfsfuse.common import worker
from dfsfuse.net.exchange import Answer, Call, Exchange
from dfsfuse.net.health.server import ASK_FOR_ROOM_EVERY_S
from dfsfuse.net.lines import Lines
from dfsfuse.net.pinger import Pinger


@pytest.fixture
def server() -> Iterator[WireServer]:
    with WireServer() as server:
        yield server


@pytest.fixture
def lines(server: WireServer) -> Iterator[Lines]:
    lines = Lines([server.address(1)], CREDENTIALS)
    yield lines
    lines.close()


@pytest.fixture
def pinger(lines: Lines) -> Iterator[Pinger]:
    pinger = Pinger(lines)
    pinger.start()
    yield pinger
    pinger.stop()


def test_asks_no_server_while_all_are_up(server: WireServer, pinger: Pinger) -> None:
    pinger.stop()
    assert server.accepted == 0


def test_brings_a_server_back(server: WireServer, lines: Lines, pinger: Pinger) -> None:
    lines.failed(1, "it was lost", quick=True)
    assert lines.health.usable == frozenset()
    wait_until(lambda: lines.health.usable == {1})
    assert server.accepted == 1


def test_hung_server_has_one_trial_at_a_time(server: WireServer, lines: Lines, pinger: Pinger) -> None:
    """It refused first, so trials are due twice a second, and each takes a second."""
    server.greeting = Greeting.SILENT
    lines.failed(1, "connection refused", quick=True)
    wait_until(lambda: server.accepted == 2)
    with server._lock:
        first = server._lines[0].socket
    first.setblocking(False)
    assert first.recv(1) == b"", "the first trial must have been given up before the second"


def test_what_a_person_must_put_right_is_said_once(
    server: WireServer, lines: Lines, pinger: Pinger, caplog: pytest.LogCaptureFixture
) -> None:
    server.says = "DFS7"
    lines.failed(1, "it was lost", quick=True)
    wait_until(lambda: server.accepted == 3)
    pinger.stop()
    told = [record for record in caplog.records if record.levelno == logging.WARNING and "is DFS7" in record.message]
    assert len(told) == 1


def test_stops_at_once_in_the_middle_of_a_trial(server: WireServer, lines: Lines, pinger: Pinger) -> None:
    server.answer = lambda line, id, request, payload: server.wait_released()
    lines.failed(1, "it was lost", quick=True)
    wait_until(lambda: len(server.requests) == 1)
    before = time.monotonic()
    pinger.stop()
    assert time.monotonic() - before < 0.9
    assert not lines.health.tried_elsewhere


def test_a_server_that_is_killed_while_idle_is_noticed(server: WireServer, lines: Lines, pinger: Pinger) -> None:
    with Exchange(lines) as exchange:
        exchange.start(Call(1, GetPosition()))
        assert isinstance(exchange.next(DEADLINE_S), Answer)
    server.kill()
    wait_until(lambda: lines.health.usable == frozenset())


def test_asks_a_full_server_until_it_has_room(server: WireServer, lines: Lines, pinger: Pinger) -> None:
    free_bytes = [0, 0, 5000]

    def answer(line: Line, id: int, request: Request, payload: bytes) -> None:
        assert isinstance(request, GetStatus)
        line.reply(id, ServerStatus("DFS1", "0", 1, free_bytes.pop(0), 9000, 0, 0))

    server.answer = answer
    assert ASK_FOR_ROOM_EVERY_S < DEADLINE_S / 4
    lines.said_room(1, full=True)
    assert lines.health.usable == {1} and lines.health.full == {1}, "a full server is not down"
    wait_until(lambda: not lines.health.full)
    assert free_bytes == []


def test_an_unexpected_exception_does_not_end_the_thread(
    server: WireServer, lines: Lines, pinger: Pinger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    failures = iter([UnicodeError("label empty or too long")])
    look_up = lines.look_up

    def look_up_later(id: int) -> None:
        if failure := next(failures, None):
            raise failure
        look_up(id)

    monkeypatch.setattr(lines, "look_up", look_up_later)
    lines.failed(1, "it was lost", quick=True)
    wait_until(lambda: lines.health.usable == {1})
