"""The acceptor's rules, one by one; and, by Hypothesis, its invariants under any sequence of requests."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dfs_server import acceptor
from dfs_server.acceptor import AcceptorState, Apply, ParsedBatch, SavePromise, SaveTail
from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import AcceptedAt, Behind, Error, Position, Promised, Refused
from dfs_server.protocol.status import Status

LOW, HIGH = Ballot(1, b"a"), Ballot(2, b"a")


def batch(previous: bytes = b"", value: bytes = b"v", sequence: int = 1) -> ParsedBatch:
    return ParsedBatch.of(batches.encode(Batch(1, previous, b"author", sequence, 0, puts=((b"k", value),))))


FIRST = batch()
SECOND = batch(FIRST.digest, b"w", 2)
OTHER = batch(value=b"another")


def accepted(ballot: Ballot = LOW, parsed: ParsedBatch = FIRST) -> AcceptorState:
    return acceptor.accept(AcceptorState(), ballot, 1, parsed).state


def test_promise_is_durable_and_tells_the_tail() -> None:
    step = acceptor.promise(accepted(), HIGH)
    assert step.effects == (SavePromise(HIGH),)
    assert step.must_be_durable
    assert isinstance(step.reply, Promised)
    assert step.reply.tail is not None
    assert step.reply.tail.batch == FIRST.encoded
    assert step.reply.tail.ballot == LOW


def test_lower_promise_is_refused_and_the_same_is_repeated() -> None:
    state = acceptor.promise(AcceptorState(), HIGH).state
    assert acceptor.promise(state, LOW).reply == Refused(HIGH)
    again = acceptor.promise(state, HIGH)
    assert again.effects == ()
    assert isinstance(again.reply, Promised)


def test_accept_below_the_promise_is_refused() -> None:
    state = acceptor.promise(AcceptorState(), HIGH).state
    step = acceptor.accept(state, LOW, 1, FIRST)
    assert step.reply == Refused(HIGH)
    assert step.state == state


def test_accept_raises_the_promise_in_the_same_transaction() -> None:
    step = acceptor.accept(AcceptorState(), HIGH, 1, FIRST)
    assert [type(effect) for effect in step.effects] == [SavePromise, SaveTail]
    assert acceptor.accept(step.state, LOW, 1, OTHER).reply == Refused(HIGH)


def test_accept_of_the_next_slot_applies_the_one_before() -> None:
    step = acceptor.accept(accepted(), LOW, 2, SECOND)
    assert [type(effect) for effect in step.effects] == [Apply, SaveTail]
    assert step.reply == AcceptedAt(2)
    assert (step.state.applied, step.state.digest) == (1, FIRST.digest)


def test_a_tail_that_lost_is_not_applied() -> None:
    step = acceptor.accept(accepted(parsed=OTHER), HIGH, 2, SECOND)
    assert step.reply == Behind(0)
    assert step.effects == ()


def test_a_tail_is_replaced_under_a_higher_ballot_only() -> None:
    assert acceptor.accept(accepted(), HIGH, 1, OTHER).reply == AcceptedAt(1)
    clash = acceptor.accept(accepted(), LOW, 1, OTHER)
    assert isinstance(clash.reply, Error)
    assert clash.reply.status == Status.BAD_REQUEST


def test_repeated_accept_is_no_change() -> None:
    step = acceptor.accept(accepted(), LOW, 1, FIRST)
    assert step.reply == AcceptedAt(1)
    assert step.effects == ()


def test_accept_of_an_applied_slot_tells_the_position() -> None:
    state = acceptor.chosen(accepted(), 1, FIRST.digest).state
    assert acceptor.accept(state, LOW, 1, FIRST).reply == Position(1, FIRST.digest, LOW)


def test_another_history_is_noticed() -> None:
    state = acceptor.chosen(accepted(parsed=OTHER), 1, OTHER.digest).state
    for step in (acceptor.accept(state, HIGH, 2, SECOND), acceptor.learn(state, 2, [SECOND])):
        assert isinstance(step.reply, Error)
        assert step.reply.status == Status.DIVERGED
        assert step.state.applied == 1


def test_chosen_applies_exactly_the_batch_that_it_names() -> None:
    assert acceptor.chosen(accepted(), 1, OTHER.digest).effects == ()
    step = acceptor.chosen(accepted(), 1, FIRST.digest)
    assert step.effects == (Apply(1, FIRST),)
    assert not step.must_be_durable


def test_learn_passes_over_what_is_applied_and_stops_at_a_gap() -> None:
    step = acceptor.learn(AcceptorState(), 1, [FIRST, SECOND])
    assert step.state.applied == 2
    assert acceptor.learn(step.state, 1, [FIRST, SECOND]).effects == ()
    assert acceptor.learn(AcceptorState(), 2, [SECOND]).state.applied == 0


def test_learn_replaces_a_tail_that_lost() -> None:
    step = acceptor.learn(accepted(parsed=OTHER), 1, [FIRST])
    assert step.effects == (Apply(1, FIRST),)
    assert step.state.tail is None


def test_a_copy_keeps_the_promise() -> None:
    state = acceptor.copied(accepted(HIGH), 7, SECOND.digest)
    assert state == AcceptorState(HIGH, 7, SECOND.digest, None)


_ballots = st.builds(Ballot, st.integers(1, 4), st.sampled_from([b"a", b"b"]))
_requests = st.one_of(
    st.tuples(st.just("promise"), _ballots),
    st.tuples(st.just("accept"), _ballots, st.integers(1, 3), st.sampled_from([FIRST, SECOND, OTHER])),
    st.tuples(
        st.just("chosen"), st.integers(1, 3), st.sampled_from([FIRST.digest, SECOND.digest, OTHER.digest])
    ),
)


@settings(derandomize=True, max_examples=300)
@given(st.lists(_requests, max_size=30))
def test_invariants_hold_under_any_requests(requests: list[tuple]) -> None:  # type: ignore[type-arg]
    state = AcceptorState()
    vows: dict[tuple[int, Ballot], bytes] = {}
    for name, *arguments in requests:
        before = state
        step = getattr(acceptor, name)(state, *arguments)
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
        if state != before:
            assert step.effects, "a change that nobody would write down"
