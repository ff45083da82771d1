"""Verdicts on replies, in cases that the simulation would take long to reach."""

from __future__ import annotations

from dfs_server.protocol import batches
from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import Batch
from dfs_server.protocol.messages import Accepted, AcceptedAt, Behind, Position, Promised, Refused
from dfsfuse.log.proposer import NEAR_SLOTS, IsChosen, Leased, NoQuorum, Outranked, Pending, Prepare, Propose, Won


def test_only_servers_that_took_the_batch_from_us_give_the_lease() -> None:
    """DFS3 has it already, from a client that finished it for us: its vote counts for the batch, but gives no lease."""
    propose = Propose(slot=1, digest=b"d")
    for server in (1, 2, 3, 4):
        propose.waiting.add(server)
    propose.receive(1, AcceptedAt(1))
    propose.receive(2, AcceptedAt(1))
    propose.receive(3, Position(1, b"d", ZERO))
    assert propose.verdict() == IsChosen()
    assert propose.leasing == {1, 2}


def test_a_server_that_is_behind_and_answers_first_does_not_end_the_round() -> None:
    """It can be brought up to date, but only from a server that has accepted, so the round waits for that one."""
    propose = Propose(slot=3, digest=b"d")
    for server in (1, 2, 3, 4):
        propose.waiting.add(server)
    propose.fail(1)
    propose.receive(2, Behind(1))
    assert isinstance(propose.verdict(), Pending)
    propose.receive(4, Behind(0))
    assert isinstance(propose.verdict(), Pending)
    propose.receive(3, AcceptedAt(3))
    assert isinstance(propose.verdict(), NoQuorum)
    assert (propose.accepted, propose.behind) == ({3}, {2: 1, 4: 0})


def test_a_quorum_of_promises_waits_for_servers_that_can_accept() -> None:
    """DFS1 has missed everything. The tail of DFS2 is applied when it hears of the next batch."""
    encoded = batches.encode(Batch(batches.FORMAT, b"of 6", b"client", 1, 0))
    tail = Accepted(7, Ballot(1, b"client"), encoded)
    prepare = Prepare(ballot=Ballot(2, b"other"))
    for server in (1, 2, 3, 4):
        prepare.waiting.add(server)
    prepare.receive(1, Promised(0, b""))
    prepare.receive(2, Promised(6, b"of 6", tail))
    assert not prepare.could_decide()
    prepare.receive(3, Promised(7, batches.digest(encoded)))
    assert prepare.verdict() == Pending(), "the last server may make the difference"
    assert prepare.could_decide(), "but not for long"
    prepare.receive(4, Promised(7, batches.digest(encoded)))
    won = prepare.verdict()
    assert isinstance(won, Won)
    assert (won.base.slot, won.holders, won.behind, won.unfinished) == (7, {3, 4}, {1}, None)


def test_a_server_with_another_batch_as_its_tail_cannot_accept_yet() -> None:
    encoded = batches.encode(Batch(batches.FORMAT, b"of 6", b"loser", 1, 0))
    prepare = Prepare(ballot=Ballot(2, b"other"))
    prepare.receive(1, Promised(6, b"of 6", Accepted(7, Ballot(1, b"loser"), encoded)))
    prepare.receive(2, Promised(7, b"of 7"))
    prepare.receive(3, Promised(7, b"of 7"))
    won = prepare.verdict()
    assert isinstance(won, Won)
    assert won.behind == {1}


def test_a_server_that_was_replaced_is_no_reason_to_give_up_a_slow_one() -> None:
    """Bringing an empty server up to date took longer than a commit may, while another server was less than a second
    late."""
    for applied, is_near in ((9_999 - NEAR_SLOTS, True), (9_999 - NEAR_SLOTS - 1, False), (0, False)):
        propose = Propose(slot=9_999, digest=b"d")
        propose.waiting.update((1, 2, 3, 4))
        propose.receive(2, Behind(applied))
        for server in (1, 3):
            propose.receive(server, AcceptedAt(9_999))
        assert propose.could_decide() == is_near, applied
        prepare = Prepare(ballot=Ballot(2, b"other"))
        prepare.waiting.update((1, 2, 3, 4))
        prepare.receive(2, Promised(applied, b"of another slot"))
        for server in (1, 3):
            prepare.receive(server, Promised(9_999, b"of 9,999"))
        assert prepare.could_decide() == is_near, applied
    propose.fail(4)
    assert isinstance(propose.verdict(), NoQuorum), "but when no other is left, it is needed"


def test_a_server_that_was_replaced_does_not_count_for_one_that_refuses_for_now() -> None:
    """Two mounts wrote while one server had come back empty. Its promise completed a quorum of which only two
    could accept, and the one that would have been the third had just promised the other mount."""
    higher = Ballot(3, b"other")
    for refusal, expected in ((Refused(higher, 300), Leased()), (Refused(higher, 0), Outranked(higher))):
        for applied, is_near in ((9_999 - NEAR_SLOTS, True), (0, False)):
            prepare = Prepare(ballot=Ballot(2, b"one"))
            prepare.waiting.update((1, 2, 3, 4))
            prepare.receive(2, Promised(applied, b"of another slot"))
            for server in (1, 3):
                prepare.receive(server, Promised(9_999, b"of 9,999"))
            prepare.receive(4, refusal)
            verdict = prepare.verdict()
            assert isinstance(verdict, Won) if is_near else verdict == expected
