"""Which operations wait for servers to return."""

from __future__ import annotations

import errno

import pytest

from dfsfuse.errors import (
    AuthenticationError,
    IncompleteError,
    LostError,
    MaybeDoneError,
    NoSpaceError,
    ReadOnlyError,
    UnavailableError,
    WrongServerError,
)
from dfsfuse.mount.waiting import Waiting

WAIT_S = 60.0


@pytest.mark.parametrize(
    ("error", "operation", "with_some_missing", "with_all_there"),
    [
        (ReadOnlyError(), "mkdir", True, True),
        (UnavailableError(), "lookup", True, False),
        (IncompleteError(), "read", True, False),
        (MaybeDoneError(), "mkdir", False, False),
        (MaybeDoneError(), "flush", True, True),
        (MaybeDoneError(), "fsync", True, True),
        (MaybeDoneError(), "release", True, True),
        (LostError(), "fsync", False, False),
        (NoSpaceError(), "write", False, False),
        (AuthenticationError(), "read", False, False),
        (WrongServerError(), "read", False, False),
        (OSError(errno.ENOENT, "no such file"), "open", False, False),
        (OSError(errno.EIO, "the record cannot be read"), "open", False, False),
        (ZeroDivisionError(), "open", False, False),
    ],
)
def test_what_lacks_servers_and_may_be_done_again(
    error: Exception, operation: str, with_some_missing: bool, with_all_there: bool
) -> None:
    for all_answer, waits in ((False, with_some_missing), (True, with_all_there)):
        waiting = Waiting(WAIT_S, lambda answer=all_answer: answer, lambda _: False)  # type: ignore[misc]
        assert waiting.may_wait_s(error, operation, 42) == (WAIT_S if waits else 0)


def test_a_program_that_is_ending_does_not_wait() -> None:
    waiting = Waiting(WAIT_S, lambda: False, lambda thread: thread == 42)
    assert waiting.may_wait_s(ReadOnlyError(), "flush", 42) == 0
    assert waiting.may_wait_s(ReadOnlyError(), "flush", 43) == WAIT_S
