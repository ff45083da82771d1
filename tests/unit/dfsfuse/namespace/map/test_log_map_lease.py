"""Under the writer lease: answers before the commit, in order; losses, and which callers they are reported to."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable

import pytest
from msgspec import structs
from support.clock import Clock
from support.fake_log import FakeLog, ManualWakeEvent, SharedLog, answer_early

from dfsfuse.errors import LostError, MaybeDoneError, ReadOnlyError, UnavailableError
from dfsfuse.log.lease import SETTLE_AFTER_S, TURN_S
from dfsfuse.log.state import Contents, News
from dfsfuse.namespace.map.journal import PORTION_BYTES
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.map.transactions import Transaction, View


def increment(tx: Transaction) -> int:
    value = int(tx.get(b"n") or b"0") + 1
    tx.put(b"n", b"%d" % value)
    return value


def test_under_the_lease_answers_come_before_the_commit_and_are_seen(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.scan(b"d", b"e"))
    log.asked.clear()
    leased.transact(lambda tx: tx.put(b"d1", b"x"), durable=False)
    assert leased.read(lambda view: view.scan(b"d", b"e")) == [(b"d1", b"x")]
    with pytest.raises(OSError, match="there"):
        leased.transact(_create_d1, durable=False)
    assert log.asked == []


def test_under_the_lease_a_look_up_that_finds_nothing_runs_once(leased: LogMap, log: FakeLog) -> None:
    """The cache holds the newest state, so no server is asked and nothing is checked again."""
    runs: list[bytes | None] = []

    def find(view: View) -> None:
        runs.append(view.get(b"d1"))
        raise FileNotFoundError

    leased.read(lambda view: view.scan(b"d", b"e"))
    log.asked.clear()
    with pytest.raises(FileNotFoundError):
        leased.read(find, max_age_s=0.5, doubted=FileNotFoundError)
    assert runs == [None]
    assert log.asked == []


def _create_d1(tx: Transaction) -> None:
    if tx.get(b"d1") is not None:
        raise FileExistsError(errno.EEXIST, "there")
    tx.put(b"d1", b"y")


def test_what_waits_is_one_batch_and_durable_means_all_before_too(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.get(b"n"))
    for _ in range(3):
        leased.transact(increment, durable=False)
    assert log.committed == []
    leased.transact(lambda tx: tx.delete(b"first"))
    assert log.committed == [Contents(puts=((b"n", b"3"),), deletes=(b"first",))]


def test_flush_makes_all_durable(leased: LogMap, log: FakeLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    leased.flush()
    assert len(log.committed) == 1
    leased.flush()
    assert len(log.committed) == 1


def test_a_lease_that_ran_out_is_not_answered_on(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    clock.now += 11.0
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    assert len(log.committed) == 1


def test_answers_that_are_lost_are_told_once_and_forgotten(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    with pytest.raises(LostError):
        leased.flush()
    leased.flush()
    assert leased.read(lambda view: view.get(b"a")) is None
    assert b"a" not in shared.map


def test_what_was_shown_of_answers_that_are_lost_is_taken_back_before_anything_newer_is(
    leased: LogMap, log: FakeLog
) -> None:
    """The kernel may have cached it: names, sizes, pages of a truncated file."""
    told: list[list[bytes] | None] = []
    leased._events.on_keys_changed = told.append
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    with pytest.raises(LostError):
        leased.flush()
    leased.read(lambda view: view.get(b"a"), answered=lambda _: told.append([b"looked"]))
    assert told == [None, [b"looked"]]
    leased.read(lambda view: view.get(b"a"))
    assert told[2:] == []


def test_what_was_known_before_what_waits_or_is_lost_can_be_recalled(leased: LogMap, log: FakeLog) -> None:
    leased.transact(increment)
    leased.read(lambda view: view.get(b"other"))
    leased.transact(increment, durable=False)
    leased.transact(increment, durable=False)
    leased.transact(lambda tx: tx.put(b"blind", b"x"), durable=False)
    log.asked.clear()
    known = [b"n", b"first", b"other"]
    assert leased.recall(known) == [b"1", b"x", None]
    assert leased.recall([b"n", b"blind"]) is None, "its earlier value was never read"
    assert log.asked == []

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    with pytest.raises(LostError):
        leased.flush()
    log.asked.clear()
    assert leased.recall(known) == [b"1", b"x", None]
    assert log.asked == []
    leased.transact(lambda tx: tx.put(b"a", b"1"))
    assert leased.recall([b"first"]) is None, "what was remembered for such a loss takes no memory any more"


def test_the_loss_of_answers_is_reported_to_each_witness(leased: LogMap, log: FakeLog) -> None:
    one, other = leased.witness(), leased.witness()
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    for witness in (one, other):
        with pytest.raises(LostError):
            leased.flush(witness)
        leased.flush(witness)
    leased.flush(leased.witness())
    leased.flush()


def test_answers_wait_for_a_server_that_is_about_to_return(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise ReadOnlyError("only two servers answer")

    log.before_commit = [fail, fail]
    leased.flush()
    assert shared.map[b"a"] == b"1"
    leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    log.before_commit = [fail] * 10
    with pytest.raises(LostError):
        leased.flush()


def test_a_rival_that_should_not_be_costs_the_answers_not_the_truth(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    leased.read(lambda view: view.get(b"n"))
    leased.transact(increment, durable=False)
    log.before_commit.append(lambda: shared.put(n="40"))
    with pytest.raises(LostError, match="another client"):
        leased.flush()
    assert leased.transact(increment) == 41


def test_the_lease_is_handed_over_when_the_turn_is_over(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    log.is_wanted = True
    clock.now += TURN_S
    leased.flush()
    assert log.asked == ["commit", "settle"]
    log.is_wanted = False
    leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False)
    assert log.asked == ["commit", "settle", "commit"], "changes are not answered before their commit any more"


def test_nothing_more_is_answered_when_the_turn_is_over(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    """Otherwise a writer that never pauses would always have something to commit, and never release the lease."""
    answered: list[bool] = []

    def write_on() -> None:
        found = leased.client._answer(lambda tx: tx.put(b"b", b"1"), durable=False)
        answered.append(found is not None)

    wake_event = leased.committer.wake_event = ManualWakeEvent(write_on)
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    assert answered == [True]
    wake_event.woken = write_on
    log.is_wanted = True
    clock.now += TURN_S
    leased.flush()
    assert answered == [True, False]
    assert log.asked == ["commit", "settle"]


def test_what_is_answered_beside_a_batch_waits_for_more_before_the_next(leased: LogMap, log: FakeLog) -> None:
    """If batches followed each other at once, each would contain only the two or three changes answered during the
    last."""
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)
    log.before_commit.append(lambda: leased.transact(lambda tx: tx.put(b"b", b"1"), durable=False))
    assert leased.run(leased.worker.commit_waiting()), "something must be waiting again"
    assert log.committed == [Contents(puts=((b"a", b"1"),))]
    assert not leased.run(leased.worker.commit_waiting())
    assert log.committed[1:] == [Contents(puts=((b"b", b"1"),))]


def test_a_client_that_has_waited_for_the_log_is_not_taken_for_idle(leased: LogMap, log: FakeLog, clock: Clock) -> None:
    """The worker found nothing to do during another client's turn, and then waited for the log as well."""
    clock.now += SETTLE_AFTER_S
    leased.transact(lambda tx: tx.put(b"a", b"1"))
    assert not leased.run(leased.worker.settle_if_idle())
    assert "settle" not in log.asked
    clock.now += 2 * SETTLE_AFTER_S
    assert leased.run(leased.worker.settle_if_idle())
    assert log.asked[-1] == "settle"


def test_much_that_waits_is_committed_in_batches_that_are_not_too_large(leased: LogMap, log: FakeLog) -> None:
    for n in range(30):
        leased.transact(lambda tx, n=n: tx.put(b"k%d" % n, bytes(100_000)), durable=False)  # type: ignore[misc]
    leased.flush()
    assert len(log.committed) == 4
    assert [key for contents in log.committed for key, _ in contents.puts] == [b"k%d" % n for n in range(30)]


def test_every_waiter_for_a_lost_batch_is_told(leased: LogMap, log: FakeLog) -> None:
    told: list[Exception] = []
    answered = threading.Event()

    def put_b(tx: Transaction) -> None:
        tx.put(b"b", b"1")
        answered.set()

    def second() -> None:
        try:
            leased.transact(put_b)
        except UnavailableError as error:  # it was queued behind that batch, and was not sent
            told.append(error)

    thread = threading.Thread(target=second)

    def fail_both() -> None:
        thread.start()
        assert answered.wait(10.0)
        with leased._lock:
            assert len(leased.state.journal) == 2
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail_both)
    with pytest.raises(MaybeDoneError):
        leased.transact(lambda tx: tx.put(b"a", b"1"))
    thread.join(10.0)
    assert len(told) == 1
    leased.flush()  # every loss has been reported already


def test_a_loss_without_a_waiter_is_not_reported_as_the_failure_of_another_change(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    leased.transact(lambda tx: tx.put(b"a", b"1"), durable=False)

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    leased.run(leased.worker.commit_waiting())
    leased.transact(lambda tx: tx.put(b"b", b"1"))
    assert shared.map[b"b"] == b"1"
    with pytest.raises(LostError):
        leased.flush()


def test_what_had_to_be_fetched_takes_its_turn_with_what_is_answered_meanwhile(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    def meanwhile() -> None:
        leased.transact(increment, durable=False)

    log.before_commit.append(meanwhile)
    leased.transact(increment)
    leased.flush()
    assert shared.map[b"n"] == b"2"


def test_a_flush_does_not_wait_for_what_others_go_on_writing(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    def goes_on() -> None:
        leased.transact(increment, durable=False)

    leased.transact(increment, durable=False)
    log.before_commit.extend([goes_on] * 50)
    leased.flush()
    assert len(log.committed) == 1
    log.before_commit.clear()
    leased.flush()
    assert shared.map[b"n"] == b"2"


def test_the_first_answer_under_a_lease_sees_the_change_that_brought_the_lease(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    log.gives_lease = True

    def at_once() -> None:
        assert store.client._answer(increment, durable=False)

    answer_early(store, woken=at_once)
    store.transact(increment)
    store.flush()
    assert shared.map[b"n"] == b"2"


def test_a_change_that_another_client_finished_and_built_on_is_not_taken_for_the_newest(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    commit = log.commit

    def finished_by_a_rival(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        shared.commit(dict(contents.puts), contents.deletes)
        shared.put(n="40")
        log._learn()
        return True

    log.commit = finished_by_a_rival  # type: ignore[method-assign]
    store.transact(increment)
    assert store.transact(increment) == 41


def test_what_waits_behind_a_batch_that_a_rival_finished_is_compared_with_what_the_rival_did_next(
    leased: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """Our batch was in doubt, and a rival finished it and went on; more was answered while the batch was under way."""
    commit = log.commit

    def finished_by_a_rival(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        assert leased.transact(increment, durable=False) == 3, "answered while the batch is under way"
        shared.commit(dict(contents.puts), contents.deletes)
        shared.changes[-1] = structs.replace(shared.changes[-1], author=log.client)
        shared.put(n="40")
        log._learn()
        return True

    assert leased.transact(increment, durable=False) == 1
    assert leased.transact(increment, durable=False) == 2
    log.commit = finished_by_a_rival  # type: ignore[method-assign]
    leased.flush()
    with pytest.raises(LostError, match="another client"):
        leased.flush()
    assert shared.map[b"n"] == b"40", "the rival's change was undone"
    assert leased.transact(increment) == 41


def test_news_that_came_before_a_quorum_was_missed_still_count(leased: LogMap, log: FakeLog, shared: SharedLog) -> None:
    """The first attempt learns what a rival did and then finds too few servers; the second must not forget the news."""
    commit = log.commit

    def too_few(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        log.commit = commit  # type: ignore[method-assign]
        shared.put(n="40")
        log._learn()
        raise ReadOnlyError("only 2 of 4 servers answer")

    assert leased.transact(increment, durable=False) == 1
    log.commit = too_few  # type: ignore[method-assign]
    with pytest.raises(LostError, match="another client"):
        leased.flush()
    assert shared.map[b"n"] == b"40", "the rival's change was undone"


def test_the_lease_begins_with_the_first_batch_after_others_have_written(
    store: LogMap, log: FakeLog, shared: SharedLog
) -> None:
    """A turn is short: committing one more batch before answering would take most of it."""
    log.gives_lease = True
    answer_early(store)
    store.transact(lambda tx: tx.put(b"mine", b"1"))
    store.state.lease.ended()
    shared.put(theirs="1")
    store.transact(lambda tx: tx.put(b"mine", b"2"))
    log.asked.clear()
    store.transact(lambda tx: tx.put(b"mine", b"3"), durable=False)
    assert log.asked == []
    assert store.read(lambda view: (view.get(b"mine"), view.get(b"theirs"))) == (b"3", b"1")


def test_but_not_if_ours_was_finished_by_another_client(store: LogMap, log: FakeLog, shared: SharedLog) -> None:
    log.gives_lease = True
    answer_early(store)

    def finished_by_another(contents: Contents, conflicts: Callable[[News], bool]) -> bool:
        shared.commit(dict(contents.puts), contents.deletes)
        shared.changes[-1] = structs.replace(shared.changes[-1], author=b"me")
        shared.put(x="theirs, later")
        log._learn()
        log.state.leased = True
        return True

    log.commit = finished_by_another  # type: ignore[method-assign]
    store.transact(lambda tx: tx.put(b"x", b"mine"))
    assert not store.state.lease.holds(log.clock())
    assert store.read(lambda view: view.get(b"x")) == b"theirs, later"


def test_what_is_begun_together_is_one_batch_and_is_waited_for_apart(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.get(b"n"))
    begun = [leased.begin(increment) for _ in range(3)]
    assert [one.result for one in begun] == [1, 2, 3]
    assert log.committed == []
    for one in begun:
        one.wait()
    assert log.committed == [Contents(puts=((b"n", b"3"),))]
    nothing = leased.begin(lambda tx: tx.get(b"n"))
    nothing.wait()
    assert nothing.result == b"3"


def test_the_loss_of_begun_changes_is_reported_to_their_waiters_only(leased: LogMap, log: FakeLog) -> None:
    leased.read(lambda view: view.get(b"n"))
    begun = [leased.begin(increment) for _ in range(3)]

    def fail() -> None:
        raise MaybeDoneError("no answer")

    log.before_commit.append(fail)
    for one in begun:
        with pytest.raises(MaybeDoneError):
            one.wait()
    leased.flush()


def test_what_waits_behind_a_batch_in_doubt_was_not_sent_and_is_not_in_doubt(leased: LogMap, log: FakeLog) -> None:
    """Otherwise it would be taken for chosen if that batch turns out to be, and appended data would be discarded as
    saved."""
    sent = leased.begin(lambda tx: tx.put(b"a", bytes(PORTION_BYTES)))
    behind = leased.begin(lambda tx: tx.put(b"b", b"1"))

    def fail() -> None:
        error = MaybeDoneError("no answer")
        error.sequence = 7
        raise error

    log.before_commit.append(fail)
    with pytest.raises(MaybeDoneError):
        sent.wait()
    with pytest.raises(UnavailableError):
        behind.wait()


def test_without_the_lease_what_is_begun_is_durable_already(store: LogMap, log: FakeLog) -> None:
    begun = store.begin(increment)
    assert log.committed == [Contents(puts=((b"n", b"1"),))]
    begun.wait()
