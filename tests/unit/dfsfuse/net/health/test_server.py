"""One server's health: whether it has room, whether it is waited for, what it did wrong. Whether it is up is tested in
`test_circuit`."""

from __future__ import annotations

from itertools import count

import pytest
from support.clock import Clock

from dfsfuse.net.health.server import (
    ASK_FOR_ROOM_EVERY_S,
    FIRST_SPARED_S,
    LONGEST_SPARED_S,
    MAX_FAULT_TEXT,
    Fault,
    ServerHealth,
)
from dfsfuse.net.stalls import HAVE_S, LOG_S, PIECE_S, SMALL_PIECES_S


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server(clock: Clock) -> ServerHealth:
    return ServerHealth(clock, count(100).__next__)


def test_it_is_up_until_it_fails_and_comes_back_with_an_answer(server: ServerHealth, clock: Clock) -> None:
    assert server.is_up
    assert not server.answered()
    assert server.failed("no byte moved", quick=False)
    assert (server.is_up, server.why_down, server.comebacks) == (False, "no byte moved", 0)
    assert not server.claim()
    clock.now = server.trial_due_at
    assert server.claim()
    assert server.answered()
    assert not server.answered()
    assert (server.is_up, server.comebacks) == (True, 1)


def test_one_that_has_moved_is_tried_at_once(server: ServerHealth) -> None:
    server.failed("no byte moved", quick=False)
    server.moved()
    assert server.claim()


def test_a_full_server_is_asked_again_from_time_to_time_until_it_has_room(server: ServerHealth, clock: Clock) -> None:
    assert not server.said_room(full=False)
    assert not server.is_full and not server.claim_asking_for_room()
    assert server.said_room(full=True)
    assert not server.said_room(full=True)
    assert server.is_full and not server.claim_asking_for_room()
    clock.now += ASK_FOR_ROOM_EVERY_S
    assert server.claim_asking_for_room()
    assert not server.claim_asking_for_room(), "it is being asked already"
    assert server.said_room(full=False)
    assert not server.is_full


def test_one_that_let_somebody_wait_is_spared_for_a_while(server: ServerHealth, clock: Clock) -> None:
    assert not server.is_spared("data")
    server.lagged("data")
    assert server.is_spared("data")
    clock.now += FIRST_SPARED_S
    assert not server.is_spared("data")


def test_it_is_spared_until_it_is_known_to_be_down_if_it_hangs() -> None:
    """Otherwise every request that comes between would wait for it once more in vain."""
    assert max(LOG_S, HAVE_S, SMALL_PIECES_S, PIECE_S) < FIRST_SPARED_S


def test_one_that_lets_wait_again_and_again_is_spared_for_longer_up_to_a_limit(
    server: ServerHealth, clock: Clock
) -> None:
    for span_s in (5.0, 10.0, 20.0, 40.0, 60.0, LONGEST_SPARED_S):
        server.lagged("data")
        begun = clock.now
        clock.now += 0.1
        server.lagged("data")  # other requests waited too, and count as the same lapse
        clock.now = begun + span_s - 0.01
        assert server.is_spared("data")
        clock.now = begun + span_s
        assert not server.is_spared("data")


def test_an_answer_ends_that(server: ServerHealth, clock: Clock) -> None:
    server.lagged("log")
    server.was_prompt("log")
    assert not server.is_spared("log")
    server.lagged("log")
    clock.now += FIRST_SPARED_S
    assert not server.is_spared("log"), "the next lapse must count as a first one"


def test_one_that_is_slow_with_data_may_be_quick_with_the_log(server: ServerHealth) -> None:
    server.lagged("data")
    assert not server.is_spared("log")
    server.lagged("log")
    server.was_prompt("log")
    assert server.is_spared("data"), "prompt answers to small requests say nothing about its disk"


def test_of_what_it_did_wrong_the_last_is_told_and_how_many_there_were(server: ServerHealth) -> None:
    assert server.fault is None
    server.did_wrong("sent wrong bytes")
    server.did_wrong("x" * 10_000)
    assert server.fault == Fault(2, 101, "x" * MAX_FAULT_TEXT)
