"""What replies add up to, where the simulation would need long to come by: the lease."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import AcceptedAt, Position
from dfsfuse.cluster.proposer import IsChosen, Point, Propose, Survey


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
    def survey(*leases: int) -> Survey:
        found = Survey(known=Point(0, b""))
        for server, lease in enumerate(leases, 1):
            found.receive(server, Position(0, b"", ZERO, b"", lease))
        return found

    before: dict[int, int] = {}
    assert not survey(5, 5, 5, 0).free_of(before)
    assert not survey(1, 1, 5, 0).free_of(before), "two restarted: the lease they knew may still hold"
    assert survey(6, 0, 5, 0).free_of(before), "another lease on one, none on two"
