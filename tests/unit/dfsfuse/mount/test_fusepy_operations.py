"""libfuse's callbacks on a Vfs in memory, called as fusepy calls them. The conformance suite covers them with the
kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import Any

import fuse
import pytest
from support.memory_mounts import MemoryMounts

from dfsfuse.errors import ReadOnlyError
from dfsfuse.mount import callers
from dfsfuse.mount.fusepy_operations import FusepyOperations
from dfsfuse.mount.fusepy_session import ENCODING, NOW
from dfsfuse.vfs.caller import Caller
from dfsfuse.vfs.vfs import Vfs

UID, GID, PID = 1000, 100, 1
ODD = b"/odd \xff\n".decode(ENCODING)


@pytest.fixture
def memory() -> MemoryMounts:
    return MemoryMounts()


@pytest.fixture
def vfs(memory: MemoryMounts) -> Vfs:
    return memory.mount()


@pytest.fixture
def call(vfs: Vfs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.setattr(fuse, "fuse_get_context", lambda: (UID, GID, PID))
    return FusepyOperations(vfs, lambda: None)


def opened(flags: int = os.O_RDWR) -> fuse.fuse_file_info:
    return fuse.fuse_file_info(flags=flags)


def test_a_file_from_create_to_release(call: Callable[..., Any]) -> None:
    info = opened()
    call("create", ODD, stat.S_IFREG | 0o640, info)
    assert call("write", None, b"hello", 3, info) == 5
    call("flush", None, info)
    call("fsync", None, 0, info)
    found = call("getattr", None, info)
    assert (found.size, found.uid, found.gid, stat.S_IMODE(found.mode)) == (8, UID, GID, 0o640)
    assert call("getattr", ODD) == found
    assert call("read", None, 100, 0, info) == b"\0\0\0hello"
    call("truncate", None, 4, info)
    call("release", None, info)
    again = opened(os.O_RDONLY)
    call("open", ODD, again)
    assert call("read", None, 100, 0, again) == b"\0\0\0h"
    call("release", None, again)


@pytest.mark.parametrize("state", ["waits", "is ending", "is told to end"])
def test_what_close_could_not_save_is_given_up_only_if_the_program_heard_it(
    vfs: Vfs, memory: MemoryMounts, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    for question in ("is ending", "is told to end"):
        answer = state == question
        monkeypatch.setattr(callers, question.replace(" ", "_"), lambda thread, answer=answer: thread == PID and answer)
    info = opened()
    call("create", "/f", stat.S_IFREG | 0o640, info)
    call("write", None, b"data", 0, info)
    memory.map.is_writable = False
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        call("flush", None, info)
    call("release", None, info)
    assert call("getattr", "/f").size == (0 if state == "waits" else 4)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_a_file_that_another_mount_made_since_the_lookup_is_left_for_the_kernel_to_open(
    call: Callable[..., Any], vfs: Vfs, flags: int
) -> None:
    """As in the kernel binding: otherwise the kernel would check no permission."""
    found, handle = vfs.create(1, b"f", 0o600, os.O_RDWR, Caller(UID + 1, GID))
    vfs.write(handle, 0, b"secret")
    vfs.flush(handle)
    vfs.release(handle)
    for more, number in [(0, errno.ESTALE), (os.O_EXCL, errno.EEXIST)]:
        with pytest.raises(OSError, match=r".") as caught:
            call("create", "/f", stat.S_IFREG | 0o644, opened(flags | more))
        assert caught.value.errno == number
    assert not vfs.is_open(found.ino)
    assert vfs.getattr(found.ino).size == len(b"secret")


def test_names(call: Callable[..., Any]) -> None:
    call("mkdir", "/folder", 0o755)
    call("symlink", "/folder/link", ODD)
    assert call("readlink", "/folder/link") == ODD
    call("mknod", "/folder/fifo", stat.S_IFIFO | 0o600, 0)
    call("link", "/folder/other", "/folder/fifo")
    call("rename", "/folder", "/moved")
    handle = call("opendir", "/moved")
    entries = {name: mode for name, _, mode in call("readdir", None, handle)}
    call("releasedir", None, handle)
    assert entries.keys() == {b".", b"..", b"link", b"fifo", b"other"}
    assert entries[b"link"] == stat.S_IFLNK
    call("unlink", "/moved/other")
    with pytest.raises(OSError, match=os.strerror(errno.ENOTEMPTY)):
        call("rmdir", "/moved")
    assert call("getattr", "/moved/fifo").nlink == 1


def test_times_and_owners_that_are_to_stay(call: Callable[..., Any]) -> None:
    call("mkdir", "/f", 0o755)
    call("utimens", "/f", (7, 8))
    call("utimens", "/f", (None, 9))
    call("chown", "/f", 5, -1)
    call("chmod", "/f", stat.S_IFDIR | 0o1700)
    found = call("getattr", "/f")
    assert (found.atime_ns, found.mtime_ns) == (7, 9)
    assert (found.uid, found.gid) == (5, GID)
    assert found.mode == stat.S_IFDIR | 0o1700
    call("utimens", "/f", (NOW, None))
    assert 10**9 < call("getattr", "/f").atime_ns < 2 * 10**9, "by the mount's clock"
    assert call("getattr", "/f").mtime_ns == 9


def test_attributes_that_the_kernel_asks_for_all_the_time(call: Callable[..., Any], vfs: Vfs) -> None:
    call("mkdir", "/f", 0o755)
    for name, number in [
        ("security.capability", errno.ENODATA),
        ("system.posix_acl_access", errno.EOPNOTSUPP),
        ("user.none", errno.ENODATA),
    ]:
        with pytest.raises(OSError) as caught:
            call("getxattr", "/f", name)
        assert caught.value.errno == number
    odd = b"user.\xff".decode(ENCODING)
    call("setxattr", "/f", odd, b"value", 0)
    assert odd in call("listxattr", "/f")
    assert call("getxattr", "/f", odd) == b"value"
    call("removexattr", "/f", odd)
    assert odd not in call("listxattr", "/f")


@pytest.mark.parametrize(
    ("error", "number"),
    [(ReadOnlyError("two servers"), errno.EROFS), (ZeroDivisionError(), errno.EIO), (KeyError(1), errno.EIO)],
)
def test_any_error_is_an_oserror_with_a_number(
    call: Callable[..., Any], vfs: Vfs, monkeypatch: pytest.MonkeyPatch, error: Exception, number: int
) -> None:
    def fails(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr(vfs, "mkdir", fails)
    with pytest.raises(OSError) as caught:
        call("mkdir", "/f", 0o755)
    assert caught.value.errno == number


def test_the_log_names_the_file_that_an_error_is_about(
    vfs: Vfs, call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    info = opened()
    call("create", "/f", stat.S_IFREG | 0o644, info)

    def fails(*_arguments: object) -> None:
        raise ReadOnlyError("only 2 of 4 servers answer")

    monkeypatch.setattr(vfs, "write", fails)
    monkeypatch.setattr(vfs, "unlink", fails)
    for operation, arguments in (("write", (None, b"x", 0, info)), ("unlink", ("/f",))):
        with pytest.raises(OSError, match="Read-only"):
            call(operation, *arguments)
    ino = call("getattr", None, info).ino
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"write of inode {ino}: only 2 of 4 servers answer",
        "unlink '/f': only 2 of 4 servers answer",
    ]
    call("release", None, info)


def test_an_operation_with_neither_path_nor_handle(call: Callable[..., Any]) -> None:
    with pytest.raises(OSError) as caught:
        call("truncate", None, 0)
    assert caught.value.errno == errno.ESTALE


def test_ready_is_told_when_libfuse_begins(vfs: Vfs) -> None:
    told: list[bool] = []
    FusepyOperations(vfs, lambda: told.append(True))("init", "/")
    assert told == [True]
