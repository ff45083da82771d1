"""The kernel's requests about locks, with two mounts in memory. `tests/integration/test_locks.py` uses a real
kernel."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.fake_kernel import DEADLINE_S, FakeKernel
from support.memory_mounts import ROOT, MemoryMounts
from support.mounts import eventually

from dfsfuse.errors import ReadOnlyError
from dfsfuse.fusekernel import parking, wire
from dfsfuse.fusekernel.dispatch import Patience
from dfsfuse.fusekernel.replies import Replies
from dfsfuse.fusekernel.values import NOW, Changes, Context, Lock, LockRequest
from dfsfuse.mount.errors import errno_of
from dfsfuse.mount.kernel_operations import KernelOperations
from dfsfuse.mount.mapped_pages import MappedPages
from dfsfuse.vfs.caller import SUPERUSER

WHO = Context(1000, 100, 42, 2)
END = 2**63 - 1


class Side:
    """One mount, and the answers to its kernel."""

    def __init__(self, mounts: MemoryMounts) -> None:
        self.vfs = mounts.mount(durability="fsync")
        self.fs = KernelOperations(self.vfs)
        self.answers: dict[int, int] = {}
        self._replies = Replies(lambda unique, error, _: self.answers.update({unique: error}))

    def set(
        self, ino: int, kind: int, *, owner: int = 1, end: int = END, flock: bool = False, handle: int = 0
    ) -> int | None:
        unique = len(self.answers) + 1
        request = LockRequest(handle, owner, Lock(kind, 0, end, 4000 + owner), flock)
        self.fs.set_lock(WHO, ino, request, wait=False, reply=self._replies.expect(unique))
        return self.answers.get(unique)

    def set_and_wait(self, ino: int, kind: int, **how: Any) -> int | None:
        """Set a lock that is answered by another thread, and wait for the answer."""
        before = len(self.answers)
        self.set(ino, kind, **how)
        eventually(lambda: len(self.answers) > before, "the answer")
        return self.answers[before + 1]

    def open(self, ino: int) -> int:
        return self.fs.open(WHO, ino, os.O_RDWR, kill_privileges=False).handle

    def close(self, ino: int, handle: int, owner: int) -> None:
        """Close one of several descriptors, as the session does."""
        try:
            self.fs.flush(WHO, ino, handle, owner)
        finally:
            self.fs.flushed(WHO, ino, owner)

    def release(self, ino: int, handle: int) -> None:
        try:
            self.fs.release(WHO, ino, handle, None)
        finally:
            self.fs.released(WHO, ino, handle)

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
    return sides[0].vfs.mknod(ROOT, b"f", stat.S_IFREG | 0o644, 0, SUPERUSER).ino


def test_what_was_written_shows_when_the_lock_ends(sides: tuple[Side, Side], ino: int) -> None:
    """Even if close() does not save."""
    one, other = sides
    mine, theirs = one.open(ino), other.open(ino)
    assert one.set(ino, fcntl.F_WRLCK) == 0
    one.write(ino, mine, b"first")
    assert other.set(ino, fcntl.F_WRLCK) == errno.EAGAIN
    assert one.set(ino, fcntl.F_UNLCK) == 0
    assert other.set(ino, fcntl.F_WRLCK) == 0
    assert other.fs.read(WHO, ino, theirs, 0, 9) == b"first"
    for side, handle in zip(sides, (mine, theirs), strict=True):
        side.release(ino, handle)


def test_which_locks_conflict(sides: tuple[Side, Side], ino: int) -> None:
    one, other = sides
    one.set(ino, fcntl.F_RDLCK, end=9)
    asked = LockRequest(0, 1, Lock(fcntl.F_WRLCK, 5, 20, 7), is_flock=False)
    assert other.fs.get_lock(WHO, ino, asked) == Lock(fcntl.F_RDLCK, 0, 9, 4001)
    assert one.fs.get_lock(WHO, ino, asked) == Lock(fcntl.F_UNLCK, 5, 20, 7)


def test_each_close_ends_fcntl_locks_and_the_last_one_a_flock(sides: tuple[Side, Side], ino: int) -> None:
    one, other = sides
    handle = one.open(ino)
    one.set(ino, fcntl.F_WRLCK, owner=1)
    one.set(ino, fcntl.F_WRLCK, owner=2, flock=True, handle=handle)
    one.close(ino, handle, 1)
    assert other.set(ino, fcntl.F_WRLCK) == 0
    assert other.set(ino, fcntl.F_WRLCK, flock=True) == errno.EAGAIN
    one.release(ino, handle)
    assert other.set(ino, fcntl.F_WRLCK, flock=True) == 0


def test_a_close_that_waits_for_servers_keeps_its_locks_until_the_data_is_saved(
    sides: tuple[Side, Side], ino: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that comes first when the servers return must not get the lock and find the file without the data."""
    one, other = sides
    namespace: Any = one.vfs._context.store
    returns = 0
    monkeypatch.setattr(parking, "RETRY_S", 600.0)
    patience = Patience(
        lambda error, *_: DEADLINE_S if isinstance(error, ReadOnlyError) else 0.0, lambda: returns, lambda _: False
    )
    mine, theirs = one.open(ino), other.open(ino)
    assert one.set(ino, fcntl.F_WRLCK) == 0
    one.write(ino, mine, b"mine")
    with FakeKernel(one.fs, errno_of=errno_of, patience=patience) as kernel:
        namespace.is_writable = False
        closing = kernel.send(wire.FUSE_FLUSH, ino, wire.fuse_flush_in.pack(mine, 0, 0, 1))
        dispatcher: Any = kernel.session._dispatcher
        eventually(lambda: dispatcher._parking._parked, "it waits")
        namespace.is_writable = True
        one.vfs.locks.beat()
        assert other.set(ino, fcntl.F_WRLCK) == errno.EAGAIN
        returns = 1
        assert kernel.receive() == (closing, 0, b"")
        assert other.set(ino, fcntl.F_WRLCK) == 0
        assert other.fs.read(WHO, ino, theirs, 0, 9) == b"mine"
    one.release(ino, mine)
    other.release(ino, theirs)


def test_nothing_changes_the_data_of_a_file_whose_locks_were_lost(sides: tuple[Side, Side], ino: int) -> None:
    """Its size does not change either: others may hold the lock by now."""
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
    one.release(ino, handle)


def test_pages_of_a_mapping_are_not_taken_without_servers_while_there_is_a_lock(
    sides: tuple[Side, Side], ino: int
) -> None:
    """The lock may protect them, and they might be saved when others hold it."""
    one, _ = sides
    namespace: Any = one.vfs._context.store
    handle = one.open(ino)
    other_file, _ = one.fs.create(WHO, ROOT, b"lock file", stat.S_IFREG | 0o644, os.O_RDWR, 0)
    assert other_file.attributes is not None

    def write() -> int:
        page = memoryview(b"x" * 4096)
        return one.fs.write(WHO, ino, handle, 0, page, kill_privileges=False, is_mapped=True)

    assert one.set(other_file.attributes.ino, fcntl.F_WRLCK) == 0
    namespace.is_writable = False
    with pytest.raises(ReadOnlyError):
        write()
    one.vfs.locks._session.lose()  # too few servers for too long; the kernel writes pages late
    with pytest.raises(ReadOnlyError):
        write()
    namespace.is_writable = True
    with pytest.raises(OSError, match="were lost"):  # now the holder knows
        one.set(other_file.attributes.ino, fcntl.F_UNLCK)
    one.vfs.locks.beat()
    namespace.is_writable = False
    assert write() == 4096
    namespace.is_writable = True
    one.release(ino, handle)


def test_the_kernel_is_told_to_forget_before_the_answer(sides: tuple[Side, Side], ino: int) -> None:
    one, _ = sides
    seen: list[tuple[int, int]] = []

    def forget(changed: int, then: Callable[[], None]) -> None:
        seen.append((changed, len(one.answers)))
        then()

    one.vfs.events.on_lock_granted = forget
    assert one.set(ino, fcntl.F_WRLCK) == 0
    assert seen == [(ino, 0)]


# ---------------------------------------------------------------------- data written through a mapping


class Pages:
    """The kernel's pages of a mapped file, and a process that may have written to them."""

    def __init__(self, side: Side, handle: int) -> None:
        self.dirty: list[bytes] = []
        self.was_mapped = True
        self.collected: list[int] = []
        self._side = side
        self._handle = handle
        side.fs.mapped = MappedPages(self, self._maps)

    def _maps(self, pid: int) -> bytes:
        assert pid == WHO.pid
        return b"7f0-7f1 rw-s 00000000 00:3f 2 /mnt/f\n" if self.was_mapped else b""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        """Write the dirty pages and wait for that, as the kernel does."""
        self.collected.append(ino)
        while self.dirty:
            self._side.write(ino, self._handle, self.dirty.pop())
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        raise AssertionError


@pytest.mark.parametrize("flock", [False, True])
@pytest.mark.parametrize("kind", [fcntl.F_UNLCK, fcntl.F_RDLCK])
def test_the_kernel_hands_over_what_was_mapped_before_others_may_read(
    sides: tuple[Side, Side], ino: int, *, flock: bool, kind: int
) -> None:
    one, other = sides
    mine, theirs = one.open(ino), other.open(ino)
    pages = Pages(one, mine)
    assert one.set(ino, fcntl.F_WRLCK, flock=flock, handle=mine) == 0
    pages.dirty.append(b"mapped")
    assert one.set_and_wait(ino, kind, flock=flock, handle=mine) == 0
    assert pages.collected == [ino]
    assert other.set(ino, fcntl.F_RDLCK, flock=flock, handle=theirs) == 0
    assert other.fs.read(WHO, ino, theirs, 0, 9) == b"mapped"
    one.release(ino, mine)
    other.release(ino, theirs)


def test_pages_are_not_collected_for_a_process_that_cannot_have_written_by_a_mapping(
    sides: tuple[Side, Side], ino: int
) -> None:
    one, _ = sides
    handle = one.open(ino)
    pages = Pages(one, handle)
    assert one.set(ino, fcntl.F_RDLCK, handle=handle) == 0
    assert one.set(ino, fcntl.F_UNLCK, handle=handle) == 0, "it had a shared lock"
    assert one.set(ino, fcntl.F_UNLCK, handle=handle) == 0, "it had no lock"
    pages.was_mapped = False
    assert one.set(ino, fcntl.F_WRLCK, handle=handle) == 0
    assert one.set(ino, fcntl.F_UNLCK, handle=handle) == 0, "it has not mapped the file"
    pages.was_mapped = True
    one.release(ino, handle)
    writer = one.fs.open(WHO, ino, os.O_WRONLY, kill_privileges=False).handle
    assert one.set(ino, fcntl.F_WRLCK, handle=writer) == 0
    assert one.set(ino, fcntl.F_UNLCK, handle=writer) == 0, "a write-only file cannot be mapped"
    one.release(ino, writer)
    assert pages.collected == []


def test_what_keeps_the_unlock_from_being_right_is_told_though_it_comes_later(
    sides: tuple[Side, Side], ino: int
) -> None:
    one, _ = sides
    handle = one.open(ino)
    Pages(one, handle)
    assert one.set(ino, fcntl.F_WRLCK, handle=handle) == 0
    one.vfs.locks._save = lambda _: (_ for _ in ()).throw(OSError(errno.EROFS, "two servers are away"))
    assert one.set_and_wait(ino, fcntl.F_UNLCK, handle=handle) == errno.EROFS
    one.vfs.locks._save = lambda _: None
    one.release(ino, handle)


def test_a_time_that_is_set_stays_though_the_file_was_written_by_a_mapping_before(
    sides: tuple[Side, Side], ino: int
) -> None:
    one, _ = sides
    handle = one.open(ino)
    pages = Pages(one, handle)
    pages.dirty.append(b"mapped")
    one.fs.setattr(WHO, ino, Changes(mtime_ns=12345), handle)
    one.close(ino, handle, 1)
    assert one.fs.getattr(WHO, ino, None).attributes.mtime_ns == 12345
    assert one.fs.read(WHO, ino, handle, 0, 9) == b"mapped"
    pages.collected.clear()
    one.fs.setattr(WHO, ino, Changes(mtime_ns=NOW), handle)
    one.fs.setattr(WHO, ino, Changes(atime_ns=5), handle)
    one.release(ino, handle)
    one.fs.setattr(WHO, ino, Changes(mtime_ns=12345), None)
    assert pages.collected == [], "either no time to keep, or no open file that could be mapped"
