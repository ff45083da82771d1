"""How replies and broken connections become outcomes."""

from __future__ import annotations

import errno
import os

import pytest

from dfs_server.protocol.ballots import ZERO
from dfs_server.protocol.frames import ProtocolError
from dfs_server.protocol.messages import Done, Error, GetPosition, Position
from dfs_server.protocol.status import Status
from dfsfuse.errors import WrongServerError
from dfsfuse.net.calls import Answer, Call, Failure, failure_of, outcome_of, status_of
from dfsfuse.net.handshake import RefusalError
from dfsfuse.net.servers import ServerAddress

SERVER = ServerAddress(3, "DFS3", "127.0.0.1", 10003)
WHO = "DFS3 (127.0.0.1:10003)"
CALL = Call(3, GetPosition())
WRONG = WrongServerError("the server at 127.0.0.1:10003 is DFS4")


def test_fitting_reply_is_an_answer() -> None:
    position = Position(1, b"", ZERO)
    assert outcome_of(CALL, SERVER, position, 0) == Answer(CALL, position, 0)


def test_error_is_a_failure_with_the_servers_words() -> None:
    outcome = outcome_of(CALL, SERVER, Error(Status.IO_ERROR, "the disk failed"), 0)
    assert outcome == Failure(CALL, Status.IO_ERROR, f"{WHO}: the disk failed")


def test_reply_to_another_request_is_no_answer() -> None:
    with pytest.raises(ProtocolError, match="Done is no answer to GetPosition"):
        outcome_of(CALL, SERVER, Done(), 0)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)),
            Failure(CALL, None, f"{WHO} does not answer: connection refused"),
        ),
        (
            TimeoutError(0, "no byte moved for 1 s"),
            Failure(CALL, None, f"{WHO} does not answer: no byte moved for 1 s"),
        ),
        (OSError("odd"), Failure(CALL, None, f"{WHO} does not answer: odd")),
        (ProtocolError("nonsense"), Failure(CALL, None, f"{WHO} does not speak this protocol: nonsense")),
        (RefusalError(Status.BUSY, "too many"), Failure(CALL, Status.BUSY, f"{WHO}: too many")),
        (WRONG, Failure(CALL, None, str(WRONG), WRONG)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_end_of_a_connection_is_a_failure_that_names_the_server(error: Exception, expected: Failure) -> None:
    assert failure_of(CALL, SERVER, error) == expected


def test_status_of_a_newer_server_is_an_io_error() -> None:
    assert status_of(5) is Status.NOT_FOUND
    assert status_of(77) is Status.IO_ERROR
