"""What replies add up to, where the simulation would need long to come by: the lease."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import AcceptedAt, Behind, Position
from dfsfuse.cluster.proposer import IsChosen, Newest, NoQuorum, Pending, Point, Propose, Survey


def test_only_servers_that_took_the_batch_from_us_give_the_lease() -> None:
    """DFS3 has it already, from a client that finished it for us: it counts for the batch, and brings no lease."""
    propose = Propose(slot=1, digest=b"d")
    for server in (1, 2, 3, 4):
        propose.ask(server)
    propose.receive(1, AcceptedAt(1))
    propose.receive(2, AcceptedAt(1))
    propose.receive(3, Position(1, b"d", ZERO))
    assert propose.verdict() == IsChosen()
    assert propose.leasing == {1, 2}


def test_a_server_that_restarts_is_not_taken_for_one_whose_lease_has_ended() -> None:
    before: dict[int, int] = {}

    def survey(*leases: int) -> Survey:
        found = Survey(known=Point(0, b""), leases=before)
        for server, lease in enumerate(leases, 1):
            found.receive(server, Position(0, b"", ZERO, b"", lease))
        return found

    assert not survey(5, 5, 5, 0).is_free()
    assert not survey(1, 1, 5, 0).is_free(), "two restarted: the lease they knew may still hold"
    assert survey(6, 0, 5, 0).is_free(), "another lease on one, none on two"


def test_who_is_behind_and_answers_first_does_not_end_the_round() -> None:
    """It may be brought up to date, but only by a server that has accepted: that one is waited for."""
    propose = Propose(slot=3, digest=b"d")
    for server in (1, 2, 3, 4):
        propose.ask(server)
    propose.fail(1)
    propose.receive(2, Behind(1))
    assert isinstance(propose.verdict(), Pending)
    propose.receive(4, Behind(0))
    assert isinstance(propose.verdict(), Pending)
    propose.receive(3, AcceptedAt(3))
    assert isinstance(propose.verdict(), NoQuorum)
    assert (propose.accepted, propose.behind) == ({3}, {2: 1, 4: 0})


def test_a_server_that_has_just_started_makes_the_last_answer_worth_waiting_for() -> None:
    survey = Survey(known=Point(0, b""), leases={})
    for server in (1, 2, 3, 4):
        survey.ask(server)
    for server, lease in ((2, 1), (1, 0), (3, 0)):
        survey.receive(server, Position(0, b"", ZERO, b"", lease))
    assert survey.verdict() == Pending()
    assert survey.could_decide(), "but not for long"
    survey.receive(4, Position(0, b"", ZERO, b"", 0))
    assert isinstance(survey.verdict(), Newest)
    assert survey.is_free()
