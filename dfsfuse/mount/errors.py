"""Errors of the mount itself, and the conversion of any error of an operation to an errno.

    DfsError
    ├── MountpointError     the mountpoint cannot be used as asked                          exit code 10
    ├── FuseMissingError    this machine has no (usable) FUSE, or FUSE refused the mount    exit code 11
    ├── MountBusyError      the mount is in use and was not unmounted                       exit code 12
    │   └── MountedElsewhereError   it was, but another mount namespace still has it
    └── MountTimeoutError   the mount did not start, or its process did not finish, in time exit code 13

`errno_of` is the only place where an exception becomes an errno for the kernel; every binding uses it.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable

from dfsfuse.errors import DfsError
from dfsfuse.mount.repetition import Repetition

log = logging.getLogger(__name__)
_repetition = Repetition()


class MountpointError(DfsError):
    """The mountpoint is missing, not a folder, not empty, already mounted, or not mounted."""

    exit_code = 10


class FuseMissingError(DfsError):
    """libfuse, fusermount3 or /dev/fuse is missing, or FUSE refused the mount."""

    exit_code = 11


class MountBusyError(DfsError):
    """Something uses the mount."""

    exit_code = 12


class MountedElsewhereError(MountBusyError):
    """The mount is gone here, but it is also mounted in another mount namespace, where it is still served."""


class MountTimeoutError(DfsError):
    """A wait reached its deadline."""

    exit_code = 13


def _warn_once(line: str) -> None:
    due = _repetition.worth_logging(line, time.monotonic())
    if due is not None:
        log.warning("%s", due)


def errno_of_with(eio: int) -> Callable[[Exception, str], int]:
    """`errno_of` for a mount in which programs get this number instead of EIO."""

    def with_number(error: Exception, operation: str) -> int:
        number = errno_of(error, operation)
        return eio if number == errno.EIO else number

    return with_number


def errno_of(error: Exception, operation: str) -> int:
    """The positive errno for the kernel. An unexpected exception is EIO, with a traceback in the log.

    An error about the servers (a `DfsError`) or about an unreadable record (EIO) is logged with its sentence, since the
    program that made the call sees only the number. The same line is not logged again and again.
    """
    if isinstance(error, DfsError):
        _warn_once(f"{operation}: {error}")
        return error.errno
    if isinstance(error, OSError) and isinstance(error.errno, int) and error.errno > 0:
        if error.errno == errno.EIO:
            _warn_once(f"{operation}: {error}")
        else:
            log.debug("%s: %s", operation, error)
        return error.errno
    log.error("%s failed unexpectedly; the program gets EIO", operation, exc_info=error)
    return errno.EIO
