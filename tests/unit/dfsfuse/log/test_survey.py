"""Finding the end of the log without a quorum: all servers that answer are heard, and only they count."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.messages import Position
from dfsfuse.log.proposer import NoQuorum, Pending, Point
from dfsfuse.log.survey import Newest, Survey

DIGEST = b"d" * 32


def survey(known: Point, leases: dict[int, int] | None = None) -> Survey:
    asked = Survey(3, known=known, leases=leases)
    for server in (1, 2, 3, 4):
        asked.waiting.add(server)
    return asked


def test_silence_of_all_is_no_answer() -> None:
    """Otherwise a mount without servers would go on answering from its memory."""
    asked = survey(Point(7, DIGEST))
    for server in (1, 2, 3):
        asked.fail(server)
        assert asked.verdict() == Pending()
    asked.fail(4)
    assert asked.verdict() == NoQuorum(0)


def test_what_the_last_two_know_is_heard_when_the_others_failed_first() -> None:
    asked = survey(Point(7, DIGEST))
    asked.fail(1)
    asked.fail(2)
    assert asked.verdict() == Pending()
    assert not asked.could_decide()
    asked.receive(3, Position(7, DIGEST, Ballot(0, b"")))
    assert asked.could_decide()
    asked.receive(4, Position(9, b"e" * 32, Ballot(0, b"")))
    assert asked.verdict() == NoQuorum(2)
    assert asked.best() == Point(9, b"e" * 32)


def test_a_lease_that_was_there_at_first_must_have_ended() -> None:
    leases: dict[int, int] = {}
    first = survey(Point(0, b""), leases)
    for server, lease in ((1, 3), (2, 0), (3, 5)):
        first.receive(server, Position(7, DIGEST, Ballot(0, b""), lease=lease))
    assert not first.is_free()
    assert leases == {1: 3, 2: 0, 3: 5}
    second = survey(Point(0, b""), leases)
    for server, lease in ((1, 4), (2, 0), (3, 5)):
        second.receive(server, Position(7, DIGEST, Ballot(0, b""), lease=lease))
    assert not second.is_free()
    second.receive(4, Position(7, DIGEST, Ballot(0, b""), lease=0))
    assert second.is_free()


def test_a_client_that_knows_nothing_waits_for_the_second_of_two_servers() -> None:
    """The first to answer may be far behind: to a client that has just started it is no better than none."""
    for known, may_decide in ((Point(0, b""), False), (Point(7, DIGEST), True)):
        asked = survey(known)
        asked.fail(1)
        asked.fail(2)
        asked.receive(3, Position(0, b"", Ballot(0, b"")))
        assert asked.could_decide() is may_decide
        asked.receive(4, Position(9, b"e" * 32, Ballot(0, b"")))
        assert asked.verdict() == NoQuorum(2)


def test_a_server_that_restarts_is_not_taken_for_one_whose_lease_has_ended() -> None:
    before: dict[int, int] = {}

    def told(*leases: int) -> Survey:
        found = Survey(known=Point(0, b""), leases=before)
        for server, lease in enumerate(leases, 1):
            found.receive(server, Position(0, b"", ZERO, b"", lease))
        return found

    assert not told(5, 5, 5, 0).is_free()
    assert not told(1, 1, 5, 0).is_free(), "two have restarted, and the lease that they knew may still be held"
    assert told(6, 0, 5, 0).is_free(), "another lease on one, none on two"


def test_a_server_that_has_just_started_makes_the_last_answer_worth_waiting_for() -> None:
    asked = survey(Point(0, b""), {})
    for server, lease in ((2, 1), (1, 0), (3, 0)):
        asked.receive(server, Position(0, b"", ZERO, b"", lease))
    assert asked.verdict() == Pending()
    assert asked.could_decide(), "but not for long"
    asked.receive(4, Position(0, b"", ZERO, b"", 0))
    assert isinstance(asked.verdict(), Newest)
    assert asked.is_free()


def without_a_quorum(*positions: Position) -> Survey:
    asked = survey(Point(0, b""))
    for server, position in enumerate(positions, 1):
        asked.receive(server, position)
    for server in set(asked.waiting):
        asked.fail(server)
    assert asked.verdict() == NoQuorum(len(positions))
    return asked


def test_two_show_the_end_of_the_log_if_neither_holds_more() -> None:
    """Every quorum includes one of them."""
    assert without_a_quorum(Position(7, DIGEST, ZERO), Position(7, DIGEST, ZERO)).witnesses() == {1, 2}
    assert without_a_quorum(Position(5, b"c" * 32, ZERO), Position(7, DIGEST, ZERO)).witnesses() == {1, 2}
    known_by_the_other = Position(6, b"c" * 32, ZERO, tail_digest=DIGEST)
    assert without_a_quorum(known_by_the_other, Position(7, DIGEST, ZERO)).witnesses() == {1, 2}


def test_two_do_not_show_it_if_one_holds_a_batch_that_may_be_chosen() -> None:
    in_doubt = Position(7, DIGEST, ZERO, tail_digest=b"e" * 32)
    assert without_a_quorum(in_doubt, Position(7, DIGEST, ZERO)).witnesses() == frozenset()


def test_one_shows_nothing() -> None:
    """The other three may have gone on without it."""
    assert without_a_quorum(Position(7, DIGEST, ZERO)).witnesses() == frozenset()
