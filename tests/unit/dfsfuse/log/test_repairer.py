"""One pass over the log at a time, without the thread."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.daemons import eventually
from support.grid import Fault
from support.log_cluster import LogCluster

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import (
    BeginCopy,
    CopyItems,
    Done,
    EndCopy,
    Error,
    GetBatches,
    Position,
    ReadKeys,
    Values,
)
from dfs_server.protocol.status import Status
from dfs_server.store import log_table, overlay
from dfs_server.store.damage import DamagedMapError
from dfsfuse.common import worker
from dfsfuse.errors import MaybeDoneError
from dfsfuse.log import repair as log_repair
from dfsfuse.log.driving import SOFT_S
from dfsfuse.log.procedures import ALL
from dfsfuse.log.quorum_log import QuorumLog
from dfsfuse.log.repair import Passed
from dfsfuse.log.repairer import RETRY_MAX_S, Repairer
from dfsfuse.log.state import Contents


def parts(cluster: LogCluster) -> tuple[QuorumLog, Repairer]:
    log = QuorumLog(cluster, client=b"client-1", clock=cluster.grid.clock)  # type: ignore[arg-type]
    return log, Repairer(cluster, lambda: log.known, client=b"repairer", clock=cluster.grid.clock)  # type: ignore[arg-type]


def write(log: QuorumLog, count: int) -> None:
    for number in range(count):
        assert log.commit(Contents(puts=((b"key", b"%d" % number),)), lambda _news: False)


def test_a_server_that_was_away_is_brought_up_to_date(log_cluster: LogCluster) -> None:
    log, repairer = parts(log_cluster)
    write(log, 1)
    log_cluster.down(4)
    write(log, 5)
    repairer._look()
    assert log_cluster.applied()[:3] == [6, 6, 6]
    assert repairer._current == {1, 2, 3}
    log_cluster.up(4)
    repairer._look()
    assert log_cluster.applied() == [6, 6, 6, 6]
    assert repairer._current == set(ALL)


def test_slow_servers_are_brought_up_to_date_too(log_cluster: LogCluster) -> None:
    """Otherwise, on a link where every answer takes longer than the usual patience, no server ever would be."""
    log, repairer = parts(log_cluster)
    log_cluster.down(4)
    write(log, 5)
    log_cluster.up(4)
    for server in log_cluster.servers:
        server.latency_s = 2 * SOFT_S
    repairer._look()
    assert log_cluster.applied() == [5, 5, 5, 5]


def test_a_batch_that_stays_in_doubt_is_finished_at_the_second_look(log_cluster: LogCluster) -> None:
    log, repairer = parts(log_cluster)
    write(log, 1)
    log.settle()
    writer = QuorumLog(log_cluster, client=b"client-2", clock=log_cluster.grid.clock)  # type: ignore[arg-type]
    write(writer, 1)  # its writer is gone, and no server is told that it is chosen
    assert log_cluster.applied().count(2) < 4
    log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
    repairer._look()
    repairer._look()
    assert log_cluster.applied().count(2) >= 3
    repairer._look()
    assert log_cluster.applied() == [2, 2, 2, 2]


def test_without_servers_it_waits_for_better_times(log_cluster: LogCluster) -> None:
    log, repairer = parts(log_cluster)
    write(log, 2)
    log_cluster.down(1, 2, 3, 4)
    repairer._look()
    assert repairer._current == set()
    log_cluster.up(1, 2, 3, 4)
    repairer._look()
    assert log_cluster.applied() == [2, 2, 2, 2]


def test_closing_one_that_was_never_started_is_nothing(log_cluster: LogCluster) -> None:
    _, repairer = parts(log_cluster)
    repairer.close()


def test_the_thread_looks_when_it_is_woken_and_ends(log_cluster: LogCluster) -> None:
    log, repairer = parts(log_cluster)
    write(log, 2)
    repairer.start()
    repairer.wake()
    repairer.close()
    assert not repairer._thread.is_alive()


def test_an_unexpected_error_does_not_end_the_thread(log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    log, repairer = parts(log_cluster)
    write(log, 2)
    outcomes: list[str] = []
    look = repairer._look

    def fail_once() -> None:
        outcomes.append("asked")
        if len(outcomes) == 1:
            repairer.wake()
            raise ValueError("unexpected")
        look()

    monkeypatch.setattr(repairer, "_look", fail_once)
    monkeypatch.setattr(worker, "RETRY_S", 0.0)
    repairer.start()
    repairer.wake()
    eventually(lambda: len(outcomes) > 1 or not repairer._thread.is_alive())
    assert repairer._thread.is_alive()
    repairer.close()


def test_it_does_not_keep_what_is_not_requested(log_cluster: LogCluster) -> None:
    log, repairer = parts(log_cluster)
    for number in range(3):
        write(log, 2)
        writer = QuorumLog(log_cluster, client=b"writer-%d" % number, clock=log_cluster.grid.clock)  # type: ignore[arg-type]
        log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
        write(writer, 1)
        for _ in range(2):
            log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
            repairer._look()
        log.catch_up()
    assert repairer._log.known.slot > 0
    assert not repairer._log.news.changes


def test_a_server_that_cannot_be_helped_is_left_alone_for_longer_and_longer(
    log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading the whole map again and again for a copy that fails would be work for all servers."""
    _, repairer = parts(log_cluster)
    clock = log_cluster.grid.clock
    positions = {server: Position(5 if server != 4 else 0, b"", ZERO) for server in ALL}
    tries: list[float] = []
    reached = 0

    def interrupted(_: object) -> Passed:
        tries.append(clock())
        return Passed(reached)

    monkeypatch.setattr(repairer, "_drive", interrupted)
    for _ in range(60):
        repairer._bring_up_to_date(positions)
        clock.wait_until(clock() + 1.0)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) < 10
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10.0
    clock.wait_until(clock() + RETRY_MAX_S)
    reached = 5
    assert repairer._bring_up_to_date(positions) == set(ALL)
    assert not repairer._retry_at


# ------------------------------------------------------------------ copying the map


@pytest.fixture
def emptied(log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch) -> tuple[LogCluster, QuorumLog, Repairer]:
    """DFS4 has an empty disk and gets a copy of 250 records, one in each page."""
    monkeypatch.setattr(log_repair, "PAGE_ITEMS", 1)
    log, repairer = parts(log_cluster)
    assert log.commit(Contents(puts=tuple((b"k%03d" % number, b"v") for number in range(250))), lambda _news: False)
    log.settle()
    log_cluster.wipe(4)
    return log_cluster, log, repairer


def look_until_all_are_equal(cluster: LogCluster, repairer: Repairer, looks: int) -> None:
    for _ in range(looks):
        repairer._look()
        if len(set(cluster.applied())) == 1:
            return
        cluster.grid.clock.wait_until(cluster.grid.clock() + 1.0)
    raise AssertionError(f"{looks} looks, and the servers are at {cluster.applied()}")


def test_a_copy_of_the_map_takes_as_long_as_it_takes(emptied: tuple[LogCluster, QuorumLog, Repairer]) -> None:
    """Every page comes, if slowly: a large map may take an hour."""
    cluster, _, repairer = emptied
    for server in cluster.servers:
        server.latency_s = 0.25
    begun = cluster.grid.clock()
    look_until_all_are_equal(cluster, repairer, 250)
    assert cluster.grid.clock() - begun > 2 * 60.0, "a quick copy would prove nothing"
    assert len(cluster.grid.asked(BeginCopy)) == cluster.grid.asked(BeginCopy)[4] == 1
    reader = QuorumLog(cluster, client=b"client-3", clock=cluster.grid.clock)  # type: ignore[arg-type]
    cluster.down(1)
    assert reader.catch_up()
    for _ in range(4):
        assert reader.read_keys((b"k000", b"k249")).values == (b"v", b"v")


def test_between_two_pages_everything_else_is_looked_after(emptied: tuple[LogCluster, QuorumLog, Repairer]) -> None:
    """What is written meanwhile reaches a server that was away for a moment, and what its writer left in doubt is
    finished."""
    cluster, log, repairer = emptied
    cluster.grid[4].latency_s = 0.2
    repairer._look()
    assert repairer._copy is not None
    cluster.down(3)
    with pytest.raises(MaybeDoneError):
        write(log, 1)  # two servers have it, and the third that answers has half a copy
    cluster.up(3)
    for _ in range(3):
        cluster.grid.clock.wait_until(cluster.grid.clock() + 5.0)
        repairer._look()
    assert cluster.applied() == [2, 2, 2, 0]
    assert repairer._copy is not None
    look_until_all_are_equal(cluster, repairer, 100)
    assert cluster.grid.asked(BeginCopy) == {4: 1}


def test_a_copy_goes_on_when_the_server_dies_that_it_was_read_from(
    emptied: tuple[LogCluster, QuorumLog, Repairer],
) -> None:
    cluster, _, repairer = emptied
    cluster.grid[4].latency_s = 0.2
    repairer._look()
    assert repairer._copy is not None
    cluster.grid[1].fault = Fault.HANG
    begun = cluster.grid.clock()
    while cluster.applied()[3] < 1:
        repairer._look()
    assert cluster.grid.clock() - begun < 100.0, "a hanging server is waited for once, not for each page"
    assert cluster.grid.asked(BeginCopy) == {4: 1}


def test_a_copy_that_another_client_makes_is_left_alone_and_taken_over_when_it_stops(
    emptied: tuple[LogCluster, QuorumLog, Repairer],
) -> None:
    cluster, _, repairer = emptied
    store = cluster.servers[3].store
    assert store.handle(BeginCopy(b"others", 1, b"d" * 32)) == Done()
    for number in range(10):
        cluster.grid.clock.wait_until(cluster.grid.clock() + 4.0)
        repairer._look()
        assert store.handle(CopyItems(b"others", ((b"k%d" % number, b"v"),))) == Done()
    assert repairer._copy is None
    look_until_all_are_equal(cluster, repairer, 15)


def test_a_copy_that_fails_is_begun_again(emptied: tuple[LogCluster, QuorumLog, Repairer]) -> None:
    cluster, _, repairer = emptied
    cluster.grid[4].latency_s = 0.2
    repairer._look()
    cluster.grid[4].fault = Fault.BROKEN_DISK
    repairer._look()
    assert repairer._copy is None
    cluster.grid[4].fault = Fault.NONE
    cluster.grid[4].latency_s = 0.001
    look_until_all_are_equal(cluster, repairer, 20)
    assert cluster.grid.asked(EndCopy) == {4: 1}


def test_what_is_written_during_a_copy_is_not_trimmed_before_it_is_passed_on(
    emptied: tuple[LogCluster, QuorumLog, Repairer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a copy that takes longer than the log reaches back would be useless, and so would the next one."""
    monkeypatch.setattr(log_table, "KEEP_BATCHES", 20)
    monkeypatch.setattr(log_table, "TRIM_STEP", 5)
    monkeypatch.setattr(overlay, "MAX_BATCHES", 1)
    cluster, log, repairer = emptied
    cluster.grid[4].latency_s = 0.2
    for _ in range(200):
        repairer._look()
        if cluster.applied()[3]:
            break
        write(log, 5)
        log.settle()
    look_until_all_are_equal(cluster, repairer, 5)
    assert cluster.grid.asked(BeginCopy) == {4: 1}
    assert cluster.applied()[3] > 100
    cluster.grid.clock.wait_until(cluster.grid.clock() + 60.0)
    write(log, 30)
    first = cluster.servers[0].store.handle(GetBatches(100))
    assert isinstance(first, Error), "afterwards the log is trimmed again"
    assert first.status == Status.TRIMMED


def test_a_server_whose_map_is_damaged_gets_a_copy_though_its_log_is_up_to_date(
    emptied: tuple[LogCluster, QuorumLog, Repairer],
) -> None:
    cluster, log, repairer = emptied
    look_until_all_are_equal(cluster, repairer, 5)
    write(log, 3)
    log.settle()
    repairer._look()
    damaged = cluster.servers[1].store
    damaged.found(DamagedMapError("a row is not what was written"))
    repairer._look()
    repairer._look()
    assert repairer._current == set(ALL)
    assert not damaged.damage.map
    reply = damaged.handle(ReadKeys(log.known.slot, log.known.digest, (b"k249", b"key")))
    assert reply == Values(log.known.slot, (b"v", b"2"))


def test_without_an_undamaged_map_there_is_no_copy_and_the_logs_go_on(
    emptied: tuple[LogCluster, QuorumLog, Repairer],
) -> None:
    cluster, log, repairer = emptied
    look_until_all_are_equal(cluster, repairer, 5)
    cluster.down(3)
    write(log, 3)
    log.settle()
    cluster.up(3)
    for server in cluster.servers:
        server.store.found(DamagedMapError("a row is not what was written"))
    cluster.grid.forget_requests()
    for _ in range(10):
        cluster.grid.clock.wait_until(cluster.grid.clock() + 10.0)
        repairer._look()
    assert not cluster.grid.asked(BeginCopy)
    assert repairer._current == set()
    assert len(set(cluster.applied())) == 1, "batches come from the logs, which are whole"


def test_closing_does_not_wait_for_a_copy(emptied: tuple[LogCluster, QuorumLog, Repairer]) -> None:
    cluster, _, repairer = emptied
    repairer.close()
    repairer._look()
    assert cluster.grid.asked(CopyItems) == {4: 1}, "one page, and no more"
