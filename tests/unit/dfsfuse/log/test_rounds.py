"""Single steps of learning what others changed. The whole is tested in tests/simulation."""

from __future__ import annotations

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.messages import Change, Changes, GetChanges, Position
from dfsfuse.log.procedures import Ask, Event, Procedure, Receive
from dfsfuse.log.proposer import Point
from dfsfuse.log.reading import catch_up
from dfsfuse.log.state import LogState

CHANGE = Change(6, b"digest of 6", b"another", 1, (b"a",))


def answer_positions(procedure: Procedure[bool]) -> object:
    """Let three servers say that the log ends at slot 6, and return the next step."""
    step: object = next(procedure)
    position = Position(6, CHANGE.digest, ZERO)
    for server in (1, 2, 3):
        while not isinstance(step, Receive):
            step = procedure.send(None)
        step = procedure.send(Event(server, position))
    return step


def learn_from_servers(log: LogState, answers: dict[int, Event | None]) -> bool:
    """Catch up to slot 6, with the servers' answers to the request for changes. None: the server answers only after the
    short wait."""
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
    """On a busy machine perhaps no server answers within the short wait. Forgetting would lose track of this client's
    own batch, and the caller would get EIO although no server is down."""
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
