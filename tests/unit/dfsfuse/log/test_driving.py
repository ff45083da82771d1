"""Running procedures: rounds, silences, pauses, and the deadline."""

from __future__ import annotations

import pytest
from support.grid import Fault
from support.log_cluster import LogCluster

from dfs_server.protocol.messages import GetPosition, Position
from dfs_server.protocol.status import Status
from dfsfuse.log.driving import AWAIT_S, SOFT_S, drive
from dfsfuse.log.procedures import ALL, RECEIVE, RECEIVE_SOFT, Ask, Await, DeadlineError, Event, Pause, Procedure, R
from dfsfuse.net.stalls import LOG_S


def run(cluster: LogCluster, procedure: Procedure[R], within_s: float = 10.0, pauses: list[int] | None = None) -> R:
    clock = cluster.grid.clock
    paused: list[int] = [] if pauses is None else pauses
    return drive(procedure, cluster, clock() + within_s, clock, paused.append)  # type: ignore[arg-type]


def ask_all(events: int) -> Procedure[list[Event | None]]:
    yield Ask(dict.fromkeys(ALL, GetPosition()))
    found = []
    for _ in range(events):
        found.append((yield RECEIVE))
    return found


def test_each_server_gives_one_event(log_cluster: LogCluster) -> None:
    log_cluster.grid[2].fault = Fault.DOWN
    events = run(log_cluster, ask_all(4))
    assert {event.server: type(event.reply) for event in events if event} == {
        1: Position,
        2: type(None),
        3: Position,
        4: Position,
    }
    assert "refused" in next(event.why for event in events if event and event.server == 2)


def test_a_round_of_all_needs_a_quorum_of_answers(log_cluster: LogCluster) -> None:
    def procedure() -> Procedure[None]:
        yield Ask(dict.fromkeys(ALL, GetPosition()))
        for _ in range(3):
            yield RECEIVE
        yield RECEIVE_SOFT
        yield Ask({1: GetPosition()})
        yield RECEIVE
        yield Ask({2: GetPosition()}, also=True)
        yield RECEIVE

    run(log_cluster, procedure())
    assert log_cluster.needed == [3, 2, 1, 1, 1, 1]


def test_an_error_is_an_event_with_its_status(log_cluster: LogCluster) -> None:
    def procedure() -> Procedure[Event | None]:
        yield Ask({1: GetPosition()})
        return (yield RECEIVE)

    log_cluster.grid[1].fault = Fault.BROKEN_DISK
    assert run(log_cluster, procedure()) == Event(1, None, "DFS1: the disk failed", Status.IO_ERROR)


def test_a_new_round_makes_late_replies_void(log_cluster: LogCluster) -> None:
    def procedure() -> Procedure[int]:
        yield Ask({1: GetPosition(), 2: GetPosition()})
        yield Ask({3: GetPosition()})
        event = yield RECEIVE
        assert event is not None
        return event.server

    assert run(log_cluster, procedure()) == 3
    assert log_cluster.grid[1].asked == log_cluster.grid[2].asked == []


def test_a_short_silence_is_told_and_the_round_goes_on(log_cluster: LogCluster) -> None:
    log_cluster.grid[1].fault = Fault.HANG
    clock = log_cluster.grid.clock

    def procedure() -> Procedure[tuple[float, Event | None]]:
        yield Ask({1: GetPosition()})
        begun = clock()
        assert (yield RECEIVE_SOFT) is None
        silence_s = clock() - begun
        return silence_s, (yield RECEIVE)

    silence_s, event = run(log_cluster, procedure())
    assert silence_s == pytest.approx(SOFT_S)
    assert event is not None and event.server == 1 and f"{LOG_S}" in event.why


def test_an_answer_that_is_arriving_is_not_silent(log_cluster: LogCluster) -> None:
    """A page of a megabyte takes half a second over a slow link; from two servers at once it would take twice that."""
    server = log_cluster.grid[1]
    server.latency_s, server.trickles = 3 * SOFT_S, True

    def procedure() -> Procedure[Event | None]:
        yield Ask({1: GetPosition()})
        event = yield RECEIVE_SOFT
        assert event is not None
        return event

    event = run(log_cluster, procedure())
    assert event is not None and isinstance(event.reply, Position)


def test_nor_does_it_hold_up_the_end_of_the_time(log_cluster: LogCluster) -> None:
    server = log_cluster.grid[1]
    server.latency_s, server.trickles = 100.0, True

    def procedure() -> Procedure[None]:
        yield Ask({1: GetPosition()})
        while (yield RECEIVE_SOFT) is None:
            pass

    with pytest.raises(DeadlineError):
        run(log_cluster, procedure(), within_s=1.0)


def test_a_server_that_does_not_answer_in_time_is_silent_and_then_the_time_is_up(log_cluster: LogCluster) -> None:
    for server in ALL:
        log_cluster.grid[server].fault = Fault.HANG
    heard: list[Event | None] = []

    def procedure() -> Procedure[None]:
        yield Ask(dict.fromkeys(ALL, GetPosition()))
        while True:
            heard.append((yield RECEIVE))

    with pytest.raises(DeadlineError):
        run(log_cluster, procedure(), within_s=1.0)
    assert [event.why for event in heard if event] == ["no answer in time"]


def test_missing_servers_are_waited_for_longer_and_longer(log_cluster: LogCluster) -> None:
    def procedure() -> Procedure[str]:
        yield Await(1)
        yield Await(3)
        return "done"

    begun, waits = log_cluster.grid.clock(), []
    log_cluster.while_waiting = lambda: waits.append(log_cluster.grid.clock() - begun)
    assert run(log_cluster, procedure()) == "done"
    assert waits == pytest.approx([AWAIT_S, 5 * AWAIT_S])


def test_pauses_are_the_drivers(log_cluster: LogCluster) -> None:
    def procedure() -> Procedure[str]:
        yield Pause(1)
        yield Pause(2)
        return "done"

    pauses: list[int] = []
    assert run(log_cluster, procedure(), pauses=pauses) == "done"
    assert pauses == [1, 2]
