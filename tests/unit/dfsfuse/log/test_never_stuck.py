"""A hanging server costs one short wait: every step of the log, in virtual time, with four servers.

One server hangs and no client knows it yet (SIGSTOP a moment ago), and another is behind because it was away: all three
servers that answer are needed, and one of them must be brought up to date first.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.grid import Fault, VirtualClock
from support.log_cluster import LogCluster, LogServer, log_of, never, put

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import (
    Accept,
    BeginCopy,
    Error,
    GetPosition,
    Message,
    Position,
    Promise,
    ReadKeys,
    Refused,
    Values,
)
from dfs_server.protocol.status import Status
from dfsfuse.errors import MaybeDoneError, ReadOnlyError, UnavailableError
from dfsfuse.log.driving import SOFT_S
from dfsfuse.log.procedures import Event
from dfsfuse.log.quorum_log import DEADLINE_S, QuorumLog
from dfsfuse.log.rounds import first_of
from dfsfuse.log.state import LogState
from dfsfuse.net.health.server import FIRST_SPARED_S
from dfsfuse.net.health.slowness import SLOW_S
from dfsfuse.net.stalls import LOG_S

ONE_HANGS_S = 1.0
TWO_HANG_S = 5.0
BEHIND_AND_HANGING = [(1, 2), (2, 1), (3, 4), (4, 2)]


def took(cluster: LogCluster, work: Callable[[], object]) -> float:
    begun = cluster.grid.clock()
    work()
    return cluster.grid.clock() - begun


def one_behind(cluster: LogCluster, behind: int) -> QuorumLog:
    """The writer of two batches that `behind` lacks. No server knows yet that the second one is chosen."""
    log = log_of(cluster)
    assert log.commit(put(a="0"), never)
    cluster.down(behind)
    assert log.commit(put(a="1"), never)
    assert log.commit(put(a="2"), never)
    cluster.up(behind)
    return log


@pytest.mark.parametrize(("behind", "hanging"), BEHIND_AND_HANGING)
def test_the_writer_goes_on(log_cluster: LogCluster, behind: int, hanging: int) -> None:
    log = one_behind(log_cluster, behind)
    log_cluster.grid[hanging].fault = Fault.HANG
    assert took(log_cluster, lambda: log.commit(put(a="3"), never)) < ONE_HANGS_S
    assert took(log_cluster, log.settle) < ONE_HANGS_S
    for value in range(4, 9):
        assert took(log_cluster, lambda value=value: log.commit(put(a=str(value)), never)) < SOFT_S
    assert log.read_keys((b"a",)).values == (b"8",)


@pytest.mark.parametrize(("behind", "hanging"), BEHIND_AND_HANGING)
def test_another_client_reads_what_is_in_doubt_and_takes_over(
    log_cluster: LogCluster, behind: int, hanging: int
) -> None:
    """Only two of the three that answer have the last batch: it is in doubt until a client finishes it."""
    one_behind(log_cluster, behind)
    log_cluster.grid[hanging].fault = Fault.HANG
    other = log_of(log_cluster, b"client-2")

    def work() -> None:
        assert other.catch_up()
        assert other.read_keys((b"a",)).values == (b"2",)
        assert other.commit(put(a="3"), never)

    assert took(log_cluster, work) < ONE_HANGS_S


@pytest.mark.parametrize("hanging", [1, 2, 3, 4])
def test_what_is_read_beside_the_log_waits_for_a_server_that_hangs_once(log_cluster: LogCluster, hanging: int) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(a="0"), never)
    request = ReadKeys(log.known.slot, log.known.digest, (b"a",))
    log_cluster.grid[hanging].fault = Fault.HANG
    found: list[object] = []
    assert took(log_cluster, lambda: found.extend(log.read_beside(request) for _ in range(8))) < ONE_HANGS_S
    told = [reply.values for reply in found if isinstance(reply, Values)]
    assert told == [(b"0",)] * len(told)
    assert len(told) >= 7
    log = log_of(log_cluster, b"client-2")
    assert took(log_cluster, lambda: [log.catch_up_and_read(request, recall=True) for _ in range(8)]) < ONE_HANGS_S


@pytest.mark.parametrize("hanging", [1, 4])
def test_a_writer_that_pauses_waits_once_for_a_hanging_server_and_not_at_each_pause(
    log_cluster: LogCluster, hanging: int
) -> None:
    log = log_of(log_cluster)
    log.want_lease()
    assert log.commit(put(a="0"), never)
    log_cluster.grid[hanging].fault = Fault.HANG

    def write_with_pauses() -> None:
        for value in range(20):
            assert log.commit(put(a=str(value)), never)
            log.settle()

    assert took(log_cluster, write_with_pauses) < ONE_HANGS_S


@pytest.mark.parametrize("hanging", [2, 4])
def test_until_its_circuit_opens_a_server_that_hangs_is_waited_for_once(log_cluster: LogCluster, hanging: int) -> None:
    log = log_of(log_cluster)
    log.want_lease()
    assert log.commit(put(a="0"), never)
    log.settle()
    log_cluster.grid[hanging].fault = Fault.HANG
    opens_at = log_cluster.grid.clock() + LOG_S
    waited: list[float] = []
    while log_cluster.grid.clock() < opens_at:

        def work() -> None:
            assert log.catch_up()
            log.read_keys((b"a",))
            assert log.commit(put(a="1"), never)
            log.settle()

        waited.append(took(log_cluster, work))
        log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 0.1)
    assert sum(seconds >= SOFT_S for seconds in waited) <= 1, waited


@pytest.mark.parametrize("astray", [1, 4])
def test_a_server_that_promised_another_client_does_not_end_a_lease_given_by_three(
    log_cluster: LogCluster, astray: int
) -> None:
    """A server that was away or is behind gives no lease and promises to any client; the holder of the lease goes
    on."""
    log = log_of(log_cluster)
    log.want_lease()
    log_cluster.down(astray)
    assert log.commit(put(a="0"), never)
    log.settle()
    log_cluster.up(astray)
    assert log.commit(put(a="1"), never)
    for value in range(2, 6):
        higher = log.state.highest.above(b"client-2")
        promised = log_cluster.servers[astray - 1].store.handle(Promise(higher))
        if isinstance(promised, Refused):
            log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + promised.wait_ms / 1000)
            log_cluster.servers[astray - 1].store.handle(Promise(higher))
        log_cluster.grid.forget_requests()
        assert log.commit(put(a=str(value)), never)
        assert not log_cluster.grid.asked(Promise), "the three others accept it, so no promise is needed"


@pytest.mark.parametrize("slow", [2, 3])
def test_one_server_that_gets_slower_and_slower_does_not_raise_the_patience(log_cluster: LogCluster, slow: int) -> None:
    """It may be copying a map, or its disk is busy: what is usual is what the others do."""
    log = log_of(log_cluster)
    log.want_lease()
    for tenths in range(1, 30):
        log_cluster.grid[slow].latency_s = tenths / 10

        def write() -> None:
            assert log.commit(put(a="1"), never)
            log.settle()
            assert log.catch_up()

        assert took(log_cluster, write) < SOFT_S, tenths
    log_cluster.grid[slow].fault = Fault.HANG
    log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + FIRST_SPARED_S)
    assert took(log_cluster, lambda: [log.read_keys((b"a",)) for _ in range(4)]) < ONE_HANGS_S


@pytest.mark.parametrize("hanging", [1, 4])
def test_a_read_is_hedged_and_the_next_ones_spare_the_server(log_cluster: LogCluster, hanging: int) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(**{f"k{number}": str(number) for number in range(20)}), never)
    log.settle()
    log_cluster.grid[hanging].fault = Fault.HANG

    def read_all() -> None:
        for number in range(20):
            assert log.read_keys((b"k%d" % number,)).values == (b"%d" % number,)

    assert took(log_cluster, read_all) < ONE_HANGS_S
    log_cluster.grid[hanging].fault = Fault.NONE
    log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + FIRST_SPARED_S)
    log_cluster.grid.forget_requests()
    read_all()
    assert set(log_cluster.grid.asked(ReadKeys)) == {1, 2, 3, 4}, "after a while the server is asked again"


@pytest.mark.parametrize("hanging", [1, 4])
def test_a_client_with_much_to_learn_does_not_wait_for_a_server_that_hangs_meanwhile(
    log_cluster: LogCluster, hanging: int
) -> None:
    reader, writer = log_of(log_cluster, b"client-2"), log_of(log_cluster)
    assert writer.commit(put(a="0"), never)
    assert reader.catch_up()
    assert writer.commit(put(a="1"), never)
    writer.settle()

    def hangs_after_its_position(_request: object) -> None:
        log_cluster.grid[hanging].fault = Fault.HANG

    log_cluster.grid[hanging].before_answer = hangs_after_its_position
    assert took(log_cluster, reader.catch_up) < ONE_HANGS_S
    assert reader.read_keys((b"a",)).values == (b"1",)


def test_a_slow_network_is_no_hanging_server(log_cluster: LogCluster) -> None:
    """Everything takes longer than the usual patience: requests are soon no longer repeated in vain, and nothing
    fails."""
    for server in log_cluster.servers:
        server.latency_s = 2 * SOFT_S
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    log.settle()
    for _ in range(10):
        assert log.read_keys((b"a",)).values == (b"1",)
    log_cluster.grid.forget_requests()
    took_s = took(log_cluster, lambda: log.read_keys((b"a",)))
    asked = sum(log_cluster.grid.asked(ReadKeys).values())
    assert took_s == pytest.approx(asked * 2 * SOFT_S), "one after another, none in vain (one may be behind)"


def test_another_writers_lease_is_respected_without_waiting_for_a_hanging_server(log_cluster: LogCluster) -> None:
    holder = log_of(log_cluster)
    holder.want_lease()
    assert holder.commit(put(a="1"), never)
    log_cluster.grid[3].fault = Fault.HANG
    other = log_of(log_cluster, b"client-2")
    pauses: list[float] = []

    def wait_for_the_lease(_attempt: int) -> None:
        pauses.append(log_cluster.grid.clock())
        if len(pauses) == 2:
            holder.settle()

    other._pause = wait_for_the_lease  # type: ignore[method-assign]
    assert took(log_cluster, lambda: other.commit(put(a="2"), never)) < ONE_HANGS_S
    assert len(pauses) >= 2


@pytest.mark.parametrize("hanging", [(1, 2), (4, 1), (2, 4)])
def test_two_that_hang_refuse_writing_within_five_seconds_and_leave_reading(
    log_cluster: LogCluster, hanging: tuple[int, int]
) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    log.settle()
    for server in hanging:
        log_cluster.grid[server].fault = Fault.HANG

    def write() -> None:
        with pytest.raises((ReadOnlyError, MaybeDoneError)):
            log.commit(put(a="2"), never)

    assert LOG_S <= took(log_cluster, write) < TWO_HANG_S
    with pytest.raises(ReadOnlyError):
        log.commit(put(a="3"), never)
    reader = log_of(log_cluster, b"client-2")
    assert took(log_cluster, lambda: reader.catch_up() or reader.read_keys((b"a",))) < ONE_HANGS_S


def test_while_the_third_server_needs_a_copy_of_the_map_writing_is_refused_at_once(log_cluster: LogCluster) -> None:
    """A copy may take minutes and is the repairer's job: a writer that began its own would abort that one, or fail
    late."""
    writer, other = log_of(log_cluster), log_of(log_cluster, b"client-2")
    assert writer.commit(put(a="1"), never)
    assert writer.commit(put(a="2"), never)
    writer.settle()
    log_cluster.wipe(3)
    log_cluster.grid[4].fault = Fault.HANG
    log_cluster.grid.forget_requests()

    def refused() -> None:
        with pytest.raises(ReadOnlyError, match="up to date"):
            other.commit(put(a="3"), never)

    assert took(log_cluster, refused) < TWO_HANG_S
    assert took(log_cluster, refused) < 2 * ONE_HANGS_S
    assert not log_cluster.grid.asked(Accept), "nothing is in doubt, since nothing was sent"

    def doubtful() -> None:
        with pytest.raises(MaybeDoneError):
            writer.commit(put(a="4"), never)

    assert took(log_cluster, doubtful) < TWO_HANG_S
    assert max(log_cluster.grid.asked(Accept).values()) < 10
    assert not log_cluster.grid.asked(BeginCopy)
    assert writer.catch_up() or writer.read_keys((b"a",)).values
    log_cluster.grid[4].fault = Fault.NONE
    log_cluster.notice_up(4)
    assert other.commit(put(b="5"), never)
    assert other.read_keys((b"b",)).values == (b"5",)


class RefusingServer(LogServer):
    """A server whose log has diverged, for example: it can promise, but accepts nothing."""

    def answer(self, request: Message, payload: bytes) -> tuple[Message, bytes]:
        if isinstance(request, Accept):
            self.asked.append(request)
            return Error(Status.DIVERGED, "another log"), b""
        return super().answer(request, payload)


@pytest.mark.parametrize("refusing", [(3,), (1, 2, 3)])
def test_servers_that_promise_and_accept_nothing_are_not_asked_for_ever(
    log_cluster: LogCluster, refusing: tuple[int, ...]
) -> None:
    """A third server is gone. A batch accepted by two is found unfinished; one accepted by none is proposed again."""
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    log.settle()
    log_cluster.down(4)
    for server in refusing:
        log_cluster.grid[server].__class__ = RefusingServer

    def write() -> None:
        with pytest.raises((ReadOnlyError, MaybeDoneError)):
            log.commit(put(a="2"), never)

    log_cluster.grid.forget_requests()
    for _ in range(2):
        assert took(log_cluster, write) < TWO_HANG_S
    assert max(log_cluster.grid.asked(Accept).values()) < 20


def test_a_server_that_only_lacks_batches_is_helped_before_anything_is_proposed(log_cluster: LogCluster) -> None:
    """The client does not have these batches in memory, and the fourth server is gone."""
    assert one_behind(log_cluster, 2)
    log_cluster.down(4)
    other = log_of(log_cluster, b"client-2")
    log_cluster.grid.forget_requests()
    assert took(log_cluster, lambda: other.commit(put(a="3"), never)) < ONE_HANGS_S
    assert log_cluster.grid.asked(Accept)[2] <= 2, "the unfinished batch, and the new one"
    assert other.read_keys((b"a",)).values == (b"3",)


@pytest.mark.parametrize(("far_behind", "slow"), [(1, 2), (2, 1), (4, 3)])
@pytest.mark.parametrize("fault", [Fault.DOWN, Fault.HANG])
def test_a_client_that_has_just_started_does_not_take_an_old_state_for_the_newest(
    log_cluster: LogCluster, far_behind: int, slow: int, fault: Fault
) -> None:
    """Of the two servers that are left, one has missed everything, and the other takes a second to answer."""
    log = log_of(log_cluster)
    log_cluster.down(far_behind)
    assert log.commit(put(a="1"), never)
    log.settle()
    log_cluster.up(far_behind)
    log_cluster.grid[slow].latency_s = 1.0
    for server in {1, 2, 3, 4} - {far_behind, slow}:
        log_cluster.grid[server].fault = fault
    reader = log_of(log_cluster, b"client-2")

    def look() -> None:
        assert not reader.catch_up()
        assert reader.read_keys((b"a",)).values == (b"1",)

    assert took(log_cluster, look) < TWO_HANG_S


def test_all_hang_and_everything_ends(log_cluster: LogCluster) -> None:
    """They seem to be slow together, so they are waited for: once, and not forever."""
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    for server in log_cluster.servers:
        server.fault = Fault.HANG

    def look() -> None:
        with pytest.raises(UnavailableError):
            log.catch_up()

    assert SLOW_S <= took(log_cluster, look) < SLOW_S + LOG_S
    assert took(log_cluster, look) < ONE_HANGS_S
    assert took(log_cluster, log.settle) < ONE_HANGS_S
    with pytest.raises(ReadOnlyError):
        log.commit(put(a="2"), never)


def thaw_later(cluster: LogCluster, servers: tuple[int, ...], after_s: float) -> None:
    """Make these servers hang, and go on after `after_s`."""
    clock = cluster.grid.clock
    thawed_at = clock() + after_s
    for server in servers:
        cluster.grid[server].fault = Fault.HANG

    def wait_and_thaw(when: float) -> None:
        VirtualClock.wait_until(clock, when)
        if clock() >= thawed_at:
            for server in servers:
                cluster.grid[server].fault = Fault.NONE

    clock.wait_until = wait_and_thaw  # type: ignore[method-assign]


@pytest.mark.parametrize("slow", [(1, 2, 3, 4), (2, 3, 4)])
@pytest.mark.parametrize("stall_s", [2 * LOG_S, DEADLINE_S + LOG_S, SLOW_S - LOG_S])
def test_servers_that_are_slow_together_are_waited_for(
    log_cluster: LogCluster, slow: tuple[int, ...], stall_s: float
) -> None:
    """The machine stalls: what was sent is committed when it goes on, and no failure is reported."""
    log = log_of(log_cluster)
    log.want_lease()
    assert log.commit(put(a="0"), never)
    for value in range(1, 4):
        thaw_later(log_cluster, slow, stall_s)
        assert stall_s <= took(log_cluster, lambda value=value: log.commit(put(a=str(value)), never)) < stall_s + 1.0
        thaw_later(log_cluster, slow, stall_s)
        assert stall_s <= took(log_cluster, log.catch_up) < stall_s + 1.0
        assert log.read_keys((b"a",)).values == (b"%d" % value,)
    assert log_cluster.usable() == {1, 2, 3, 4}


def test_of_servers_that_are_slow_together_one_may_be_gone_for_long(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(a="0"), never)
    log_cluster.down(2)
    thaw_later(log_cluster, (1, 3, 4), 3 * LOG_S)
    assert took(log_cluster, lambda: log.commit(put(a="1"), never)) < 3 * LOG_S + 1.0
    assert log.read_keys((b"a",)).values == (b"1",)


def test_what_one_reader_of_a_client_has_waited_for_the_next_one_spares(log_cluster: LogCluster) -> None:
    """A mount's healer, its sweep and everything else that bypasses its cache have their own views of the log."""
    first, second = (QuorumLog(log_cluster, clock=log_cluster.grid.clock) for _ in range(2))  # type: ignore[arg-type]
    assert first.commit(put(a="0"), never)
    first.settle()
    log_cluster.grid[1].fault = Fault.HANG

    def read(log: QuorumLog) -> None:
        for _ in range(4):
            assert log.read_keys((b"a",)).values == (b"0",)

    assert second.catch_up()
    assert took(log_cluster, lambda: read(first)) >= SOFT_S
    assert took(log_cluster, lambda: read(second)) < SOFT_S


def test_each_server_is_spared_by_itself(log_cluster: LogCluster) -> None:
    """A server that lags later does not extend the time for which others are spared."""
    log = log_of(log_cluster)
    assert log.commit(put(a="0"), never)
    log.settle()
    clock = log_cluster.grid.clock
    log.state.spared.lagged((1,))
    clock.wait_until(clock() + FIRST_SPARED_S / 2)
    log.state.spared.lagged((2,))
    clock.wait_until(clock() + FIRST_SPARED_S / 2)
    assert log.state.spared.now() == {2}


@pytest.mark.parametrize(
    ("reply", "status", "spared"),
    [(None, None, {2}), (None, Status.IO_ERROR, set()), (Position(0, b"", ZERO), None, set())],
)
def test_an_answer_ends_the_sparing_if_only_an_error_and_that_it_is_down_does_not(
    reply: Position | None, status: Status | None, spared: set[int]
) -> None:
    log = LogState(b"client-1")
    log.spared.lagged((2,))
    asking = first_of(log, (2,), GetPosition())
    next(asking)  # ask
    next(asking)  # receive
    with pytest.raises(StopIteration):
        asking.send(Event(2, reply, "", status))
    assert log.spared.now() == spared
