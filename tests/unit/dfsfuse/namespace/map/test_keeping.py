"""With `wait_s`: answered changes are kept while too few servers answer; a doubt is resolved as soon as enough do."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.clock import Clock
from support.fake_log import FakeLog, SharedLog, answer_early, family_of
from support.log_cluster import LogCluster, log_of

from dfs_server.protocol.messages import Change
from dfsfuse.errors import LostError, MaybeDoneError, ReadOnlyError, UnavailableError
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.transactions import Transaction
from dfsfuse.namespace.records import keys

WAIT_S = 60.0


@pytest.fixture
def waiting(log: FakeLog, clock: Clock) -> LogMap:
    """A map whose client has the lease."""
    store = LogMap(log, family_of, clock, clock.sleep, wait_s=WAIT_S)  # type: ignore[arg-type]
    log.gives_lease = True
    answer_early(store)
    store.transact(lambda tx: tx.put(b"first", b"x"))
    return store


def refuse(log: FakeLog, error: Exception, times: int = 4) -> None:
    """Make the next commits fail with this error."""

    def fail() -> None:
        raise error

    log.before_commit.extend([fail] * times)


def doubt(sequence: int) -> MaybeDoneError:
    error = MaybeDoneError("no answer")
    error.sequence = sequence
    return error


def test_what_was_answered_is_kept_until_there_is_a_quorum(waiting: LogMap, log: FakeLog, shared: SharedLog) -> None:
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, ReadOnlyError("only two servers answer"), times=20)
    for _ in range(10):
        assert waiting.run(waiting.worker.commit_waiting())
    assert waiting.read(lambda view: view.get(b"a")) == b"1", "reading goes on, with what was answered"
    for durable in (True, False):
        with pytest.raises(ReadOnlyError):
            waiting.transact(lambda tx: tx.put(b"b", b"1"), durable=durable)
    with pytest.raises(ReadOnlyError):
        waiting.flush()
    log.before_commit.clear()
    assert not waiting.run(waiting.worker.commit_waiting())
    waiting.flush()
    assert shared.map[b"a"] == b"1"
    assert b"b" not in shared.map, "a refused change has no effect"


def test_after_its_time_it_is_lost_and_told(waiting: LogMap, log: FakeLog, clock: Clock) -> None:
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, ReadOnlyError("only two servers answer"), times=1000)
    begun = clock()
    while waiting.run(waiting.worker.commit_waiting()):
        assert clock() < begun + WAIT_S + 2.0
    assert clock() >= begun + WAIT_S
    with pytest.raises(LostError):
        waiting.flush()
    waiting.flush()


def test_a_wait_for_durability_goes_on_and_nothing_is_done_twice(
    waiting: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    refuse(log, ReadOnlyError("only two servers answer"), times=20)
    waiting.transact(lambda tx: tx.put(b"a", b"1"))
    assert shared.map[b"a"] == b"1"
    assert [contents.puts for contents in log.committed].count(((b"a", b"1"),)) == 1


@pytest.mark.parametrize("was_made", [True, False])
def test_a_portion_in_doubt_is_decided_and_made_once(
    waiting: LogMap, log: FakeLog, shared: SharedLog, was_made: bool
) -> None:
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, doubt(7), times=1)
    assert waiting.run(waiting.worker.commit_waiting())

    def lead() -> None:
        if was_made:
            shared.map[b"a"] = b"1"
            shared.changes.append(Change(len(shared.changes) + 1, b"", log.client, 7, (b"a",)))
        log._learn()

    log.on_lead = [_no_quorum, lead]
    committed = len(log.committed)
    assert waiting.run(waiting.worker.commit_waiting())
    assert not waiting.run(waiting.worker.commit_waiting())
    waiting.flush()
    assert waiting.read(lambda view: view.get(b"a")) == b"1"
    assert shared.map[b"a"] == b"1"
    assert len(log.committed) - committed == (0 if was_made else 1)


def _made(log: FakeLog, shared: SharedLog) -> None:
    """Have the batch in doubt chosen, and then another client change the same key."""
    shared.changes.append(Change(len(shared.changes) + 1, b"", log.client, 7, (b"a",)))
    shared.put(a="2", b="other")


def test_a_reader_that_learns_that_a_portion_was_made_sees_what_others_did_after_it(
    waiting: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Found by seed 23940 of the simulation: this client's older value hid what others had written, even after it got
    the lease again."""
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, doubt(7), times=1)
    assert waiting.run(waiting.worker.commit_waiting())
    _made(log, shared)
    log.on_lead = [_no_quorum] * 2
    assert waiting.read(lambda view: view.get(b"b")) == b"other"
    assert waiting.read(lambda view: view.get(b"a")) == b"2"
    log.on_lead.clear()
    waiting.transact(lambda tx: tx.put(b"c", b"1"))
    assert waiting.state.lease.holds(log.clock())
    assert waiting.read(lambda view: view.get(b"a")) == b"2"
    waiting.flush()


def test_a_portion_of_which_the_failed_commit_itself_tells_that_it_was_made_is_not_made_again(
    waiting: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    def fail() -> None:
        _made(log, shared)
        log._learn()
        raise doubt(7)

    log.before_commit.append(fail)
    committed = len(log.committed)
    waiting.transact(lambda tx: tx.put(b"a", b"1"))
    assert len(log.committed) == committed
    assert waiting.read(lambda view: view.get(b"a")) == b"2"


def test_a_doubt_that_is_over_takes_no_time_from_what_is_kept_later(
    waiting: LogMap, log: FakeLog, shared: SharedLog, clock: Clock
) -> None:
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, doubt(7), times=1)
    assert waiting.run(waiting.worker.commit_waiting())
    _made(log, shared)
    log.on_lead = [_no_quorum] * 2
    assert waiting.read(lambda view: view.get(b"b")) == b"other"
    log.on_lead.clear()
    assert not waiting.owes()
    clock.now += 10 * WAIT_S
    waiting.transact(lambda tx: tx.put(b"c", b"1"))
    waiting.transact(lambda tx: tx.put(b"d", b"1"), durable=False)
    refuse(log, ReadOnlyError("a server restarts"), times=2)
    waiting.run(waiting.worker.commit_waiting())
    waiting.flush()
    assert shared.map[b"d"] == b"1"


def test_what_was_overtaken_while_it_was_kept_is_not_shown(waiting: LogMap, log: FakeLog, shared: SharedLog) -> None:
    def increment(tx: Transaction) -> None:
        tx.put(b"a", (tx.get(b"a") or b"") + b"1")

    waiting.transact(increment, durable=False)
    refuse(log, ReadOnlyError("only two servers answer"), times=30)
    assert waiting.run(waiting.worker.commit_waiting())
    shared.put(a="2")
    assert waiting.read(lambda view: view.get(b"a")) == b"2"
    with pytest.raises(LostError):
        waiting.flush()


def _no_quorum() -> None:
    raise ReadOnlyError("only two servers answer")


def test_a_portion_that_is_in_doubt_and_of_which_nothing_can_be_told_any_more_is_lost(
    waiting: LogMap, log: FakeLog
) -> None:
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, doubt(7), times=1)
    assert waiting.run(waiting.worker.commit_waiting())

    def lead() -> None:
        log.news.forget = True

    log.on_lead = [lead]
    waiting.run(waiting.worker.commit_waiting())
    with pytest.raises(LostError):
        waiting.flush()


def test_it_is_lost_at_once_if_news_was_missed_before(waiting: LogMap, log: FakeLog) -> None:
    """It needs no leader for that: to become one would disturb another writer, and needs a quorum."""
    waiting.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    refuse(log, doubt(7), times=1)
    assert waiting.run(waiting.worker.commit_waiting())
    log.news.forget = True
    log.on_lead = [_no_quorum] * 3
    waiting.read(lambda view: view.get(b"b"), max_age_s=0.0)
    assert len(log.on_lead) == 2, "it did not know yet"
    with pytest.raises(LostError):
        waiting.flush()
    assert len(log.on_lead) == 2


@pytest.mark.parametrize("took_it", [(1, 2), (1,)])
def test_a_change_made_as_the_servers_went_away_is_reported_correctly_when_they_return(
    log_cluster: LogCluster, took_it: tuple[int, ...]
) -> None:
    """Two servers have the batch, which is finished; or one has it and stays away, and it is made again: in both cases
    once."""
    clock = log_cluster.grid.clock
    gone = {1, 2, 3, 4}.difference(took_it)
    sleeps: list[Callable[[], None]] = []

    def sleep(seconds: float) -> None:
        clock.wait_until(clock() + seconds)
        if sleeps:
            sleeps.pop(0)()

    def come_back() -> None:
        if took_it == (1,):
            log_cluster.down(1)
        for server in gone:
            log_cluster.grid[server].dies_after = None
        log_cluster.up(*gone)

    made = LogMap(log_of(log_cluster, b"client-1"), keys.family_of, clock, sleep, wait_s=WAIT_S)
    made.transact(lambda tx: tx.put(b"a", b"1"))
    for server in gone:
        log_cluster.grid[server].dies_after = 0
    sleeps += [lambda: None, lambda: None, come_back]

    def increment(tx: object) -> bytes:
        value = tx.get(b"a") or b"0"  # type: ignore[attr-defined]
        new = b"%d" % (int(value) + 1)
        tx.put(b"a", new)  # type: ignore[attr-defined]
        return new

    assert made.transact(increment) == b"2"
    assert made.read(lambda view: view.get(b"a")) == b"2"


def test_without_waiting_a_doubt_is_told(log: FakeLog, clock: Clock) -> None:
    store = LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]
    refuse(log, doubt(7), times=1)
    with pytest.raises(MaybeDoneError):
        store.transact(lambda tx: tx.put(b"a", b"1"))


def test_a_doubt_that_cannot_be_decided_in_time_is_told(log: FakeLog, clock: Clock) -> None:
    store = LogMap(log, family_of, clock, clock.sleep, wait_s=WAIT_S)  # type: ignore[arg-type]
    refuse(log, doubt(7), times=1)
    log.on_lead = [_never] * 1000
    begun = clock()
    with pytest.raises(MaybeDoneError):
        store.transact(lambda tx: tx.put(b"a", b"1"))
    assert clock() >= begun + WAIT_S


def test_waiting_ends_when_the_mount_ends(waiting: LogMap, log: FakeLog, clock: Clock) -> None:
    def end() -> None:
        waiting.end_within(5.0)
        _no_quorum()

    log.before_commit.extend([_no_quorum] * 4 + [end] + [_no_quorum] * 1000)
    begun = clock()
    with pytest.raises(UnavailableError):
        waiting.transact(lambda tx: tx.put(b"a", b"1"))
    assert begun + 5.0 <= clock() <= begun + 10.0


def test_a_doubt_is_not_decided_for_longer_than_that_either(log: FakeLog, clock: Clock) -> None:
    store = LogMap(log, family_of, clock, clock.sleep, wait_s=WAIT_S)  # type: ignore[arg-type]
    refuse(log, doubt(7), times=1)

    def end() -> None:
        store.end_within(5.0)
        _never()

    log.on_lead = [end] + [_never] * 1000
    begun = clock()
    with pytest.raises(MaybeDoneError):
        store.transact(lambda tx: tx.put(b"a", b"1"))
    assert begun + 5.0 <= clock() <= begun + 10.0


def test_what_was_answered_is_kept_when_the_mount_ends_also_without_waiting(
    log: FakeLog, clock: Clock, shared: SharedLog
) -> None:
    """Slow servers are given up sooner then; answered changes are not."""
    store = LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]
    log.gives_lease = True
    answer_early(store)
    store.transact(lambda tx: tx.put(b"first", b"x"))
    store.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    assert (store.owes(), log.is_hurried) == (True, False)
    store.end_within(5.0)
    assert log.is_hurried
    refuse(log, ReadOnlyError("no server answers"), times=4)
    refuse(log, doubt(7), times=1)
    log.on_lead = [_never]
    for _ in range(3):
        assert store.run(store.worker.commit_waiting()), "it must be tried again"
    assert not store.run(store.worker.commit_waiting())
    assert shared.map[b"a"] == b"1"
    assert not store.owes()


def test_when_its_time_is_over_it_is_lost_and_that_is_told(log: FakeLog, clock: Clock) -> None:
    store = LogMap(log, family_of, clock, clock.sleep)  # type: ignore[arg-type]
    log.gives_lease = True
    answer_early(store)
    store.transact(lambda tx: tx.put(b"first", b"x"))
    store.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    store.end_within(5.0)
    refuse(log, ReadOnlyError("no server answers"), times=1000)
    begun = clock()
    while store.run(store.worker.commit_waiting()):
        assert clock() < begun + 10.0
    assert clock() >= begun + 5.0
    with pytest.raises(LostError):
        store.flush()


def _never() -> None:
    raise UnavailableError("no server answers")
