"""The kernel's operations on a Vfs in memory. The conformance suite covers them with a real kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.memory_mounts import ROOT, MemoryMounts, read_file

from dfs_server.protocol.batches import Batch
from dfsfuse.common.events import Changed
from dfsfuse.errors import UnavailableError
from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.values import NOW, Changes, Context, DirectoryEntry
from dfsfuse.mount.kernel_caches import KernelCaches
from dfsfuse.mount.kernel_operations import KernelOperations
from dfsfuse.vfs.write.holes import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE

WHO = Context(1000, 100, 42, 2)
STRANGER = Context(2000, 200, 43, 4)
FALLOCATE_MODES = (0, KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE)
NAME = b"odd \xff\n"


class NoDevice:
    """A device that ignores notifications."""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        return False

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        return False


class TellingDevice(NoDevice):
    """Records the notifications to the kernel."""

    def __init__(self, told: list[tuple[int, int, int]]) -> None:
        self._told = told

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        self._told.append((ino, offset, length))
        return True


@pytest.fixture
def mounts() -> MemoryMounts:
    return MemoryMounts()


@pytest.fixture
def fs(mounts: MemoryMounts) -> KernelOperations:
    return KernelOperations(mounts.mount(), entry_timeout_s=0.25, attributes_timeout_s=0.5)


def create(fs: KernelOperations, name: bytes = NAME, mode: int = 0o644) -> tuple[int, int]:
    entry, opened = fs.create(WHO, ROOT, name, stat.S_IFREG | mode, os.O_RDWR, 0)
    assert entry.attributes is not None
    return entry.attributes.ino, opened.handle


def mode_of(fs: KernelOperations, ino: int) -> int:
    return stat.S_IMODE(fs.getattr(WHO, ino, None).attributes.mode)


def test_a_file_from_create_to_release(fs: KernelOperations) -> None:
    ino, handle = create(fs, mode=0o640)
    assert fs.write(WHO, ino, handle, 3, memoryview(b"hello"), kill_privileges=False) == 5
    fs.flush(WHO, ino, handle, 1)
    fs.fsync(WHO, ino, handle, data_only=True)
    found = fs.getattr(WHO, ino, handle).attributes
    assert (found.size, found.uid, found.gid, stat.S_IMODE(found.mode)) == (8, 1000, 100, 0o640)
    assert fs.read(WHO, ino, handle, 0, 100) == b"\0\0\0hello"
    fs.setattr(WHO, ino, Changes(size=4), handle)
    fs.release(WHO, ino, handle, None)
    fs.released(WHO, ino, handle)
    again = fs.open(WHO, ino, os.O_RDONLY, kill_privileges=False).handle
    assert fs.read(WHO, ino, again, 0, 100) == b"\0\0\0h"
    fs.release(WHO, ino, again, None)
    fs.released(WHO, ino, again)


MADE_MEANWHILE: dict[str, Callable[[KernelOperations], object]] = {
    "file": lambda fs: create(fs, mode=0o600),
    "symbolic link": lambda fs: fs.symlink(WHO, ROOT, NAME, b"there"),
    "folder": lambda fs: fs.mkdir(WHO, ROOT, NAME, 0o755, 0),
    "fifo": lambda fs: fs.mknod(WHO, ROOT, NAME, stat.S_IFIFO | 0o600, 0, 0),
}


@pytest.mark.parametrize("kind", MADE_MEANWHILE)
@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_a_file_that_another_mount_made_since_the_lookup_is_left_for_the_kernel_to_open(
    mounts: MemoryMounts, kind: str, flags: int
) -> None:
    """The kernel thinks that it creates the file, and would check no permission. After ESTALE it looks up and opens."""
    one, vfs = KernelOperations(mounts.mount()), mounts.mount()
    other = KernelOperations(vfs)
    assert other.lookup(STRANGER, ROOT, NAME).attributes is None
    MADE_MEANWHILE[kind](one)
    found = one.lookup(WHO, ROOT, NAME).attributes
    assert found is not None
    if kind == "file":
        handle = one.open(WHO, found.ino, os.O_WRONLY, kill_privileges=False).handle
        one.write(WHO, found.ino, handle, 0, memoryview(b"secret"), kill_privileges=False)
        one.flush(WHO, found.ino, handle, 1)
    before = one.getattr(WHO, found.ino, None)
    with pytest.raises(OSError, match=r".") as caught:
        other.create(STRANGER, ROOT, NAME, stat.S_IFREG | 0o644, flags, 0)
    assert caught.value.errno == errno.ESTALE
    with pytest.raises(FileExistsError):
        other.create(STRANGER, ROOT, NAME, stat.S_IFREG | 0o644, flags | os.O_EXCL, 0)
    assert not vfs.is_open(found.ino)
    assert not vfs.is_held(found.ino)
    assert one.getattr(WHO, found.ino, None) == before
    again = other.lookup(STRANGER, ROOT, NAME).attributes
    assert again is not None
    assert again.ino == found.ino


def test_the_retried_open_of_a_file_made_meanwhile_is_not_refused_for_its_moved_folder(mounts: MemoryMounts) -> None:
    """The process's working folder is not looked up again, and may have been moved meanwhile."""
    one, vfs = KernelOperations(mounts.mount()), mounts.mount()
    other = KernelOperations(vfs)
    other.caches = caches = KernelCaches(vfs.look_for_changes, NoDevice(), 1.0)
    folder = other.mkdir(WHO, ROOT, b"d", 0o755, 0).attributes
    assert folder is not None
    one.create(WHO, folder.ino, NAME, stat.S_IFREG | 0o644, os.O_RDWR, 0)
    with pytest.raises(OSError, match=r".") as caught:
        other.create(WHO, folder.ino, NAME, stat.S_IFREG | 0o644, os.O_RDWR, 0)
    assert caught.value.errno == errno.ESTALE
    caches.changed([Changed(ROOT, b"d")])
    found = other.lookup(WHO, folder.ino, NAME).attributes
    assert found is not None
    other.open(WHO, found.ino, os.O_RDWR, kill_privileges=False)


def test_time_outs_go_with_every_entry(fs: KernelOperations) -> None:
    ino, _ = create(fs)
    entry = fs.lookup(WHO, ROOT, NAME)
    assert (entry.entry_timeout_s, entry.attributes_timeout_s) == (0.25, 0.5)
    assert fs.getattr(WHO, ino, None).timeout_s == 0.5


def test_a_missing_name_is_remembered_only_if_that_is_wanted(fs: KernelOperations, mounts: MemoryMounts) -> None:
    entry = fs.lookup(WHO, ROOT, b"missing")
    assert (entry.attributes, entry.entry_timeout_s) == (None, 0.0)
    entry = KernelOperations(mounts.mount(), negative_timeout_s=2.0).lookup(WHO, ROOT, b"missing")
    assert (entry.attributes, entry.entry_timeout_s) == (None, 2.0)


def test_names(fs: KernelOperations) -> None:
    folder = fs.mkdir(WHO, ROOT, b"d", 0o755, 0).attributes
    assert folder is not None
    link = fs.symlink(WHO, folder.ino, b"link", NAME).attributes
    assert link is not None
    assert fs.readlink(WHO, link.ino) == NAME
    fifo = fs.mknod(WHO, folder.ino, b"fifo", stat.S_IFIFO | 0o600, 0, 0).attributes
    assert fifo is not None
    again = fs.link(WHO, fifo.ino, ROOT, b"again").attributes
    assert again is not None
    assert (again.ino, again.nlink) == (fifo.ino, 2)
    fs.rename(WHO, ROOT, b"again", folder.ino, b"link", 2)
    assert fs.readlink(WHO, fs.lookup(WHO, ROOT, b"again").attributes.ino) == NAME  # type: ignore[union-attr]
    with pytest.raises(FileExistsError):
        fs.rename(WHO, ROOT, b"again", folder.ino, b"link", 1)
    handle = fs.opendir(WHO, folder.ino, 0).handle
    listed = list(fs.readdir(WHO, folder.ino, handle, 0))
    assert [entry.name for entry in listed] == [b".", b"..", b"fifo", b"link"]
    assert list(fs.readdir(WHO, folder.ino, handle, listed[1].offset)) == listed[2:]
    gone = DirectoryEntry(b"gone", 77, stat.S_IFREG, 5)
    there, missing = fs.lookup_listed(WHO, folder.ino, [listed[2], gone])
    assert missing is None
    assert there is not None
    assert there.attributes is not None
    assert (there.attributes.ino, there.attributes.nlink) == (fifo.ino, 2)
    fs.fsyncdir(WHO, folder.ino, handle, data_only=False)
    fs.releasedir(WHO, folder.ino, handle)
    for name in (b"fifo", b"link"):
        fs.unlink(WHO, folder.ino, name)
    fs.rmdir(WHO, ROOT, b"d")


def test_times(fs: KernelOperations) -> None:
    ino, _ = create(fs)
    fs.setattr(WHO, ino, Changes(atime_ns=-7, mtime_ns=1_234_567_890_123_456_789), None)
    found = fs.getattr(WHO, ino, None).attributes
    assert (found.atime_ns, found.mtime_ns) == (-7, 1_234_567_890_123_456_789)
    fs.setattr(WHO, ino, Changes(mtime_ns=NOW), None)
    found = fs.getattr(WHO, ino, None).attributes
    assert found.atime_ns == -7
    assert 10**9 < found.mtime_ns < 2 * 10**9, "by the mount's clock"


def test_extended_attributes(fs: KernelOperations) -> None:
    ino, _ = create(fs)
    fs.setxattr(WHO, ino, b"user.a", b"value", 0)
    assert fs.getxattr(WHO, ino, b"user.a") == b"value"
    assert b"user.a" in list(fs.listxattr(WHO, ino))
    fs.removexattr(WHO, ino, b"user.a")
    for name, number in [
        (b"user.a", errno.ENODATA),
        (b"security.capability", errno.ENODATA),
        (b"system.posix_acl_access", errno.EOPNOTSUPP),
    ]:
        with pytest.raises(OSError, match=r".") as caught:
            fs.getxattr(WHO, ino, name)
        assert caught.value.errno == number


@pytest.mark.parametrize(
    ("before", "after"),
    [(0o6755, 0o755), (0o4711, 0o711), (0o2755, 0o755), (0o2745, 0o2745), (0o6745, 0o2745), (0o755, 0o755)],
)
def test_setuid_and_setgid_end_when_others_may_have_changed_the_file(
    fs: KernelOperations, before: int, after: int
) -> None:
    """As on ext4: setgid without group execute has another meaning, and stays if a member of the group writes."""
    ino, handle = create(fs)
    told: list[tuple[int, int, int]] = []
    fs.caches = KernelCaches(lambda: None, TellingDevice(told), 1.0)
    outsider = WHO._replace(gid=WHO.gid + 1, pid=0)

    def again() -> None:
        fs.setattr(WHO, ino, Changes(mode=stat.S_IFREG | before), None)
        assert mode_of(fs, ino) == before
        told.clear()

    def ended(expected: int = after) -> None:
        assert mode_of(fs, ino) == expected
        assert told == ([(ino, -1, 0)] if expected != before else []), (
            "the kernel must be made to ask for the mode if, and only if, it changed"
        )

    again()
    fs.write(WHO, ino, handle, 0, memoryview(b"x"), kill_privileges=False)
    assert mode_of(fs, ino) == before
    fs.write(WHO, ino, handle, 0, memoryview(b"x"), kill_privileges=True)
    ended()
    again()
    fs.write(outsider, ino, handle, 0, memoryview(b"x"), kill_privileges=True)
    ended(before & ~0o6000)
    again()
    fs.setattr(WHO, ino, Changes(uid=5), None)
    assert mode_of(fs, ino) == after
    again()
    fs.setattr(WHO, ino, Changes(size=0, kill_privileges=True), None)
    assert mode_of(fs, ino) == after
    again()
    fs.open(WHO, ino, os.O_WRONLY | os.O_TRUNC, kill_privileges=True)
    ended()
    for mode in FALLOCATE_MODES:
        again()
        fs.fallocate(WHO, ino, handle, 0, 100, mode)
        ended()
        again()
        fs.fallocate(WHO._replace(uid=0), ino, handle, 0, 100, mode)
        ended(before)


@pytest.mark.parametrize("commits", [0, 1, 2])
@pytest.mark.parametrize("change", ["write", "truncate", "open", "allocate"])
def test_setuid_never_outlives_the_content_whatever_comes_in_between(
    mounts: MemoryMounts, change: str, commits: int
) -> None:
    """If servers go away after some batches, the bits may be cleared without the change, but not the other way
    round."""
    fs = KernelOperations(mounts.mount())
    ino, handle = create(fs)
    fs.write(WHO, ino, handle, 0, memoryview(b"harmless"), kill_privileges=False)
    fs.fsync(WHO, ino, handle, data_only=False)
    fs.setattr(WHO, ino, Changes(mode=stat.S_IFREG | 0o6755), None)
    left = [None] * commits

    def refuse(_: Batch) -> None:
        if not left:
            raise UnavailableError("too few servers answer")
        left.pop()

    def changed() -> None:
        match change:
            case "write":
                fs.write(WHO, ino, handle, 0, memoryview(b"x"), kill_privileges=True)
                fs.fsync(WHO, ino, handle, data_only=False)
            case "truncate":
                fs.setattr(WHO, ino, Changes(size=2, kill_privileges=True), None)
            case "open":
                fs.open(WHO, ino, os.O_WRONLY | os.O_TRUNC, kill_privileges=True)
            case "allocate":
                fs.fallocate(WHO, ino, handle, 0, 100, 0)

    mounts.map.before_commit = refuse
    with suppress(UnavailableError):
        changed()
    mounts.map.before_commit = lambda _: None
    is_changed = read_file(mounts.mount(), NAME) != b"harmless"
    assert is_changed or commits < 2
    assert not (is_changed and mode_of(fs, ino) & 0o6000)


@pytest.mark.parametrize("change", ["write", "allocate"])
def test_setuid_is_cleared_durably_before_content_that_is_saved_apart_from_it(
    mounts: MemoryMounts, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Under the lease a change is answered before its commit and may be lost, while the content would be saved
    later."""
    fs = KernelOperations(mounts.mount())
    ino, handle = create(fs)
    fs.setattr(WHO, ino, Changes(mode=stat.S_IFREG | 0o6755), None)
    transact, are_durable = mounts.map.transact, []

    def watched(work: Callable[[Any], Any], *, durable: bool = True, is_followed: bool = False) -> Any:
        are_durable.append(durable)
        return transact(work, durable=durable, is_followed=is_followed)

    monkeypatch.setattr(mounts.map, "transact", watched)
    if change == "write":
        fs.write(WHO, ino, handle, 0, memoryview(b"x"), kill_privileges=True)
    else:
        fs.fallocate(WHO, ino, handle, 0, 100, 0)
    assert are_durable[0]
    assert not mode_of(fs, ino) & stat.S_ISUID


def test_the_kernel_is_made_to_drop_what_a_released_program_has_changed(fs: KernelOperations) -> None:
    """Including all pages: the released program may have truncated the file."""
    told: list[tuple[int, int, int]] = []
    fs.caches = KernelCaches(lambda: None, TellingDevice(told), 1.0)
    ino, _ = create(fs)
    fs.invalidate(ino)
    assert told == [], "the kernel must not be notified within an operation"
    fs.caches.notify()
    assert told == [(ino, 0, 0)]


def test_a_folder_keeps_its_bits_when_its_owner_changes(fs: KernelOperations) -> None:
    folder = fs.mkdir(WHO, ROOT, b"d", 0o2775, 0).attributes
    assert folder is not None
    fs.setattr(WHO, folder.ino, Changes(mode=stat.S_IFDIR | 0o2775), None)
    fs.setattr(WHO, folder.ino, Changes(gid=7), None)
    assert mode_of(fs, folder.ino) == 0o2775


def test_an_inode_that_another_mount_has_removed_is_stale(mounts: MemoryMounts) -> None:
    """ESTALE makes the kernel look up what is in its place now."""
    one, other = KernelOperations(mounts.mount()), KernelOperations(mounts.mount())
    ino, handle = create(one)
    one.release(WHO, ino, handle, None)
    one.released(WHO, ino, handle)
    link = one.symlink(WHO, ROOT, b"link", b"there").attributes
    folder = one.mkdir(WHO, ROOT, b"d", 0o755, 0).attributes
    assert link is not None
    assert folder is not None
    other.unlink(WHO, ROOT, NAME)
    other.unlink(WHO, ROOT, b"link")
    other.rmdir(WHO, ROOT, b"d")
    for use in (
        lambda: one.getattr(WHO, ino, None),
        lambda: one.setattr(WHO, ino, Changes(mode=0o600), None),
        lambda: one.setattr(WHO, ino, Changes(uid=3), None),
        lambda: one.open(WHO, ino, os.O_RDONLY, kill_privileges=False),
        lambda: one.getxattr(WHO, ino, b"user.a"),
        lambda: one.listxattr(WHO, ino),
        lambda: one.readlink(WHO, link.ino),
        lambda: one.opendir(WHO, folder.ino, 0),
    ):
        with pytest.raises(OSError, match=r".") as caught:
            use()
        assert caught.value.errno == errno.ESTALE


def test_statfs_is_what_the_vfs_says(fs: KernelOperations) -> None:
    space = fs.statfs(WHO, ROOT)
    assert (space.block_bytes, space.name_max) == (4096, 255)


@pytest.mark.parametrize("is_new_kernel", [True, False])
def test_what_is_only_written_goes_past_the_kernels_cache_if_that_drops_old_pages(
    fs: KernelOperations, is_new_kernel: bool
) -> None:
    fs.writes_directly = is_new_kernel
    ino, _ = create(fs)
    for flags, is_direct in (
        (os.O_RDONLY, False),
        (os.O_RDWR, False),
        (os.O_WRONLY, is_new_kernel),
        (os.O_WRONLY | os.O_TRUNC, is_new_kernel),
        (os.O_WRONLY | os.O_APPEND, True),
        (os.O_RDWR | os.O_APPEND, True),
    ):
        opened = fs.open(WHO, ino, flags, kill_privileges=False)
        assert bool(opened.flags & wire.FOPEN_DIRECT_IO) == is_direct, flags
    _, made = fs.create(WHO, ROOT, b"other", stat.S_IFREG | 0o644, os.O_WRONLY, 0)
    assert bool(made.flags & wire.FOPEN_DIRECT_IO) == is_new_kernel
