"""Single steps of writing the log. The whole is tested in tests/simulation."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO, Ballot
from dfs_server.protocol.batches import NO_BATCH
from dfs_server.protocol.messages import (
    Accept,
    AcceptedAt,
    Batches,
    Behind,
    GetBatches,
    GetPosition,
    Learn,
    Position,
    Promise,
    Promised,
    Refused,
)
from dfsfuse.log.procedures import Ask, Event, Pause, Procedure, Receive
from dfsfuse.log.proposer import Point
from dfsfuse.log.state import Contents, LogState, News
from dfsfuse.log.writing import commit


def no_conflict(_: News) -> bool:
    return False


def begin(procedure: Procedure[bool]) -> Ask:
    step = next(procedure)
    assert isinstance(step, Ask)
    return step


def promised(procedure: Procedure[bool]) -> Ask:
    """Let three servers promise, and return the next requests."""
    for server in (1, 2, 3):
        procedure.send(None if server == 1 else Event(server - 1, Promised(0, NO_BATCH)))
    step = procedure.send(Event(3, Promised(0, NO_BATCH)))
    assert isinstance(step, Ask)
    return step


def test_a_ballot_is_not_used_again_when_a_commit_was_interrupted() -> None:
    """By Ctrl-C, for example: a server may have accepted the batch, and one ballot must never stand for two batches."""
    log = LogState(b"client")
    first = commit(log, Contents(puts=((b"a", b"1"),)), no_conflict, 0)
    begin(first)
    sent = promised(first)
    accept = sent.requests[1]
    assert isinstance(accept, Accept)
    first.close()
    second = commit(log, Contents(puts=((b"b", b"1"),)), no_conflict, 0)
    promise = begin(second).requests[1]
    assert isinstance(promise, Promise)
    assert promise.ballot > accept.ballot


def test_a_ballot_is_kept_from_one_commit_to_the_next() -> None:
    log = LogState(b"client")
    first = commit(log, Contents(puts=((b"a", b"1"),)), no_conflict, 0)
    begin(first)
    promised(first)
    step: object = first.send(None)
    try:
        for server in (1, 2, 3):
            assert isinstance(step, Receive)
            step = first.send(Event(server, AcceptedAt(1)))
    except StopIteration as stop:
        assert stop.value is True
    second = commit(log, Contents(puts=((b"b", b"1"),)), no_conflict, 0)
    assert isinstance(begin(second).requests[1], Accept)


def test_the_server_that_lacks_the_least_is_brought_up_to_date_and_no_other() -> None:
    """DFS2 has a new disk and DFS4 missed one batch: only one of them is needed, and DFS2 would take seconds."""
    log = LogState(b"client", known=Point(9, b"of 9"), ballot=Ballot(1, b"client"))
    procedure = commit(log, Contents(puts=((b"a", b"1"),)), no_conflict, 0)
    assert isinstance(begin(procedure).requests[1], Accept)
    step: object = procedure.send(None)
    for server, reply in ((2, Behind(0)), (4, Behind(8)), (1, AcceptedAt(10)), (3, AcceptedAt(10))):
        assert isinstance(step, Receive)
        step = procedure.send(Event(server, reply))
    asked: list[int] = []
    answers = {
        GetPosition: Position(8, b"of 8", ZERO),
        GetBatches: Batches(9, (b"9",), 9),
        Learn: Position(9, b"", ZERO),
    }
    while isinstance(step, Ask) and len(step.requests) == 1:
        ((server, request),) = step.requests.items()
        asked.append(server)
        procedure.send(None)
        step = procedure.send(Event(server, answers[type(request)] if server in {1, 4} else None))
    assert set(asked) == {1, 4}
    assert isinstance(step, Ask) and isinstance(step.requests[4], Accept), "and then all are asked again"


def test_a_writer_that_the_third_server_refuses_waits_and_does_not_give_up() -> None:
    """DFS2 has a new disk, and DFS4 has just promised another client: however often that happens, it is asked again."""
    log = LogState(b"client")
    procedure = commit(log, Contents(puts=((b"a", b"1"),)), no_conflict, 0)
    step: object = begin(procedure)
    for _ in range(20):
        assert isinstance(step, Ask) and isinstance(step.requests[4], Promise)
        step = procedure.send(None)
        higher = Refused(log.highest.above(b"other"), 0)
        for server, reply in (
            (1, Promised(9_999, b"of 9,999")),
            (2, Promised(0, NO_BATCH)),
            (3, Promised(9_999, b"of 9,999")),
            (4, higher),
        ):
            assert isinstance(step, Receive)
            step = procedure.send(Event(server, reply))
        assert isinstance(step, Pause)
        step = procedure.send(None)
