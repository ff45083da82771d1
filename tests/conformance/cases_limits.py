"""Conformance: limits, and what is refused beyond them. Names, paths, links, offsets, attributes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import tempfile
from collections.abc import Iterator

from conformance.fs import Fs, OsFs
from conformance.registry import case, content, fails, kernel_case, opened, read_file, same, write_all, write_file

PATH_MAX = 4096
"""From <linux/limits.h>; includes the zero at the end."""
_libc = ctypes.CDLL(None, use_errno=True)
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
KEEP_SIZE, PUNCH_HOLE = 1, 2


@contextlib.contextmanager
def folder_of(fs: OsFs, path: bytes = b"") -> Iterator[int]:
    """Open the root as a descriptor for relative paths, since the plain folder's own path may be long."""
    descriptor = os.open(fs.path(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check(result: int) -> int:
    """Return the C library's result, or raise its error."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def write_at(folder: int, path: bytes, data: bytes) -> None:
    """Write a new file."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, dir_fd=folder)
    try:
        assert os.write(descriptor, data) == len(data)
    finally:
        os.close(descriptor)


@kernel_case
def a_path_has_up_to_4095_bytes(fs: OsFs) -> None:
    with folder_of(fs) as top:
        path = b""
        for _ in range(20):
            path += b"d" * 200 + b"/"
            os.mkdir(path, dir_fd=top)
        longest = path + b"f" * (PATH_MAX - 1 - len(path))
        write_at(top, longest, b"far down")
        assert os.stat(longest, dir_fd=top).st_size == 8
        os.link(longest, b"near", src_dir_fd=top, dst_dir_fd=top)
        with fails(errno.ENAMETOOLONG):
            os.stat(longest + b"f", dir_fd=top)
        with fails(errno.ENAMETOOLONG):
            os.mkdir(longest + b"f", dir_fd=top)
        os.rename(longest, path + b"g", src_dir_fd=top, dst_dir_fd=top)
    assert read_file(fs, b"near") == b"far down"


@kernel_case
def folders_may_lie_deeper_than_a_path_is_long(fs: OsFs) -> None:
    """Walking down step by step reaches them, and `rm -r` removes them."""
    with contextlib.ExitStack() as opened_here:
        at = opened_here.enter_context(folder_of(fs))
        for _ in range(25):
            os.mkdir(b"n" * 250, dir_fd=at)
            at = os.open(b"n" * 250, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
            opened_here.callback(os.close, at)
        write_at(at, b"f", b"deep")
        assert os.stat(b"f", dir_fd=at).st_size == 4


@kernel_case
def a_links_target_has_up_to_4095_bytes_and_is_followed(fs: OsFs) -> None:
    write_file(fs, b"f", b"found")
    target = b"./" * 2047 + b"f"
    assert len(target) == PATH_MAX - 1
    fs.symlink(target, b"s")
    assert fs.readlink(b"s") == target
    assert fs.lstat(b"s").size == len(target)
    assert read_file(fs, b"s") == b"found"
    with fails(errno.ENAMETOOLONG):
        fs.symlink(target + b"f", b"t")


@case
def a_sparse_file_takes_little_room(fs: Fs) -> None:
    with opened(fs, b"f") as fd:
        write_all(fs, fd, content(1000), 1 << 40)
        write_all(fs, fd, content(1000), 5 << 20)
        fs.fsync(fd)
    found = fs.stat(b"f")
    assert found.size == (1 << 40) + 1000
    assert 2000 <= found.blocks * 512 <= 1 << 20
    fs.truncate(b"f", 1 << 42)
    assert fs.stat(b"f").blocks == found.blocks
    fs.truncate(b"f", 6 << 20)
    with opened(fs, b"f", os.O_RDONLY) as fd:
        same(fs.pread(fd, 3000, (5 << 20) - 1000), bytes(1000) + content(1000) + bytes(1000))
    fs.truncate(b"f", 0)
    assert fs.stat(b"f").blocks == 0


@kernel_case
def data_and_holes_of_a_sparse_file_are_found(fs: OsFs) -> None:
    far, block = 64 << 20, 256 << 10
    with opened(fs, b"f") as fd:
        write_all(fs, fd, content(block), far)
        os.fsync(fd)
        assert os.lseek(fd, 0, os.SEEK_HOLE) == 0
        assert far - block <= os.lseek(fd, 0, os.SEEK_DATA) <= far
        assert os.lseek(fd, far, os.SEEK_HOLE) == far + block
        for whence in (os.SEEK_DATA, os.SEEK_HOLE):
            with fails(errno.ENXIO):
                os.lseek(fd, far + block, whence)


@kernel_case
def what_is_no_offset_is_refused(fs: OsFs) -> None:
    with opened(fs, b"f") as fd:
        for act in (lambda: os.pwrite(fd, b"x", -1), lambda: os.pread(fd, 1, -1), lambda: os.ftruncate(fd, -1)):
            with fails(errno.EINVAL):
                act()
        with fails(errno.EINVAL):
            os.lseek(fd, -1, os.SEEK_SET)
    assert fs.stat(b"f").size == 0


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2)."""
    check(_libc.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)))


@kernel_case
def fallocate_refuses_what_it_must(fs: OsFs) -> None:
    write_file(fs, b"f", b"content")
    with opened(fs, b"f", os.O_RDWR) as fd:
        with fails(errno.EOPNOTSUPP):
            fallocate(fd, PUNCH_HOLE, 0, 100)  # not allowed without KEEP_SIZE
        for offset, length in ((-1, 10), (0, 0), (0, -1)):
            with fails(errno.EINVAL):
                fallocate(fd, 0, offset, length)
        with fails(errno.EFBIG):
            fallocate(fd, 0, 2**63 - 2, 10)
    with opened(fs, b"f", os.O_RDONLY) as fd, fails(errno.EBADF):
        fallocate(fd, 0, 0, 100)
    assert read_file(fs, b"f") == b"content"


def rename_with(fs: OsFs, old: bytes, new: bytes, flags: int) -> None:
    """renameat2(2)."""
    check(_libc.renameat2(-100, fs.path(old), -100, fs.path(new), flags))


@kernel_case
def rename_can_be_told_not_to_replace(fs: OsFs) -> None:
    write_file(fs, b"a", b"of a")
    write_file(fs, b"b", b"of b")
    fs.mkdir(b"d")
    for target in (b"b", b"d", b"a"):
        with fails(errno.EEXIST):
            rename_with(fs, b"a", target, RENAME_NOREPLACE)
    rename_with(fs, b"a", b"c", RENAME_NOREPLACE)
    rename_with(fs, b"c", b"d/c", RENAME_NOREPLACE)
    assert (read_file(fs, b"d/c"), read_file(fs, b"b")) == (b"of a", b"of b")
    with fails(errno.EINVAL):
        rename_with(fs, b"b", b"d/c", RENAME_NOREPLACE | RENAME_EXCHANGE)


@kernel_case
def names_are_exchanged(fs: OsFs) -> None:
    write_file(fs, b"f", b"file")
    fs.mkdir(b"d")
    write_file(fs, b"d/inside", b"inside")
    fs.mkdir(b"e")
    fs.rename(b"d", b"e/d")
    inos = fs.stat(b"f").ino, fs.stat(b"e/d").ino
    rename_with(fs, b"f", b"e/d", RENAME_EXCHANGE)
    assert (fs.stat(b"e/d").ino, fs.stat(b"f").ino) == inos
    assert (read_file(fs, b"e/d"), read_file(fs, b"f/inside")) == (b"file", b"inside")
    assert fs.stat(b"e").nlink in (1, 2)
    with fails(errno.ENOENT):
        rename_with(fs, b"f", b"missing", RENAME_EXCHANGE)
    with fails(errno.EINVAL, errno.ENOTEMPTY):
        rename_with(fs, b"e", b"e/d", RENAME_EXCHANGE)


@kernel_case
def a_rename_can_leave_a_whiteout(fs: OsFs) -> None:
    """A whiteout is a device with the number 0, which marks a removed name in the upper layer of an overlay."""
    if os.geteuid() != 0:
        return
    write_file(fs, b"f", b"file")
    fs.mkdir(b"d")
    write_file(fs, b"d/inside", b"inside")
    rename_with(fs, b"f", b"g", RENAME_WHITEOUT)
    rename_with(fs, b"d", b"e", RENAME_WHITEOUT | RENAME_NOREPLACE)
    for name in (b"f", b"d"):
        left = fs.lstat(name)
        assert (stat.S_ISCHR(left.mode), left.permissions, left.rdev, left.nlink) == (True, 0, 0, 1)
    assert (read_file(fs, b"g"), read_file(fs, b"e/inside")) == (b"file", b"inside")
    rename_with(fs, b"g", b"f", 0)
    assert sorted(fs.listdir(b"")) == [b"d", b"e", b"f"]
    with fails(errno.EEXIST):
        rename_with(fs, b"f", b"d", RENAME_WHITEOUT | RENAME_NOREPLACE)
    with fails(errno.ENOENT):
        rename_with(fs, b"missing", b"x", RENAME_WHITEOUT)


@kernel_case
def attributes_say_their_size_first(fs: OsFs) -> None:
    """getfattr and tar ask first for the size and then with a buffer; if it is too small, the call fails."""
    write_file(fs, b"f")
    name = b"user." + b"n" * 250
    fs.setxattr(b"f", name.decode(), b"0123456789")
    path, buffer = fs.path(b"f"), ctypes.create_string_buffer(4096)
    assert check(_libc.getxattr(path, name, None, 0)) == 10
    assert check(_libc.getxattr(path, name, buffer, 10)) == 10
    assert buffer.raw[:10] == b"0123456789"
    with fails(errno.ERANGE):
        check(_libc.getxattr(path, name, buffer, 9))
    size = check(_libc.listxattr(path, None, 0))
    assert check(_libc.listxattr(path, buffer, size)) == size
    assert name in buffer.raw[:size].split(b"\0")
    with fails(errno.ERANGE):
        check(_libc.listxattr(path, buffer, size - 1))
    with fails(errno.ERANGE):
        fs.setxattr(b"f", name.decode() + "n", b"")
    with fails(errno.E2BIG):
        fs.setxattr(b"f", "user.large", bytes(65_537))
    with fails(errno.EOPNOTSUPP):
        fs.setxattr(b"f", "nowhere.x", b"")
    before = fs.stat(b"f")
    fs.removexattr(b"f", name.decode())
    assert fs.stat(b"f").mtime_ns == before.mtime_ns


@kernel_case
def a_file_without_a_name_can_be_made(fs: OsFs) -> None:
    """As for private temporary files: with O_TMPFILE if supported, otherwise created and unlinked."""
    with tempfile.TemporaryFile(dir=fs.root) as file:
        file.write(content(100_000))
        file.seek(0)
        same(file.read(), content(100_000))
        assert os.fstat(file.fileno()).st_nlink == 0
