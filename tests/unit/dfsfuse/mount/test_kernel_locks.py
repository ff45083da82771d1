"""What the kernel asks about locks, over two mounts in memory. With the kernel: `tests/integration/test_locks.py`."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator

import pytest
from support.memory_mounts import ROOT, MemoryMounts

from dfsfuse.fusekernel.replies import Replies
from dfsfuse.fusekernel.values import Changes, Context, Lock, LockRequest
from dfsfuse.mount.kernel_operations import KernelOperations

WHO = Context(1000, 100, 42, 2)
END = 2**63 - 1


class Side:
    """One mount, and what the kernel is answered there."""

    def __init__(self, mounts: MemoryMounts) -> None:
        self.vfs = mounts.mount(durability="fsync")
        self.fs = KernelOperations(self.vfs)
        self.answers: dict[int, int] = {}
        self._replies = Replies(lambda unique, error, _: self.answers.update({unique: error}))

    def set(self, ino: int, kind: int, *, owner: int = 1, end: int = END, flock: bool = False) -> int | None:
        unique = len(self.answers) + 1
        request = LockRequest(0, owner, Lock(kind, 0, end, 4000 + owner), flock)
        self.fs.set_lock(WHO, ino, request, wait=False, reply=self._replies.expect(unique))
        return self.answers.get(unique)

    def open(self, ino: int) -> int:
        return self.fs.open(WHO, ino, os.O_RDWR, kill_privileges=False).handle

    def write(self, ino: int, handle: int, data: bytes) -> None:
        self.fs.write(WHO, ino, handle, 0, memoryview(data), kill_privileges=False)


@pytest.fixture
def sides() -> Iterator[tuple[Side, Side]]:
    mounts = MemoryMounts()
    sides = Side(mounts), Side(mounts)
    yield sides
    for side in sides:
        side.vfs.close()


@pytest.fixture
def ino(sides: tuple[Side, Side]) -> int:
    return sides[0].vfs.mknod(ROOT, b"f", stat.S_IFREG | 0o644, 0, 0, 0).ino


def test_what_was_written_shows_when_the_lock_ends(sides: tuple[Side, Side], ino: int) -> None:
    """Also where close() does not save."""
    one, other = sides
    mine, theirs = one.open(ino), other.open(ino)
    assert one.set(ino, fcntl.F_WRLCK) == 0
    one.write(ino, mine, b"first")
    assert other.set(ino, fcntl.F_WRLCK) == errno.EAGAIN
    assert one.set(ino, fcntl.F_UNLCK) == 0
    assert other.set(ino, fcntl.F_WRLCK) == 0
    assert other.fs.read(WHO, ino, theirs, 0, 9) == b"first"
    for side, handle in zip(sides, (mine, theirs), strict=True):
        side.fs.release(WHO, ino, handle, None)


def test_who_is_in_the_way(sides: tuple[Side, Side], ino: int) -> None:
    one, other = sides
    one.set(ino, fcntl.F_RDLCK, end=9)
    asked = LockRequest(0, 1, Lock(fcntl.F_WRLCK, 5, 20, 7), is_flock=False)
    assert other.fs.get_lock(WHO, ino, asked) == Lock(fcntl.F_RDLCK, 0, 9, 4001)
    assert one.fs.get_lock(WHO, ino, asked) == Lock(fcntl.F_UNLCK, 5, 20, 7)


def test_each_close_ends_fcntl_locks_and_the_last_one_a_flock(sides: tuple[Side, Side], ino: int) -> None:
    one, other = sides
    handle = one.open(ino)
    one.set(ino, fcntl.F_WRLCK, owner=1)
    one.set(ino, fcntl.F_WRLCK, owner=2, flock=True)
    one.fs.flush(WHO, ino, handle, 1)
    assert other.set(ino, fcntl.F_WRLCK) == 0
    assert other.set(ino, fcntl.F_WRLCK, flock=True) == errno.EAGAIN
    one.fs.release(WHO, ino, handle, 2)
    assert other.set(ino, fcntl.F_WRLCK, flock=True) == 0


def test_nothing_changes_the_data_of_a_file_whose_locks_were_lost(sides: tuple[Side, Side], ino: int) -> None:
    """Not its size either: others may hold the lock by now."""
    one, _ = sides
    handle = one.open(ino)
    assert one.set(ino, fcntl.F_WRLCK) == 0
    one.vfs.locks._session.lose()
    for attempt in (
        lambda: one.write(ino, handle, b"x"),
        lambda: one.fs.fallocate(WHO, ino, handle, 0, 10, 0),
        lambda: one.fs.setattr(WHO, ino, Changes(size=3), handle),
        lambda: one.fs.setattr(WHO, ino, Changes(size=3), None),
        lambda: one.fs.open(WHO, ino, os.O_WRONLY | os.O_TRUNC, kill_privileges=False),
    ):
        with pytest.raises(OSError, match="locks") as caught:
            attempt()
        assert caught.value.errno == errno.EIO
    one.fs.setattr(WHO, ino, Changes(mode=stat.S_IFREG | 0o600), None)
    one.fs.release(WHO, ino, handle, None)


def test_the_kernel_is_told_to_forget_before_the_answer(sides: tuple[Side, Side], ino: int) -> None:
    one, _ = sides
    seen: list[tuple[int, int]] = []
    one.vfs.locks.on_change = lambda changed: seen.append((changed, len(one.answers)))
    assert one.set(ino, fcntl.F_WRLCK) == 0
    assert seen == [(ino, 0)]
