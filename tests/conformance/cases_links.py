"""Conformance: symbolic links, hard links and file types."""

from __future__ import annotations

import errno
import os
import socket
import stat

from conformance.fs import Fs, OsFs
from conformance.registry import case, fails, kernel_case, opened, read_file, write_all, write_file


@case
def a_symbolic_link_keeps_its_target_as_it_is(fs: Fs) -> None:
    targets = (
        b"f",
        b"../up",
        b"/absolute/path",
        b"nowhere",
        b"\xff\n",
        b"a//b/./c/",
        b"x" * 255,
        b"d/" * 2000,
    )
    for number, target in enumerate(targets):
        name = b"s%d" % number
        fs.symlink(target, name)
        assert fs.readlink(name) == target
        found = fs.lstat(name)
        assert (found.kind, found.size, found.nlink) == (stat.S_IFLNK, len(target), 1)
    with fails(errno.EEXIST):
        fs.symlink(b"again", b"s0")
    with fails(errno.ENOENT):
        fs.symlink(b"x", b"missing/s")


@case
def symbolic_links_are_followed(fs: Fs) -> None:
    fs.mkdir(b"d")
    write_file(fs, b"d/f", b"content")
    fs.symlink(b"d", b"to-folder")
    fs.symlink(b"to-folder/f", b"to-file")
    assert read_file(fs, b"to-folder/f") == b"content"
    assert read_file(fs, b"to-file") == b"content"
    assert fs.stat(b"to-file").ino == fs.lstat(b"d/f").ino
    with opened(fs, b"to-file", os.O_WRONLY | os.O_TRUNC) as fd:
        write_all(fs, fd, b"through")
    assert read_file(fs, b"d/f") == b"through"
    fs.unlink(b"to-file")
    assert read_file(fs, b"d/f") == b"through"


@case
def a_dangling_link_can_be_seen_created_through_and_removed(fs: Fs) -> None:
    fs.symlink(b"target", b"s")
    with fails(errno.ENOENT):
        fs.stat(b"s")
    with fails(errno.ENOENT):
        fs.open(b"s", os.O_RDONLY)
    assert fs.listdir(b"") == [b"s"]
    write_file(fs, b"s", b"made")
    assert read_file(fs, b"target") == b"made"
    fs.unlink(b"s")
    assert fs.listdir(b"") == [b"target"]


@case
def links_in_a_circle_end(fs: Fs) -> None:
    fs.symlink(b"b", b"a")
    fs.symlink(b"a", b"b")
    with fails(errno.ELOOP):
        fs.stat(b"a")
    with fails(errno.ELOOP):
        fs.open(b"a/x", os.O_RDONLY)
    assert fs.readlink(b"a") == b"b"


@case
def readlink_is_for_links(fs: Fs) -> None:
    write_file(fs, b"f")
    for name in (b"f", b""):
        with fails(errno.EINVAL):
            fs.readlink(name)


@case
def renaming_a_link_moves_the_link(fs: Fs) -> None:
    write_file(fs, b"f", b"content")
    fs.symlink(b"f", b"s")
    fs.rename(b"s", b"t")
    assert fs.readlink(b"t") == b"f"
    write_file(fs, b"g", b"other")
    fs.rename(b"g", b"t")
    assert (fs.lstat(b"t").kind, read_file(fs, b"t"), read_file(fs, b"f")) == (
        stat.S_IFREG,
        b"other",
        b"content",
    )


@case
def hard_links_are_one_inode(fs: Fs) -> None:
    write_file(fs, b"a", b"content")
    fs.mkdir(b"d")
    fs.link(b"a", b"b")
    fs.link(b"b", b"d/c")
    names = (b"a", b"b", b"d/c")
    assert len({fs.lstat(name).ino for name in names}) == 1
    assert [fs.lstat(name).nlink for name in names] == [3, 3, 3]
    with opened(fs, b"b", os.O_WRONLY) as fd:
        write_all(fs, fd, b"CON")
    fs.chmod(b"d/c", 0o600)
    for name in names:
        assert read_file(fs, name) == b"CONtent"
        assert fs.stat(name).permissions == 0o600
    fs.unlink(b"a")
    assert [fs.lstat(name).nlink for name in (b"b", b"d/c")] == [2, 2]
    fs.unlink(b"b")
    assert fs.lstat(b"d/c").nlink == 1
    assert read_file(fs, b"d/c") == b"CONtent"


@case
def a_write_through_one_link_is_seen_through_another_at_once(fs: Fs) -> None:
    write_file(fs, b"a", b"12345")
    fs.link(b"a", b"b")
    with opened(fs, b"a", os.O_RDWR) as one, opened(fs, b"b", os.O_RDWR) as other:
        write_all(fs, one, b"ab")
        assert fs.pread(other, 10, 0) == b"ab345"
        write_all(fs, other, b"6", 5)
        assert fs.pread(one, 10, 0) == b"ab3456"
        assert fs.fstat(one).size == 6


@case
def link_refuses_what_it_must(fs: Fs) -> None:
    write_file(fs, b"f")
    fs.mkdir(b"d")
    with fails(errno.EEXIST):
        fs.link(b"f", b"d")
    with fails(errno.EEXIST):
        fs.link(b"f", b"f")
    with fails(errno.EPERM):
        fs.link(b"d", b"e")
    with fails(errno.ENOENT):
        fs.link(b"missing", b"e")
    with fails(errno.ENOENT):
        fs.link(b"f", b"missing/e")
    assert fs.lstat(b"f").nlink == 1


@case
def a_rename_between_links_of_one_file_does_nothing(fs: Fs) -> None:
    write_file(fs, b"a", b"content")
    fs.link(b"a", b"b")
    fs.rename(b"a", b"b")
    assert sorted(fs.listdir(b"")) == [b"a", b"b"]
    assert fs.lstat(b"a").nlink == 2
    write_file(fs, b"c", b"other")
    fs.rename(b"c", b"b")
    assert fs.lstat(b"a").nlink == 1
    assert (read_file(fs, b"a"), read_file(fs, b"b")) == (b"content", b"other")


@case
def a_symbolic_link_can_have_hard_links(fs: Fs) -> None:
    fs.symlink(b"x", b"s")
    fs.link(b"s", b"t")
    assert fs.lstat(b"s").ino == fs.lstat(b"t").ino
    fs.unlink(b"s")
    assert (fs.readlink(b"t"), fs.lstat(b"t").nlink) == (b"x", 1)


@case
def every_kind_of_file_keeps_its_kind(fs: Fs) -> None:
    fs.mknod(b"pipe", stat.S_IFIFO | 0o640)
    fs.mknod(b"socket", stat.S_IFSOCK | 0o600)
    fs.mknod(b"file", stat.S_IFREG | 0o604)
    assert (fs.lstat(b"pipe").kind, fs.lstat(b"pipe").permissions) == (stat.S_IFIFO, 0o640)
    assert fs.lstat(b"socket").kind == stat.S_IFSOCK
    assert (fs.lstat(b"file").kind, fs.lstat(b"file").permissions) == (stat.S_IFREG, 0o604)
    with fails(errno.EEXIST):
        fs.mknod(b"pipe", stat.S_IFIFO | 0o640)
    fs.rename(b"pipe", b"moved")
    assert fs.lstat(b"moved").kind == stat.S_IFIFO
    if os.getuid() == 0:
        fs.mknod(b"null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        fs.mknod(b"disk", stat.S_IFBLK | 0o600, os.makedev(200, 70_000))
        assert (fs.lstat(b"null").kind, fs.lstat(b"null").rdev) == (stat.S_IFCHR, os.makedev(1, 3))
        assert (fs.lstat(b"disk").kind, fs.lstat(b"disk").rdev) == (stat.S_IFBLK, os.makedev(200, 70_000))


@kernel_case
def pipes_and_sockets_work(fs: OsFs) -> None:
    fs.mknod(b"pipe", stat.S_IFIFO | 0o600)
    with opened(fs, b"pipe", os.O_RDWR) as fd:
        os.write(fd, b"through")
        assert os.read(fd, 100) == b"through"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        here = os.open(fs.root, os.O_RDONLY)  # a socket's path must be short, and the mount's may not be
        try:
            listener.bind(f"/proc/self/fd/{here}/s")
            listener.listen()
            client.connect(f"/proc/self/fd/{here}/s")
        finally:
            os.close(here)
        assert fs.lstat(b"s").kind == stat.S_IFSOCK
