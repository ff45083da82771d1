"""The health of the four servers together: which are usable, full, spared, slow."""

from __future__ import annotations

from threading import Lock

import pytest
from support.clock import Clock

from dfsfuse.net.health.health import Health
from dfsfuse.net.health.server import ASK_FOR_ROOM_EVERY_S, FIRST_SPARED_S, Fault
from dfsfuse.net.health.slowness import SLOW_S, TOGETHER_S

ALL = (1, 2, 3, 4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(ALL, clock, lambda: 7, Lock())


def test_a_server_that_fails_is_missing_until_it_answers(health: Health) -> None:
    assert health.failed(2, "DFS2 hangs", quick=False)
    assert not health.failed(2, "DFS2 still hangs", quick=False)
    assert health.failed(4, "DFS4 refuses", quick=True)
    assert health.usable == {1, 3}
    assert health.why_missing() == ["DFS2 still hangs", "DFS4 refuses"]
    assert health.answered(2)
    assert not health.answered(2)
    assert health.usable == {1, 2, 3}
    assert health.comebacks() == {1: 0, 2: 1, 3: 0, 4: 0}


def test_which_servers_may_be_asked_and_which_are_tried_next(health: Health, clock: Clock) -> None:
    assert health.next_trial() == (None, [])
    health.failed(2, "DFS2 hangs", quick=False)
    assert health.refusal(1) is None
    assert health.refusal(2) == "DFS2 hangs"
    due_at, down = health.next_trial()
    assert down == [2] and due_at is not None
    health.tried_elsewhere = True
    clock.now = due_at
    assert health.refusal(2) == "DFS2 hangs", "trials are made elsewhere"
    assert health.claim(2)
    assert not health.claim(2)
    health.moved(2)
    assert health.claim(2)


def test_a_server_that_refused_a_moment_ago_may_be_asked(health: Health, clock: Clock) -> None:
    health.failed(2, "DFS2 refuses", quick=True, tried=False)
    assert health.refusal(2) is None
    assert health.refusal(2) == "DFS2 refuses"


def test_full_servers_are_asked_for_room(health: Health, clock: Clock) -> None:
    assert not health.said_room(2, full=False)
    assert health.said_room(2, full=True)
    assert not health.said_room(2, full=True)
    assert health.full == {2}
    assert health.usable == set(ALL), "a full server is not down"
    assert health.to_ask_for_room() == []
    clock.now += ASK_FOR_ROOM_EVERY_S
    assert health.to_ask_for_room() == [2]
    assert health.to_ask_for_room() == []
    assert health.said_room(2, full=False)
    assert health.full == frozenset()


def test_which_servers_are_spared_in_the_log_and_which_with_data(health: Health, clock: Clock) -> None:
    health.log.lagged((2, 3))
    clock.now += 1.0
    health.data.lagged((4,))
    assert (health.log.now(), health.data.now()) == ({2, 3}, {4})
    health.log.answered(3)
    health.log.answered(4)
    assert (health.log.now(), health.data.now()) == ({2}, {4})
    clock.now += FIRST_SPARED_S - 1.0
    assert (health.log.now(), health.data.now()) == (frozenset(), {4}), "each is spared from its own lapse"
    clock.now += 1.0
    assert health.data.now() == frozenset()


def test_where_all_are_needed_none_is_spared(health: Health) -> None:
    health.log.lagged((2, 3))
    health.data.lagged((2,))
    health.log.needed()
    assert (health.log.now(), health.data.now()) == (frozenset(), {2})


def test_the_usual_latency_is_shared_by_kind_of_request(health: Health) -> None:
    for _ in range(50):
        health.pace("log", 0.3).note(1, 1.0, 2)
    assert health.pace("log", 0.3).patience_s(1) == pytest.approx(3.0)
    assert health.pace("pieces", 0.4).patience_s(1) == 0.4


def test_servers_that_are_silent_together_are_slow_unless_somebody_is_in_a_hurry(health: Health, clock: Clock) -> None:
    silent_since = clock.now - TOGETHER_S
    assert not health.are_slow(dict.fromkeys((1, 2), silent_since))
    assert health.are_slow(dict.fromkeys((1, 2, 3), silent_since))
    health.failed(3, "DFS3 was waited for long enough", quick=False)
    assert not health.are_slow(dict.fromkeys((1, 2, 3), silent_since))
    health.answered(3)
    health.hurry()
    assert not health.are_slow(dict.fromkeys((1, 2, 3), silent_since))
    clock.now += SLOW_S
    assert health.are_slow(dict.fromkeys((1, 2, 3), silent_since)), "a hurry wears off after a while"
    health.hurry(for_good=True)
    clock.now += 10 * SLOW_S
    health.hurry()
    assert not health.are_slow(dict.fromkeys((1, 2, 3), silent_since)), "a permanent hurry must stay"


def test_what_each_did_wrong(health: Health) -> None:
    assert health.faults() == {}
    health.did_wrong(3, "sent wrong bytes")
    health.did_wrong(1, "sent digests of another piece")
    assert health.faults() == {1: Fault(1, 7, "sent digests of another piece"), 3: Fault(1, 7, "sent wrong bytes")}
