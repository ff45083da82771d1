"""Conformance: modes, owners, times, extended attributes, free space."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable

from conformance.fs import UTIME_NOW, UTIME_OMIT, Fs, OsFs
from conformance.registry import case, content, fails, opened, read_all, read_file, write_all, write_file

SECOND_NS = 1_000_000_000
OLD = 1_000_000_000 * SECOND_NS + 123_456_789


def backdate(fs: Fs, *paths: bytes) -> None:
    """Set old times, so that any later change is visible without waiting."""
    for path in paths:
        fs.utimens(path, OLD, OLD)


def is_now(time_ns: int) -> bool:
    """Whether a time is the current one, with tolerance for a slow machine and a coarse clock."""
    return abs(time.time_ns() - time_ns) < 60 * SECOND_NS


@case
def chmod_sets_all_twelve_bits(fs: Fs) -> None:
    write_file(fs, b"f")
    fs.mkdir(b"d")
    for mode in (0o000, 0o644, 0o777, 0o4755, 0o2755, 0o1777, 0o7777, 0o600):
        fs.chmod(b"f", mode)
        fs.chmod(b"d", mode)
        assert (fs.stat(b"f").kind, fs.stat(b"f").permissions) == (stat.S_IFREG, mode)
        assert (fs.stat(b"d").kind, fs.stat(b"d").permissions) == (stat.S_IFDIR, mode)
    with fails(errno.ENOENT):
        fs.chmod(b"missing", 0o600)


@case
def chown_sets_one_or_both(fs: Fs) -> None:
    """Root can give a file to anybody; other users only to themselves."""
    uid, gid = (1234, 70_000) if os.getuid() == 0 else (os.getuid(), os.getgid())
    write_file(fs, b"f")
    fs.symlink(b"f", b"s")
    fs.mkdir(b"d")
    for path in (b"s", b"d", b"f"):
        fs.lchown(path, uid, -1)
        assert (fs.lstat(path).uid, fs.lstat(path).gid) == (uid, os.getgid())
        fs.lchown(path, -1, gid)
        assert (fs.lstat(path).uid, fs.lstat(path).gid) == (uid, gid)
        fs.lchown(path, os.getuid(), os.getgid())
        assert (fs.lstat(path).uid, fs.lstat(path).gid) == (os.getuid(), os.getgid())


@case
def times_are_kept_to_the_nanosecond(fs: Fs) -> None:
    write_file(fs, b"f")
    fs.mkdir(b"d")
    fs.symlink(b"f", b"s")
    for path in (b"f", b"d", b"s"):
        for atime, mtime in (
            (OLD, OLD + 1),
            (1, 999_999_999),
            (0, 0),
            (2**32 * SECOND_NS + 5, 4_000_000_000 * SECOND_NS),
        ):
            fs.utimens(path, atime, mtime)
            found = fs.lstat(path)
            assert (found.atime_ns, found.mtime_ns) == (atime, mtime)
            assert is_now(found.ctime_ns)
    assert fs.lstat(b"f").mtime_ns == 4_000_000_000 * SECOND_NS


@case
def times_before_1970_are_kept(fs: Fs) -> None:
    write_file(fs, b"f")
    fs.utimens(b"f", -1, -1_000_000 * SECOND_NS + 250)
    assert (fs.stat(b"f").atime_ns, fs.stat(b"f").mtime_ns) == (-1, -1_000_000 * SECOND_NS + 250)


@case
def a_time_that_is_too_far_off_is_the_nearest_that_can_be_kept(fs: Fs) -> None:
    write_file(fs, b"f", b"x")
    for seconds in (2 * 10**10, 2**40, -(2**40)):
        fs.utimens(b"f", seconds * SECOND_NS, seconds * SECOND_NS + 1)
        found = fs.stat(b"f")
        if seconds > 0:
            assert 2**33 * SECOND_NS < found.mtime_ns <= seconds * SECOND_NS + 1
        else:
            assert seconds * SECOND_NS <= found.mtime_ns <= -(2**31) * SECOND_NS
        assert abs(found.atime_ns) <= abs(seconds) * SECOND_NS
    assert read_file(fs, b"f") == b"x"
    fs.utimens(b"f", OLD, OLD)
    assert fs.stat(b"f").mtime_ns == OLD


@case
def utime_now_and_utime_omit_are_honoured(fs: Fs) -> None:
    write_file(fs, b"f")
    backdate(fs, b"f")
    fs.utimens(b"f", UTIME_OMIT, OLD + 5)
    assert (fs.stat(b"f").atime_ns, fs.stat(b"f").mtime_ns) == (OLD, OLD + 5)
    fs.utimens(b"f", OLD + 7, UTIME_OMIT)
    assert (fs.stat(b"f").atime_ns, fs.stat(b"f").mtime_ns) == (OLD + 7, OLD + 5)
    fs.utimens(b"f", UTIME_NOW, UTIME_OMIT)
    assert is_now(fs.stat(b"f").atime_ns)
    assert fs.stat(b"f").mtime_ns == OLD + 5
    fs.utimens(b"f", OLD, UTIME_NOW)
    assert fs.stat(b"f").atime_ns == OLD
    assert is_now(fs.stat(b"f").mtime_ns)
    backdate(fs, b"f")
    fs.utimens(b"f", UTIME_NOW, UTIME_NOW)
    assert is_now(fs.stat(b"f").atime_ns)
    assert is_now(fs.stat(b"f").mtime_ns)


@case
def a_time_set_after_the_last_write_outlives_the_close(fs: Fs) -> None:
    """As `cp -p` and `tar` do: write, set the time through the descriptor, close."""
    with opened(fs, b"f") as fd:
        write_all(fs, fd, b"content")
        fs.futimens(fd, OLD, OLD + 3)
        assert fs.fstat(fd).mtime_ns == OLD + 3
    assert (fs.stat(b"f").atime_ns, fs.stat(b"f").mtime_ns) == (OLD, OLD + 3)
    with opened(fs, b"f", os.O_WRONLY) as fd:
        write_all(fs, fd, b"again")
        fs.utimens(b"f", OLD, OLD + 4)
        fs.fsync(fd)
    assert fs.stat(b"f").mtime_ns == OLD + 4


@case
def changing_data_moves_mtime_and_ctime(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    backdate(fs, b"f")
    with opened(fs, b"f", os.O_WRONLY) as fd:
        write_all(fs, fd, b"C")
    assert is_now(fs.stat(b"f").mtime_ns)
    backdate(fs, b"f")
    fs.truncate(b"f", 3)
    assert is_now(fs.stat(b"f").mtime_ns)
    backdate(fs, b"f")
    fs.close(fs.open(b"f", os.O_WRONLY | os.O_TRUNC))
    assert is_now(fs.stat(b"f").mtime_ns)


@case
def truncating_to_the_size_it_has_moves_mtime_and_ctime(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    for is_unsaved in (False, True):
        with opened(fs, b"f", os.O_WRONLY) as fd:
            if is_unsaved:
                write_all(fs, fd, b"CONTENT")
            backdate(fs, b"f")
            before = fs.stat(b"f").ctime_ns
            fs.ftruncate(fd, 7)
            assert is_now(fs.stat(b"f").mtime_ns)
            assert fs.stat(b"f").ctime_ns > before
        assert is_now(fs.stat(b"f").mtime_ns)
    backdate(fs, b"f")
    fs.truncate(b"f", 7)
    assert is_now(fs.stat(b"f").mtime_ns)
    assert read_file(fs, b"f") == b"CONTENT"


@case
def opening_and_closing_alone_moves_nothing(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    backdate(fs, b"f")
    before = fs.stat(b"f")
    for flags in (os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_CREAT):
        fs.close(fs.open(b"f", flags))
    after = fs.stat(b"f")
    assert (after.mtime_ns, after.ctime_ns, after.size) == (before.mtime_ns, before.ctime_ns, before.size)


@case
def changing_attributes_moves_ctime_alone(fs: Fs) -> None:
    write_file(fs, b"f")
    backdate(fs, b"f")
    changes: list[Callable[[], None]] = [
        lambda: fs.chmod(b"f", 0o600),
        lambda: fs.link(b"f", b"g"),
        lambda: fs.unlink(b"g"),
    ]
    for change in changes:
        before = fs.stat(b"f")
        change()
        after = fs.stat(b"f")
        assert after.ctime_ns >= before.ctime_ns
        assert after.mtime_ns == OLD


@case
def changing_a_folder_moves_its_times(fs: Fs) -> None:
    fs.mkdir(b"d")
    fs.mkdir(b"e")
    changes: list[Callable[[], None]] = [
        lambda: write_file(fs, b"d/f"),
        lambda: fs.link(b"d/f", b"d/g"),
        lambda: fs.symlink(b"x", b"d/s"),
        lambda: fs.mkdir(b"d/d"),
        lambda: fs.rmdir(b"d/d"),
        lambda: fs.unlink(b"d/g"),
        lambda: fs.rename(b"d/f", b"e/f"),
        lambda: fs.rename(b"e/f", b"d/f"),
    ]
    for change in changes:
        backdate(fs, b"d")
        change()
        found = fs.stat(b"d")
        assert is_now(found.mtime_ns)
        assert is_now(found.ctime_ns)
    backdate(fs, b"d", b"e")
    fs.rename(b"d/f", b"e/f")
    assert is_now(fs.stat(b"d").mtime_ns)
    assert is_now(fs.stat(b"e").mtime_ns)


@case
def writing_into_a_file_leaves_its_folder_alone(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"d/f")
    backdate(fs, b"d")
    write_file(fs, b"d/f", b"content")
    fs.chmod(b"d/f", 0o600)
    assert fs.stat(b"d").mtime_ns == OLD


def counts_access(fs: Fs) -> bool:
    """Whether access times are updated: a plain folder may be on a disk that is mounted with noatime."""
    return not (isinstance(fs, OsFs) and os.statvfs(fs.root).f_flag & os.ST_NOATIME)


@case
def reading_sets_the_time_of_access_once(fs: Fs) -> None:
    """relatime: only if the access time is not later than the last change, or is a day old."""
    write_file(fs, b"f", b"content")
    backdate(fs, b"f")
    before = fs.stat(b"f")
    assert read_file(fs, b"f") == b"content"
    after = fs.stat(b"f")
    assert is_now(after.atime_ns) or not counts_access(fs)
    assert (after.mtime_ns, after.ctime_ns) == (before.mtime_ns, before.ctime_ns)
    fs.utimens(b"f", time.time_ns() + 60 * SECOND_NS, UTIME_OMIT)
    again = fs.stat(b"f").atime_ns
    read_file(fs, b"f")
    assert fs.stat(b"f").atime_ns == again


@case
def listing_sets_a_folders_time_of_access(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"d/f")
    backdate(fs, b"d")
    fs.listdir(b"d")
    assert is_now(fs.stat(b"d").atime_ns) or not counts_access(fs)
    assert fs.stat(b"d").mtime_ns == OLD


@case
def writing_and_looking_leave_the_time_of_access(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    backdate(fs, b"f")
    with opened(fs, b"f", os.O_WRONLY) as fd:
        write_all(fs, fd, b"C")
    fs.truncate(b"f", 3)
    fs.chmod(b"f", 0o600)
    fs.rename(b"f", b"g")
    assert fs.stat(b"g").atime_ns == OLD


@case
def a_time_of_access_that_is_set_stays(fs: Fs) -> None:
    """As `cp -p` and `tar --atime-preserve` do: read, then restore the old time."""
    write_file(fs, b"f", b"content")
    with opened(fs, b"f", os.O_RDONLY) as fd:
        read_all(fs, fd)
        fs.futimens(fd, OLD, UTIME_OMIT)
    assert fs.stat(b"f").atime_ns == OLD


@case
def a_files_blocks_tell_the_room_it_takes(fs: Fs) -> None:
    for size in (1, 4096, 100_000, 5 << 20):
        with opened(fs, b"f%d" % size) as fd:
            write_all(fs, fd, content(size))
            fs.fsync(fd)  # a local disk counts only allocated blocks
        blocks = fs.stat(b"f%d" % size).blocks
        assert size <= blocks * 512 <= size + (1 << 20)
    write_file(fs, b"empty")
    assert fs.stat(b"empty").blocks == 0


@case
def room_is_plausible(fs: Fs) -> None:
    room = fs.statvfs()
    assert room.block_bytes >= 512
    assert room.blocks >= room.free >= room.available > 0
    assert room.name_max == 255


@case
def extended_attributes_are_kept(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    fs.mkdir(b"d")
    values = {
        "user.text": b"value",
        "user.binary": bytes(range(256)),
        "user.empty": b"",
        "user.large": b"v" * 3000,
    }
    for path in (b"f", b"d"):
        for name, value in values.items():
            fs.setxattr(path, name, value)
        assert {name: fs.getxattr(path, name) for name in values} == values
        assert set(values) <= set(fs.listxattr(path))
        fs.setxattr(path, "user.text", b"replaced")
        assert fs.getxattr(path, "user.text") == b"replaced"
        fs.removexattr(path, "user.text")
        assert "user.text" not in fs.listxattr(path)
    fs.rename(b"f", b"g")
    assert fs.getxattr(b"g", "user.large") == b"v" * 3000


@case
def extended_attributes_fail_as_they_should(fs: Fs) -> None:
    write_file(fs, b"f")
    with fails(errno.ENODATA):
        fs.getxattr(b"f", "user.none")
    with fails(errno.ENODATA):
        fs.removexattr(b"f", "user.none")
    with fails(errno.ENODATA):
        fs.setxattr(b"f", "user.a", b"1", os.XATTR_REPLACE)
    fs.setxattr(b"f", "user.a", b"1", os.XATTR_CREATE)
    with fails(errno.EEXIST):
        fs.setxattr(b"f", "user.a", b"2", os.XATTR_CREATE)
    fs.setxattr(b"f", "user.a", b"3", os.XATTR_REPLACE)
    assert fs.getxattr(b"f", "user.a") == b"3"
    with fails(errno.ENOENT):
        fs.getxattr(b"missing", "user.a")
