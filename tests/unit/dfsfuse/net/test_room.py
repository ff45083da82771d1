"""What an answer says about its server's room."""

from __future__ import annotations

import pytest

from dfs_server.protocol.messages import AcceptedAt, Done, GetStatus, Message, PutPiece, ServerStatus
from dfs_server.protocol.status import Status
from dfsfuse.net.calls import Answer, Call, Failure, is_full

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
