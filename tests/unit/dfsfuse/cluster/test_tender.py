"""One look after the log at a time, without the thread."""

from __future__ import annotations

from itertools import pairwise

import pytest
from support.log_cluster import LogCluster

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import Position
from dfsfuse.cluster.log_state import Contents
from dfsfuse.cluster.procedures import ALL
from dfsfuse.cluster.quorum_log import QuorumLog
from dfsfuse.cluster.tender import RETRY_MAX_S, Tender


def parts(cluster: LogCluster) -> tuple[QuorumLog, Tender]:
    log = QuorumLog(cluster, client=b"client-1", clock=cluster.grid.clock)  # type: ignore[arg-type]
    return log, Tender(cluster, b"tender-1", lambda: log.known, cluster.grid.clock)  # type: ignore[arg-type]


def write(log: QuorumLog, count: int) -> None:
    for number in range(count):
        assert log.commit(Contents(puts=((b"key", b"%d" % number),)), lambda _news: False)


def test_a_server_that_was_away_is_brought_up_to_date(log_cluster: LogCluster) -> None:
    log, tender = parts(log_cluster)
    write(log, 1)
    log_cluster.down(4)
    write(log, 5)
    tender._tend()
    assert log_cluster.applied()[:3] == [6, 6, 6]
    assert tender._tended == {1, 2, 3}
    log_cluster.up(4)
    tender._tend()
    assert log_cluster.applied() == [6, 6, 6, 6]
    assert tender._tended == set(ALL)


def test_a_batch_that_stays_in_doubt_is_finished_at_the_second_look(log_cluster: LogCluster) -> None:
    log, tender = parts(log_cluster)
    write(log, 1)
    log.settle()
    writer = QuorumLog(log_cluster, client=b"client-2", clock=log_cluster.grid.clock)  # type: ignore[arg-type]
    write(writer, 1)  # nobody is told that it is chosen: its writer is gone
    assert log_cluster.applied().count(2) < 4
    log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
    tender._tend()
    tender._tend()
    assert log_cluster.applied().count(2) >= 3
    tender._tend()
    assert log_cluster.applied() == [2, 2, 2, 2]


def test_without_servers_it_waits_for_better_times(log_cluster: LogCluster) -> None:
    log, tender = parts(log_cluster)
    write(log, 2)
    log_cluster.down(1, 2, 3, 4)
    tender._tend()
    assert tender._tended == set()
    log_cluster.up(1, 2, 3, 4)
    tender._tend()
    assert log_cluster.applied() == [2, 2, 2, 2]


def test_closing_one_that_was_never_started_is_nothing(log_cluster: LogCluster) -> None:
    _, tender = parts(log_cluster)
    tender.close()


def test_the_thread_tends_when_it_is_woken_and_ends(log_cluster: LogCluster) -> None:
    log, tender = parts(log_cluster)
    write(log, 2)
    tender.start()
    tender.wake()
    tender.close()
    assert not tender._thread.is_alive()


def test_it_does_not_keep_what_nobody_asks_for(log_cluster: LogCluster) -> None:
    log, tender = parts(log_cluster)
    for number in range(3):
        write(log, 2)
        writer = QuorumLog(log_cluster, client=b"writer-%d" % number, clock=log_cluster.grid.clock)  # type: ignore[arg-type]
        log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
        write(writer, 1)
        for _ in range(2):
            log_cluster.grid.clock.wait_until(log_cluster.grid.clock() + 10.0)
            tender._tend()
        log.catch_up()
    assert tender._log.known.slot > 0
    assert not tender._log.news.changes


def test_who_was_interrupted_leaves_the_server_to_others_for_longer_and_longer(
    log_cluster: LogCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of the map ends another one to the same server: two tenders in turn would never be done."""
    _, tender = parts(log_cluster)
    clock = log_cluster.grid.clock
    positions = {server: Position(5 if server != 4 else 0, b"", ZERO) for server in ALL}
    tries: list[float] = []
    reached = 0

    def interrupted(_: object) -> int:
        tries.append(clock())
        return reached

    monkeypatch.setattr(tender, "_drive", interrupted)
    for _ in range(60):
        tender._bring_up_to_date(positions)
        clock.wait_until(clock() + 1.0)
    pauses = [later - earlier for earlier, later in pairwise(tries)]
    assert len(tries) < 10
    assert pauses == sorted(pauses)
    assert pauses[-1] > 10.0
    clock.wait_until(clock() + RETRY_MAX_S)
    reached = 5
    assert tender._bring_up_to_date(positions) == set(ALL)
    assert not tender._retry_at
