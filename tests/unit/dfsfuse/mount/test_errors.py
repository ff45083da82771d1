"""Every error becomes an errno for the kernel."""

from __future__ import annotations

import errno
import logging

import pytest

from dfsfuse.errors import IncompleteError, NoSpaceError, ReadOnlyError, TooLargeError, UnavailableError
from dfsfuse.mount.errors import errno_of, errno_of_with


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (FileNotFoundError(errno.ENOENT, "no"), errno.ENOENT),
        (OSError(errno.ENODATA, "no"), errno.ENODATA),
        (ReadOnlyError("two servers answer"), errno.EROFS),
        (UnavailableError("no server answers"), errno.EIO),
        (NoSpaceError("full"), errno.ENOSPC),
        (IncompleteError("P2 is missing"), errno.EIO),
        (TooLargeError("large"), errno.EFBIG),
        (ValueError("what?"), errno.EIO),
        (OSError("an OSError without a number"), errno.EIO),
        (OSError(-5, "a number that is none"), errno.EIO),
        (MemoryError(), errno.EIO),
    ],
)
def test_errno(error: Exception, number: int) -> None:
    assert errno_of(error, "open '/f'") == number


def test_an_unexpected_exception_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ValueError("what?")
    except ValueError as error:
        errno_of(error, "open '/f'")
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "open '/f'" in caplog.text
    assert "ValueError: what?" in caplog.text


def test_the_sentence_of_a_server_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errno_of(ReadOnlyError("DFS1 and DFS2 do not answer"), "create '/f'")
    assert "DFS1 and DFS2 do not answer" in caplog.text


def test_the_sentence_about_a_record_that_cannot_be_read_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    errno_of(OSError(errno.EIO, "format 9; this program knows format 1"), "open '/f'")
    assert "format 9" in caplog.text
    assert "Traceback" not in caplog.text


def test_what_a_local_file_system_would_also_say_is_not(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    errno_of(FileNotFoundError(errno.ENOENT, "no"), "open '/f'")
    assert caplog.text == ""


def test_many_requests_that_fail_alike_are_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        assert errno_of(IncompleteError("no good copy of P3 of segment 77"), "read '/g'") == errno.EIO
    assert caplog.text.count("no good copy of P3 of segment 77") == 1


def test_a_mount_may_give_another_number_for_eio() -> None:
    numbers = errno_of_with(errno.EREMOTEIO)
    for error in (
        IncompleteError("no good copy"),
        UnavailableError("no server answers"),
        OSError(errno.EIO, "damaged"),
    ):
        assert numbers(error, "open '/f'") == errno.EREMOTEIO
    assert numbers(ReadOnlyError("DFS1 and DFS2 do not answer"), "create '/f'") == errno.EROFS
    assert numbers(FileNotFoundError(errno.ENOENT, "no"), "open '/f'") == errno.ENOENT
