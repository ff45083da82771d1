"""Single steps of the client's side of the log. All of it together is tested in tests/simulation."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.batches import MAX_BATCH_BYTES, NO_BATCH
from dfs_server.protocol.messages import Accept, AcceptedAt, Change, Changes, GetChanges, Position, Promise, Promised
from dfsfuse.cluster.log_protocol import Contents, LogState, News, catch_up, commit
from dfsfuse.cluster.procedures import Ask, Event, Procedure, Receive
from dfsfuse.cluster.proposer import Point


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


CHANGE = Change(6, b"digest of 6", b"another", 1, (b"a",))


def answer_positions(procedure: Procedure[bool]) -> object:
    """Three servers say that the log ends at slot 6; gives the next step."""
    step: object = next(procedure)
    position = Position(6, CHANGE.digest, ZERO)
    for server in (1, 2, 3):
        while not isinstance(step, Receive):
            step = procedure.send(None)
        step = procedure.send(Event(server, position))
    return step


def learn_from_servers(log: LogState, answers: dict[int, Event | None]) -> bool:
    """Catch up to slot 6. Each server that is asked for the changes answers so; None: not within the short wait, but in
    the end."""
    procedure = catch_up(log)
    step = answer_positions(procedure)
    asked: list[int] = []
    try:
        while True:
            if isinstance(step, Ask):
                asked += [server for server, request in step.requests.items() if isinstance(request, GetChanges)]
                step = procedure.send(None)
                continue
            assert isinstance(step, Receive)
            prompt = [server for server in asked if answers[server] is not None]
            if prompt:
                asked.remove(prompt[0])
                step = procedure.send(answers[prompt[0]])
            elif step.soft:
                step = procedure.send(None)
            else:
                step = procedure.send(Event(asked.pop(), Changes((CHANGE,), 6)))
    except StopIteration as stop:
        return bool(stop.value)


def test_slow_servers_are_waited_for_before_all_is_forgotten() -> None:
    """On a busy machine nobody may answer within the short wait. To forget is to lose track of what became of an own
    batch: the caller would get EIO though no server is down."""
    log = LogState(b"client", known=Point(5, b"digest of 5"))
    assert learn_from_servers(log, dict.fromkeys((1, 2, 3, 4)))
    assert log.known == Point(6, CHANGE.digest)
    assert log.news.changes == [CHANGE]
    assert not log.news.forget


def test_only_what_no_server_can_tell_is_forgotten() -> None:
    log = LogState(b"client", known=Point(5, b"digest of 5"))
    trimmed = {server: Event(server, Changes((), 6)) for server in (1, 2, 3, 4)}
    assert learn_from_servers(log, trimmed | {3: Event(3, Changes((CHANGE,), 6))})
    assert not log.news.forget
    log = LogState(b"client", known=Point(5, b"digest of 5"))
    assert learn_from_servers(log, dict(trimmed))
    assert log.news.forget
    assert log.known == Point(6, CHANGE.digest)


def test_recent_batches_take_no_more_memory_than_can_be_sent() -> None:
    log = LogState(b"client")
    for slot in range(1, 65):
        log.proposed(slot, bytes(1_000_000))
    assert sum(len(encoded) for _, encoded in log.recent) <= MAX_BATCH_BYTES
    assert len(log.recent_from(63)) == 2
    assert log.recent_from(62) == ()
