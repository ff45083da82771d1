"""The writer lease as its holder measures it: each line of its table, and how long turns last."""

from __future__ import annotations

import pytest

from dfs_server.protocol.limits import LEASE_S
from dfsfuse.log.lease import ANSWERS_S, LOOK_TURN_S, SETTLE_AFTER_S, TURN_S, YIELD_S, Lease, LeaseState
from dfsfuse.log.quorum_log import PAUSE_GROWTHS, PAUSE_S

BEGUN = 100.0
NOW = 100.01


def commit(
    lease: Lease,
    now: float = NOW,
    *,
    begun: float | None = None,
    term: int = 1,
    leased: bool = True,
    wanted: bool = False,
    recalled: bool = False,
    may_answer: bool = True,
) -> None:
    lease.proposed()
    lease.committed(
        now - 0.01 if begun is None else begun,
        now,
        term=term,
        leased=leased,
        wanted=wanted,
        recalled=recalled,
        may_answer=may_answer,
    )


def held(**how: bool) -> Lease:
    lease = Lease()
    commit(lease, **how)  # type: ignore[arg-type]
    return lease


def test_it_is_counted_from_before_the_batch_was_sent_and_ends_before_the_servers_lease() -> None:
    lease = Lease()
    assert lease.state(NOW) is LeaseState.NONE
    commit(lease, begun=BEGUN)
    assert lease.state(NOW) is LeaseState.HELD
    assert not lease.holds(BEGUN + ANSWERS_S)
    assert lease.state(BEGUN + ANSWERS_S) is LeaseState.NONE
    assert ANSWERS_S <= 0.75 * LEASE_S
    commit(lease, BEGUN + 1.0)
    assert lease.holds(BEGUN + ANSWERS_S), "the next batch extends it"


def test_it_is_held_only_if_the_servers_gave_it_and_the_caller_may_answer() -> None:
    assert held(leased=False).state(NOW) is LeaseState.NONE
    assert held(may_answer=False).state(NOW) is LeaseState.NONE
    lease = held()
    commit(lease, leased=False)
    assert not lease.holds(NOW)


def test_a_client_that_waits_to_write_lets_the_turn_last_so_long() -> None:
    lease = held(wanted=True)
    assert lease.state(NOW) is LeaseState.HELD
    assert not lease.is_spent(NOW + TURN_S * 0.99)
    assert lease.is_spent(NOW + TURN_S)
    commit(lease, NOW + TURN_S)
    assert lease.state(NOW + TURN_S) is LeaseState.ENDING
    assert not lease.holds(NOW + TURN_S), "nothing more is answered before its commit"
    lease.released(NOW + TURN_S)
    assert lease.state(NOW + TURN_S) is LeaseState.NONE
    assert not lease.is_spent(NOW + TURN_S)


def test_a_reader_waits_for_less_and_does_not_end_the_turn() -> None:
    """Otherwise a client that looks up names without pause would keep the writer to one operation at a time."""
    lease = held(recalled=True)
    assert not lease.is_spent(NOW)
    assert lease.is_spent(NOW + LOOK_TURN_S)
    assert LOOK_TURN_S < TURN_S
    assert not held(wanted=True).is_spent(NOW + LOOK_TURN_S)


def test_what_the_servers_have_said_is_remembered_until_it_is_let_go() -> None:
    lease = held(wanted=True)
    commit(lease, NOW + 0.02)
    assert lease.is_spent(NOW + TURN_S)
    lease.released(NOW + TURN_S)
    commit(lease, NOW + TURN_S + 0.02)
    assert not lease.is_spent(NOW + 3 * TURN_S)


def test_it_stays_back_after_its_turn_if_another_one_waits_to_write() -> None:
    """Its ballot still counts, so without a pause it would get the lease again before the other client has asked."""
    lease = held(wanted=True)
    lease.released(NOW)
    assert lease.stays_back_s(NOW) == pytest.approx(YIELD_S)
    assert lease.stays_back_s(NOW + YIELD_S) == 0.0
    assert YIELD_S >= PAUSE_S * PAUSE_GROWTHS, "the waiting client asks again within this time"
    for how in ({}, {"recalled": True}):
        lease = held(**how)
        lease.released(NOW)
        assert lease.stays_back_s(NOW) == 0.0, "nobody waits to write, so it need not hold back"


def test_each_turn_is_equally_long() -> None:
    """Both after a release under the same ballot, and when this client becomes the writer again."""
    lease = held()
    lease.released(NOW)
    later = NOW + 2 * TURN_S
    commit(lease, later, wanted=True)
    assert not lease.is_spent(later)
    commit(lease, later + TURN_S, term=2, wanted=True)
    assert lease.state(later + TURN_S) is LeaseState.HELD
    commit(lease, later + 2 * TURN_S, term=2)
    assert lease.state(later + 2 * TURN_S) is LeaseState.ENDING


def test_a_wish_of_an_earlier_term_counts_no_more() -> None:
    """The client that waited has been the writer since then."""
    lease = held(wanted=True)
    commit(lease, NOW + TURN_S, term=2)
    assert not lease.is_spent(NOW + 3 * TURN_S)


def test_the_end_of_a_turn_may_come_between_batches() -> None:
    lease = held(wanted=True)
    lease.end_turn()
    assert lease.state(NOW) is LeaseState.ENDING
    commit(lease, NOW + TURN_S)  # of what was answered before
    assert lease.state(NOW + TURN_S) is LeaseState.ENDING


def test_when_another_client_has_committed_nothing_is_held() -> None:
    lease = held()
    lease.ended()
    assert lease.state(NOW) is LeaseState.NONE
    lease = held(wanted=True)
    lease.end_turn()
    lease.ended()
    assert lease.state(NOW) is LeaseState.NONE


def test_a_batch_that_failed_may_have_brought_a_lease_that_is_to_be_let_go() -> None:
    lease = Lease()
    assert not lease.is_owed
    lease.proposed()
    assert lease.is_owed
    lease.ended()
    assert lease.is_owed
    lease.released(NOW)
    assert not lease.is_owed


def test_a_pause_ends_a_turn() -> None:
    lease = Lease()
    assert lease.is_idle(NOW)
    commit(lease)
    assert not lease.is_idle(NOW + SETTLE_AFTER_S * 0.99)
    assert lease.is_idle(NOW + SETTLE_AFTER_S)
