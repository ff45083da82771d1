"""Servers without room: who says so, and when they are asked again."""

from __future__ import annotations

import pytest

from dfs_server.protocol.messages import AcceptedAt, Done, GetStatus, Message, PutPiece, ServerStatus
from dfs_server.protocol.status import Status
from dfsfuse.net.calls import Answer, Call, Failure, is_full
from dfsfuse.net.full import ASK_AGAIN_S, Full

PUT = Call(1, PutPiece(b"s" * 16, 1, b""))
ASK = Call(1, GetStatus())


def status(free_bytes: int) -> ServerStatus:
    return ServerStatus("DFS1", "0", 1, free_bytes, 100, 0, 0)


@pytest.mark.parametrize(
    ("call", "reply", "full"),
    [
        (ASK, AcceptedAt(1, full=True), True),
        (ASK, AcceptedAt(1), False),
        (ASK, status(0), True),
        (ASK, status(1), False),
        (PUT, Done(), False),
        (ASK, Done(), None),
    ],
)
def test_what_an_answer_says_of_room(call: Call, reply: Message, full: bool | None) -> None:
    assert is_full(Answer(call, reply, 0)) is full  # type: ignore[arg-type]


def test_what_a_failure_says_of_room() -> None:
    assert is_full(Failure(PUT, Status.NO_SPACE, "")) is True
    assert is_full(Failure(PUT, Status.IO_ERROR, "")) is None
    assert is_full(Failure(PUT, None, "")) is None


def test_a_full_server_is_asked_again_from_time_to_time_until_it_has_room(caplog: pytest.LogCaptureFixture) -> None:
    now = [100.0]
    full = Full({1: "DFS1", 2: "DFS2"}, lambda: now[0])
    full.told(1, full=False)
    assert full.now() == frozenset() and full.to_ask() == []
    full.told(2, full=True)
    full.told(2, full=True)
    assert full.now() == {2} and full.to_ask() == []
    now[0] += ASK_AGAIN_S
    assert full.to_ask() == [2]
    assert full.to_ask() == [], "it is being asked"
    full.told(2, full=False)
    assert full.now() == frozenset()
    assert [record.getMessage() for record in caplog.records] == [
        "DFS2 is full: data goes to others",
        "DFS2 has room again",
    ]
