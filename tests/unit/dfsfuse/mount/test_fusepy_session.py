"""The structures that go to libfuse."""

from __future__ import annotations

import ctypes
import os
import stat

import fuse
import pytest

from dfsfuse.mount import fusepy_session
from dfsfuse.mount.fusepy_session import NOW, TimeChange, fill_stat, time_of
from dfsfuse.vfs.attributes import Attributes


@pytest.mark.parametrize(
    ("seconds", "nanoseconds", "expected"),
    [
        (5, 7, 5_000_000_007),
        (1, 73_741_822, 1_073_741_822),  # a time, though as a number it is UTIME_OMIT
        (-1, 500_000_000, -500_000_000),
        (0, fusepy_session.UTIME_OMIT, None),
        (0, fusepy_session.UTIME_NOW, NOW),
    ],
)
def test_times(seconds: int, nanoseconds: int, expected: TimeChange) -> None:
    assert time_of(fuse.c_timespec(seconds, nanoseconds)) == expected


def test_stat() -> None:
    status = fuse.c_stat()
    status.st_rdev = 99
    mode = stat.S_IFREG | 0o4755
    fill_stat(
        ctypes.pointer(status),
        Attributes(2**63, mode, 3, 4, 5, 2**62, 0, -500_000_000, 7 * 10**9 + 1, 8, blocks=9),
    )
    assert (status.st_ino, status.st_mode, status.st_nlink) == (2**63, mode, 3)
    assert (status.st_uid, status.st_gid, status.st_rdev) == (4, 5, 0)
    assert (status.st_size, status.st_blocks) == (2**62, 9)
    assert (status.st_atimespec.tv_sec, status.st_atimespec.tv_nsec) == (-1, 500_000_000)
    assert (status.st_mtimespec.tv_sec, status.st_mtimespec.tv_nsec) == (7, 1)


def test_statvfs_is_as_long_as_the_c_librarys() -> None:
    """libfuse's buffer is the C library's structure: one that is longer would write beyond it."""
    buffer = ctypes.create_string_buffer(256)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.statvfs(b"/", buffer) == 0
    found = fusepy_session.Statvfs.from_buffer(buffer)
    expected = os.statvfs("/")
    assert ctypes.sizeof(fusepy_session.Statvfs) == 112
    assert (found.f_bsize, found.f_blocks) == (expected.f_bsize, expected.f_blocks)
    assert found.f_namemax == expected.f_namemax


def test_a_comma_in_an_option_does_not_end_it() -> None:
    assert fusepy_session.escaped("alice@a:1,2\\3") == "alice@a:1\\,2\\\\3"
