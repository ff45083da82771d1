"""Single steps of writing the log. All of it together is tested in tests/simulation."""

from __future__ import annotations

from dfs_server.protocol.batches import NO_BATCH
from dfs_server.protocol.messages import Accept, AcceptedAt, Promise, Promised
from dfsfuse.cluster.log_state import Contents, LogState, News
from dfsfuse.cluster.log_writing import commit
from dfsfuse.cluster.procedures import Ask, Event, Procedure, Receive


def no_conflict(_: News) -> bool:
    return False


def begin(procedure: Procedure[bool]) -> Ask:
    step = next(procedure)
    assert isinstance(step, Ask)
    return step


def promised(procedure: Procedure[bool]) -> Ask:
    """Three servers promise; gives what is asked for next."""
    for server in (1, 2, 3):
        procedure.send(None if server == 1 else Event(server - 1, Promised(0, NO_BATCH)))
    step = procedure.send(Event(3, Promised(0, NO_BATCH)))
    assert isinstance(step, Ask)
    return step


def test_a_ballot_is_not_used_again_when_a_commit_was_interrupted() -> None:
    """By Ctrl-C, say: a server may have accepted the batch, and another one under the same ballot would be its twin."""
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
