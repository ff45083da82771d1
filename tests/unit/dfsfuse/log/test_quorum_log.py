"""Two clients of one log, driven over four servers in virtual time. The log's rules are tested in
tests/simulation; these tests are about the client that is built on them."""

from __future__ import annotations

import errno

import pytest
from support.grid import Fault
from support.log_cluster import LogCluster, log_of, never, put

from dfs_server.protocol.messages import Items, ReadKeys, ReadRange
from dfsfuse.errors import MaybeDoneError, NoSpaceError, ReadOnlyError, UnavailableError
from dfsfuse.log.driving import SOFT_S


def test_another_client_reads_what_is_committed_and_learns_which_keys_changed(log_cluster: LogCluster) -> None:
    writer, reader = log_of(log_cluster), log_of(log_cluster, b"client-2")
    assert writer.commit(put(c="0"), never)
    assert reader.catch_up()
    reader.take_news()
    assert writer.commit(put(a="1", b="2"), never)
    assert writer.known.slot == 2
    assert reader.catch_up()
    assert [change.keys for change in reader.take_news().changes] == [(b"a", b"b")]
    assert reader.take_news().changes == []
    assert reader.read_keys((b"b", b"d")).values == (b"2", None)
    page = reader.read_range(b"a", b"z", 1)
    assert (page.items, page.more) == (((b"a", b"1"),), True)


def test_a_conflict_with_what_others_did_is_the_callers_to_see(log_cluster: LogCluster) -> None:
    one, other = log_of(log_cluster), log_of(log_cluster, b"client-2")
    assert one.commit(put(a="1"), never)
    assert not other.commit(put(a="2"), lambda news: any(b"a" in change.keys for change in news.changes))
    assert other.commit(put(a="2"), never)
    assert one.catch_up()
    assert one.read_keys((b"a",)).values == (b"2",)


def test_one_server_less_is_no_harm_and_two_are_refused_before_anything_is_sent(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    log_cluster.down(4)
    assert log.writable()
    assert log.commit(put(a="1"), never)
    log_cluster.down(3)
    log_cluster.grid.forget_requests()
    assert not log.writable()
    with pytest.raises(ReadOnlyError, match="only 2 of 4"):
        log.commit(put(a="2"), never)
    assert all(server.asked == [] for server in log_cluster.servers)
    assert log.read_keys((b"a",)).values == (b"1",)
    log_cluster.down(1, 2)
    with pytest.raises(UnavailableError):
        log.catch_up()


def test_when_a_server_dies_just_after_another_came_back_the_commit_waits_for_that_one(log_cluster: LogCluster) -> None:
    """What was sent may or may not be chosen: giving up at once would be an error with only one server missing."""
    log = log_of(log_cluster)
    log_cluster.down(3)
    assert log.commit(put(a="1"), never)
    back_at = log_cluster.grid.clock() + 0.6

    def while_waiting() -> None:
        if log_cluster.grid.clock() >= back_at:
            log_cluster.up(3)

    log_cluster.while_waiting = while_waiting
    log_cluster.grid[4].dies_after = 0
    assert log.commit(put(a="2"), never)
    assert log.read_keys((b"a",)).values == (b"2",)


def test_a_commit_waits_no_longer_than_a_second_for_servers_that_are_gone(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    log_cluster.grid[3].dies_after = log_cluster.grid[4].dies_after = 0
    begun = log_cluster.grid.clock()
    with pytest.raises(MaybeDoneError, match="only 2 of 4"):
        log.commit(put(a="2"), never)
    assert 0.5 < log_cluster.grid.clock() - begun < 1.0


def test_a_hanging_server_is_not_waited_for_when_three_have_answered(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    log_cluster.grid[2].fault = Fault.HANG
    begun = log_cluster.grid.clock()
    assert log.commit(put(a="1"), never)
    assert log_cluster.grid.clock() - begun < 1.0


def test_a_client_knows_whether_it_has_the_lease_and_whether_another_waits_for_it(log_cluster: LogCluster) -> None:
    log, other = log_of(log_cluster), log_of(log_cluster, b"client-2")
    assert log.commit(put(a="1"), never)
    assert not log.state.leased, "the lease was not requested"
    log.want_lease()
    assert log.commit(put(a="2"), never)
    assert (log.state.leased, log.state.wanted, log.state.recalled) == (True, False, False)
    with pytest.raises(UnavailableError, match="another client"):
        other.lead()
    assert log.commit(put(a="3"), never)
    assert (log.state.leased, log.state.wanted) == (True, True)
    log.settle()
    assert log_cluster.applied().count(3) >= 3
    terms = log.state.terms
    assert log.commit(put(a="4"), never)
    assert (log.state.wanted, log.state.terms) == (False, terms), "it has released the lease, and is still the writer"


def test_each_time_that_a_client_becomes_the_writer_is_a_term(log_cluster: LogCluster) -> None:
    one, other = log_of(log_cluster), log_of(log_cluster, b"client-2")
    for term in (1, 2):
        for log in (one, other):
            assert log.commit(put(a="1"), never)
            assert log.state.terms == term


@pytest.mark.parametrize("away", [None, 1])
def test_a_server_with_an_old_state_is_not_believed(log_cluster: LogCluster, away: int | None) -> None:
    """Its folder was restored from a backup: it has forgotten what it accepted since."""
    log = log_of(log_cluster)
    server = log_cluster.servers[1]
    assert log.commit(put(a="old"), never)
    log.settle()
    with server.put_back_later():
        assert log.commit(put(a="new"), never)
        log.settle()
    assert log_cluster.applied()[1] < max(log_cluster.applied())
    if away:
        log_cluster.down(away)
    reader = log_of(log_cluster, b"client-2")
    assert reader.catch_up()
    for _ in range(4):
        assert reader.read_keys((b"a",)).values == (b"new",)
    reader.take_news()
    assert reader.commit(put(b="newer"), never)
    assert log.catch_up()
    assert log.read_keys((b"a", b"b")).values == (b"new", b"newer")


def test_disks_full_to_the_last_refuse_changes_and_leave_reading(log_cluster: LogCluster) -> None:
    """A batch that two of the servers have accepted can be neither finished nor replaced until there is room again."""
    log = log_of(log_cluster)
    assert log.commit(put(a="1"), never)
    log.settle()
    for number in (3, 4):
        log_cluster.grid[number].fault = Fault.FULL
    with pytest.raises(MaybeDoneError, match="full to the last") as raised:
        log.commit(put(a="2"), never)
    assert raised.value.errno == errno.ENOSPC
    with pytest.raises(NoSpaceError):
        log.commit(put(a="3"), never)
    reader = log_of(log_cluster, b"client-2")
    begun = log_cluster.grid.clock()
    reader.catch_up()
    assert reader.read_keys((b"a",)).values[0] in (b"1", b"2")
    assert log_cluster.grid.clock() - begun < 1.0
    for number in (3, 4):
        log_cluster.grid[number].fault = Fault.NONE
    assert reader.commit(put(b="1"), never), "there is room again"
    assert reader.read_keys((b"a",)).values[0] in (b"1", b"2")
    assert log.commit(put(a="4"), never)


def test_whether_what_is_left_of_the_servers_shows_all_that_was_acknowledged(log_cluster: LogCluster) -> None:
    log, reader = log_of(log_cluster), log_of(log_cluster, b"client-2")
    log_cluster.down(4)
    assert log.commit(put(a="1"), never)
    log_cluster.up(4)
    log_cluster.down(1, 2)
    assert not reader.catch_up()
    assert reader.witnesses == frozenset(), "DFS3 holds a batch and does not know that it is chosen"
    log_cluster.up(1, 2)
    assert reader.catch_up()
    assert reader.witnesses == frozenset()
    log.settle()
    log_cluster.down(1, 2)
    assert not reader.catch_up()
    assert reader.witnesses == {3, 4}
    assert reader.read_keys((b"a",)).values == (b"1",)
    log_cluster.down(3)
    assert not reader.catch_up()
    assert reader.witnesses == frozenset(), "DFS4 alone has missed the batch"


def test_a_page_that_arrives_slowly_is_fetched_once(log_cluster: LogCluster) -> None:
    log = log_of(log_cluster)
    assert log.commit(put(a="0"), never)
    for server in log_cluster.servers:
        server.latency_s, server.trickles = 5 * SOFT_S, True
    log_cluster.grid.forget_requests()
    request = ReadRange(0, b"", b"a", b"b", 5000)
    assert isinstance(log.read_beside(request), Items)
    assert isinstance(log.catch_up_and_read(request, recall=True)[1], Items)
    assert sum(log_cluster.grid.asked(ReadRange).values()) == 2
    assert not log.state.spared.now()


def test_a_server_that_was_slow_once_still_tells_where_the_log_ends_while_two_are_gone(log_cluster: LogCluster) -> None:
    """Otherwise a mount that shows no old states would fail for as long as that server is spared."""
    log = log_of(log_cluster)
    assert log.commit(put(a="0"), never)
    log.settle()
    log_cluster.down(3, 4)
    assert not log.catch_up()
    assert log.witnesses == {1, 2}
    for number, latency_s in ((1, 0.5), (2, 0.5)):
        log_cluster.grid[number].latency_s = latency_s
    log.read_beside(ReadKeys(log.known.slot, log.known.digest, (b"a",)))
    for number in (1, 2):
        log_cluster.grid[number].latency_s = 0.001
    assert log.state.spared.now()
    assert not log.catch_up()
    assert log.witnesses == {1, 2}
    assert not log.state.spared.now(), "an answer ends the sparing"
