"""The acceptor's rules, one by one; and, with Hypothesis, its invariants under any sequence of requests."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.limits import LEASE_S
from dfs_server.protocol.messages import AcceptedAt, Behind, Error, Position, Promised, Refused
from dfs_server.protocol.status import Status
from dfs_server.store import acceptor
from dfs_server.store.acceptor import NEXT_TURN_S, AcceptorState, Apply, Lease, ParsedBatch, SavePromise, SaveTail

LOW, HIGH = Ballot(1, b"a"), Ballot(2, b"a")


def batch(previous: bytes = b"", value: bytes = b"v", sequence: int = 1) -> ParsedBatch:
    return ParsedBatch.of(batches.encode(Batch(1, previous, b"author", sequence, 0, puts=((b"k", value),))))


FIRST = batch()
SECOND = batch(FIRST.digest, b"w", 2)
OTHER = batch(value=b"another")


def accepted(ballot: Ballot = LOW, parsed: ParsedBatch = FIRST) -> AcceptorState:
    return acceptor.accept(AcceptorState(), ballot, 1, parsed, 0.0, lease=True).state


def test_promise_is_durable_and_tells_the_tail() -> None:
    step = acceptor.promise(accepted(), HIGH, 0.0)
    assert step.effects == (SavePromise(HIGH),)
    assert step.must_be_durable
    assert isinstance(step.reply, Promised)
    assert step.reply.tail is not None
    assert step.reply.tail.batch == FIRST.encoded
    assert step.reply.tail.ballot == LOW


def test_while_a_writer_has_the_lease_others_wait_and_it_is_told() -> None:
    state = accepted()
    rival = Ballot(9, b"b")
    step = acceptor.promise(state, rival, LEASE_S - 0.5)
    assert step.reply == Refused(LOW, 501)
    assert step.state.promised == LOW
    told = acceptor.accept(step.state, LOW, 2, SECOND, LEASE_S - 0.4, lease=True)
    assert told.reply == AcceptedAt(2, wanted=True)
    assert isinstance(acceptor.promise(told.state, rival, LEASE_S + 0.1).reply, Refused), "the lease was renewed"
    assert isinstance(acceptor.promise(told.state, rival, 2 * LEASE_S).reply, Promised), "the lease has expired"


def test_letting_go_that_comes_late_does_not_end_the_next_lease() -> None:
    state = acceptor.accept(accepted(), LOW, 2, SECOND, 0.1, lease=True).state
    assert acceptor.let_go(state, b"a", 1, 0.2) == state
    assert acceptor.let_go(state, b"a", 2, 0.2).lease is None


def test_a_writer_that_does_not_want_the_lease_does_not_get_it() -> None:
    state = acceptor.accept(AcceptorState(), LOW, 1, FIRST, 0.0).state
    assert isinstance(acceptor.promise(state, Ballot(9, b"b"), 0.1).reply, Promised)


def test_the_writer_itself_may_take_a_higher_ballot() -> None:
    assert isinstance(acceptor.promise(accepted(), HIGH, 0.1).reply, Promised)


def test_after_a_lease_is_released_the_waiting_client_comes_first() -> None:
    waited = acceptor.promise(accepted(), Ballot(9, b"b"), 0.1).state
    state = acceptor.let_go(waited, b"a", 1, 0.2)
    assert state.lease == Lease(b"b", 0.2 + NEXT_TURN_S)
    assert isinstance(acceptor.promise(state, Ballot(9, b"a"), 0.3).reply, Refused)
    assert isinstance(acceptor.promise(state, Ballot(9, b"b"), 0.3).reply, Promised)
    assert isinstance(acceptor.promise(state, Ballot(9, b"a"), 0.3 + NEXT_TURN_S).reply, Promised)


@pytest.mark.parametrize(("holder", "next_one"), [(b"b", b"c"), (b"c", b"a"), (b"d", b"a")])
def test_the_next_turn_is_the_same_on_all_servers_whichever_client_they_heard_first(
    holder: bytes, next_one: bytes
) -> None:
    waiting = [client for client in (b"a", b"b", b"c") if client != holder]
    for order in itertools.permutations(waiting):
        state = acceptor.accept(AcceptorState(), Ballot(3, holder), 1, FIRST, 0.0, lease=True).state
        for client in order:
            state = acceptor.promise(state, Ballot(9, client), 0.1).state
        assert acceptor.let_go(state, holder, 1, 0.2).lease == Lease(next_one, 0.2 + NEXT_TURN_S), order


def test_each_of_three_clients_that_always_wait_has_its_turn() -> None:
    holder, had = b"b", []
    for _ in range(6):
        state = acceptor.accept(AcceptorState(), Ballot(3, holder), 1, FIRST, 0.0, lease=True).state
        for client in (b"a", b"b", b"c"):
            if client != holder:
                state = acceptor.promise(state, Ballot(9, client), 0.1).state
        lease = acceptor.let_go(state, holder, 1, 0.2).lease
        assert lease is not None
        holder = lease.client
        had.append(holder)
    assert had == [b"c", b"a", b"b"] * 2


def test_only_its_holder_lets_a_lease_go() -> None:
    assert acceptor.let_go(accepted(), b"b", 1, 0.1).lease == Lease(b"a", LEASE_S, number=1)
    assert acceptor.let_go(accepted(), b"a", 1, 0.1).lease is None


def test_a_reader_that_must_see_what_was_answered_recalls_the_lease() -> None:
    step = acceptor.position(accepted(), b"b", 0.5)
    assert isinstance(step.reply, Position)
    assert step.reply.lease == 1
    told = acceptor.accept(step.state, LOW, 2, SECOND, 0.6, lease=True)
    assert told.reply == AcceptedAt(2, recalled=True)
    let_go = acceptor.let_go(told.state, b"a", 2, 0.7)
    assert acceptor.position(let_go, b"b", 0.8).reply == let_go.position(), "no client may answer early now"
    anew = acceptor.accept(let_go, LOW, 2, SECOND, 0.9, lease=True).state
    again = acceptor.position(anew, b"b", 1.0).reply
    assert isinstance(again, Position)
    assert again.lease == 2, "a new lease, since the recalled one has ended"


def test_a_lease_is_not_recalled_by_its_holder_or_by_a_reader_that_does_not_need_it() -> None:
    for recall in (b"a", b""):
        assert acceptor.position(accepted(), recall, 0.5) == acceptor.Step(accepted(), accepted().position())


def test_a_server_that_starts_is_as_careful_as_if_it_remembered_the_lease() -> None:
    state = acceptor.started(replace(accepted(), lease=None), 100.0)
    assert isinstance(acceptor.promise(state, Ballot(9, b"b"), 100.0 + LEASE_S / 2).reply, Refused)
    assert isinstance(acceptor.promise(state, Ballot(9, b"a"), 100.0 + LEASE_S / 2).reply, Promised)
    assert acceptor.started(AcceptorState(), 100.0).lease is None


def test_the_lease_never_stands_against_a_quorum() -> None:
    """An accept with a higher ballot is taken in spite of a lease, since others have promised it."""
    assert acceptor.accept(accepted(), Ballot(9, b"b"), 1, OTHER, 0.1).reply == AcceptedAt(1)


def test_lower_promise_is_refused_and_the_same_is_repeated() -> None:
    state = acceptor.promise(AcceptorState(), HIGH, 0.0).state
    assert acceptor.promise(state, LOW, 0.0).reply == Refused(HIGH)
    again = acceptor.promise(state, HIGH, 0.0)
    assert again.effects == ()
    assert isinstance(again.reply, Promised)


def test_accept_below_the_promise_is_refused() -> None:
    state = acceptor.promise(AcceptorState(), HIGH, 0.0).state
    step = acceptor.accept(state, LOW, 1, FIRST, 0.0)
    assert step.reply == Refused(HIGH)
    assert step.state == state


def test_accept_raises_the_promise_in_the_same_transaction() -> None:
    step = acceptor.accept(AcceptorState(), HIGH, 1, FIRST, 0.0)
    assert [type(effect) for effect in step.effects] == [SavePromise, SaveTail]
    assert acceptor.accept(step.state, LOW, 1, OTHER, 0.0).reply == Refused(HIGH)


def test_accept_of_the_next_slot_applies_the_one_before() -> None:
    step = acceptor.accept(accepted(), LOW, 2, SECOND, 0.0)
    assert [type(effect) for effect in step.effects] == [Apply, SaveTail]
    assert step.reply == AcceptedAt(2)
    assert (step.state.applied, step.state.digest) == (1, FIRST.digest)


def test_a_tail_that_lost_is_not_applied() -> None:
    step = acceptor.accept(accepted(parsed=OTHER), HIGH, 2, SECOND, 0.0)
    assert step.reply == Behind(0)
    assert step.effects == ()


def test_a_tail_is_replaced_under_a_higher_ballot_only() -> None:
    assert acceptor.accept(accepted(), HIGH, 1, OTHER, 0.0).reply == AcceptedAt(1)
    clash = acceptor.accept(accepted(), LOW, 1, OTHER, 0.0)
    assert isinstance(clash.reply, Error)
    assert clash.reply.status == Status.BAD_REQUEST


def test_repeated_accept_is_no_change() -> None:
    step = acceptor.accept(accepted(), LOW, 1, FIRST, 0.0)
    assert step.reply == AcceptedAt(1)
    assert step.effects == ()


def test_accept_of_an_applied_slot_tells_the_position() -> None:
    state = acceptor.chosen(accepted(), 1, FIRST.digest).state
    assert acceptor.accept(state, LOW, 1, FIRST, 0.0).reply == Position(1, FIRST.digest, LOW)


def test_another_history_is_noticed() -> None:
    state = acceptor.chosen(accepted(parsed=OTHER), 1, OTHER.digest).state
    for step in (acceptor.accept(state, HIGH, 2, SECOND, 0.0), acceptor.learn(state, 2, [SECOND])):
        assert isinstance(step.reply, Error)
        assert step.reply.status == Status.DIVERGED
        assert step.state.applied == 1


def test_chosen_applies_exactly_the_batch_that_it_names() -> None:
    assert acceptor.chosen(accepted(), 1, OTHER.digest).effects == ()
    step = acceptor.chosen(accepted(), 1, FIRST.digest)
    assert step.effects == (Apply(1, FIRST, is_logged=True),)
    assert not step.must_be_durable


def test_learn_passes_over_what_is_applied_and_stops_at_a_gap() -> None:
    step = acceptor.learn(AcceptorState(), 1, [FIRST, SECOND])
    assert step.state.applied == 2
    assert acceptor.learn(step.state, 1, [FIRST, SECOND]).effects == ()
    assert acceptor.learn(AcceptorState(), 2, [SECOND]).state.applied == 0


def test_learn_replaces_a_tail_that_lost() -> None:
    step = acceptor.learn(accepted(parsed=OTHER), 1, [FIRST])
    assert step.effects == (Apply(1, FIRST, is_logged=False),)
    assert step.must_be_durable, "a server with a replaced disk counts again only when this is on its disk"
    assert step.state.tail is None


def test_a_copy_keeps_the_promise() -> None:
    state = acceptor.copied(accepted(HIGH), 7, SECOND.digest)
    assert replace(state, lease=None, leases=0) == AcceptorState(HIGH, 7, SECOND.digest, None)


_ballots = st.builds(Ballot, st.integers(1, 4), st.sampled_from([b"a", b"b"]))
_requests = st.one_of(
    st.tuples(st.just("promise"), _ballots),
    st.tuples(st.just("accept"), _ballots, st.integers(1, 3), st.sampled_from([FIRST, SECOND, OTHER])),
    st.tuples(st.just("chosen"), st.integers(1, 3), st.sampled_from([FIRST.digest, SECOND.digest, OTHER.digest])),
)


@settings(max_examples=300)
@given(st.lists(_requests, max_size=30))
def test_invariants_hold_under_any_requests(requests: list[tuple]) -> None:  # type: ignore[type-arg]
    state = AcceptorState()
    vows: dict[tuple[int, Ballot], bytes] = {}
    for name, *arguments in requests:
        before = state
        now = (0.0,) if name in ("promise", "accept") else ()
        step = getattr(acceptor, name)(state, *arguments, *now)
        state = step.state
        assert state.promised >= before.promised
        assert state.applied >= before.applied
        if state.tail is not None:
            assert state.tail.slot == state.applied + 1
            assert ZERO < state.tail.ballot <= state.promised
            assert state.tail.parsed.batch.previous == state.digest
        if name == "accept" and step.reply == AcceptedAt(arguments[1]):
            assert arguments[0] >= before.promised
            assert vows.setdefault((arguments[1], arguments[0]), arguments[2].digest) == arguments[2].digest
        if replace(state, lease=None, leases=0) != replace(before, lease=None, leases=0):
            assert step.effects, "every change must be written down"
