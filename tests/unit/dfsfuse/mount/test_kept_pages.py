"""When the kernel may keep its pages across open(): two mounts of one log, with kernels that keep all they may.

Notifications never reach these kernels, so that only open() makes them drop pages.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.log_cluster import LogCluster, log_of
from support.memory_mounts import MemoryMounts
from support.memory_segments import NAMES

from dfsfuse.common.events import Events
from dfsfuse.errors import MaybeDoneError
from dfsfuse.fusekernel import wire
from dfsfuse.fusekernel.values import Changes, Context
from dfsfuse.mount.kept_pages import KeptPages
from dfsfuse.mount.kernel_caches import KernelCaches
from dfsfuse.mount.kernel_operations import KernelOperations
from dfsfuse.namespace.map.log_map import LogMap
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.caller import SUPERUSER
from dfsfuse.vfs.settings import MountSettings
from dfsfuse.vfs.vfs import Vfs

ROOT = 1
PAGE = 4096
WHO = Context(0, 0, 42, 2)


class Deaf:
    """A kernel that notifications do not reach."""

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        return True

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> bool:
        return True


@dataclass
class Opened:
    handle: int
    is_to_drop: bool
    """Whether the kernel must still drop its pages."""


@dataclass
class Kernel:
    """The kernel's part for one file of one mount. It drops pages as late as it may."""

    fuse: KernelOperations
    ino: int
    pages: dict[int, bytes] = field(default_factory=dict)
    kept: int = 0
    """Number of times that it was allowed to keep them."""

    def open(self, flags: int = os.O_RDONLY) -> Opened:
        answer = self.fuse.open(WHO, self.ino, flags, kill_privileges=False)
        keeps = bool(answer.flags & wire.FOPEN_KEEP_CACHE)
        self.kept += keeps
        if flags & os.O_TRUNC:
            self.pages.clear()
        return Opened(answer.handle, not keeps)

    def finish_open(self, file: Opened) -> None:
        if file.is_to_drop:
            file.is_to_drop = False
            self.pages.clear()

    def read(self, file: Opened, page: int) -> bytes:
        self.finish_open(file)
        if page not in self.pages:
            self.pages[page] = bytes(self.fuse.read(WHO, self.ino, file.handle, page * PAGE, PAGE))
        return self.pages[page]

    def write(self, file: Opened, page: int, data: bytes) -> None:
        self.finish_open(file)
        self.pages.pop(page, None)
        self.fuse.write(WHO, self.ino, file.handle, page * PAGE, memoryview(data), kill_privileges=False)

    def truncate(self, size: int) -> None:
        self.fuse.setattr(WHO, self.ino, Changes(size=size), None)
        self.pages = {page: data for page, data in self.pages.items() if (page + 1) * PAGE <= size}

    def close(self, file: Opened) -> None:
        self.finish_open(file)
        self.fuse.flush(WHO, self.ino, file.handle, 1)
        self.fuse.flushed(WHO, self.ino, 1)
        self.fuse.release(WHO, self.ino, file.handle, None)
        self.fuse.released(WHO, self.ino, file.handle)

    def look(self) -> bytes:
        """Open the file, read all of it, and close it."""
        file = self.open()
        size = self.fuse.getattr(WHO, self.ino, None).attributes.size
        data = b"".join(self.read(file, page) for page in range(-(-size // PAGE)))
        self.close(file)
        return data[:size]


class TwoKernels:
    """A file, and a kernel for each of two mounts of the namespace."""

    def __init__(self, folder: Path, atime: str = "noatime") -> None:
        self.cluster = LogCluster(folder)
        segments = MemoryMounts().segments
        self.mounts = []
        for client in (b"one.....", b"other..."):
            clock = self.cluster.grid.clock
            events = Events()
            store = LogMap(log_of(self.cluster, client), keys.family_of, clock, events=events)
            vfs = Vfs(
                store,
                segments,
                servers=NAMES,
                usable=segments.usable,
                monotonic=clock,
                settings=MountSettings(atime=atime),
                events=events,
            )
            events.on_keys_changed = vfs.changed_elsewhere
            fuse = KernelOperations(vfs)
            fuse.caches = KernelCaches(vfs.look_for_changes, Deaf(), 1.0, clock, 0.0)
            events.on_files_changed = fuse.caches.changed
            self.mounts.append((fuse, vfs, store))
        entry, opened = self.mounts[0][0].create(WHO, ROOT, b"f", stat.S_IFREG | 0o644, os.O_RDWR, 0)
        assert entry.attributes is not None
        self.one, self.other = (Kernel(fuse, entry.attributes.ino) for fuse, _, _ in self.mounts)
        self.mounts[1][0].lookup(WHO, ROOT, b"f")
        self.one.close(Opened(opened.handle, is_to_drop=False))

    def close(self) -> None:
        for _, vfs, store in self.mounts:
            vfs.close()
            store.close()
        self.cluster.close()


@pytest.fixture
def kernels(tmp_path: Path) -> Iterator[TwoKernels]:
    kernels = TwoKernels(tmp_path)
    yield kernels
    kernels.close()


def put(kernel: Kernel, data: bytes) -> None:
    file = kernel.open(os.O_WRONLY | os.O_TRUNC)
    kernel.write(file, 0, data)
    kernel.close(file)


def test_pages_stay_from_the_second_opening_on(kernels: TwoKernels) -> None:
    put(kernels.one, b"x" * 5000)
    for number in range(4):
        assert kernels.one.look() == b"x" * 5000
        assert kernels.one.kept == number
    put(kernels.other, b"y" * 5000)
    assert kernels.one.look() == b"y" * 5000
    assert kernels.one.kept == 3
    assert kernels.one.look() == b"y" * 5000
    assert kernels.one.kept == 4


def test_of_two_that_open_at_once_the_second_does_not_keep_what_the_first_is_about_to_drop(kernels: TwoKernels) -> None:
    put(kernels.one, b"x" * 10)
    assert kernels.one.look() == b"x" * 10
    put(kernels.other, b"y" * 10)
    first, second = kernels.one.open(), kernels.one.open()
    assert kernels.one.read(second, 0) == b"y" * 10
    kernels.one.close(second)
    kernels.one.close(first)


def test_pages_that_show_what_is_not_saved_yet_do_not_stay(kernels: TwoKernels) -> None:
    """Unsaved data may be lost."""
    writer = kernels.one.open(os.O_RDWR)
    kernels.one.write(writer, 0, b"unsaved")
    assert kernels.one.look() == b"unsaved"  # closing saves it
    assert kernels.one.look() == b"unsaved"
    assert kernels.one.kept == 0
    kernels.one.close(writer)
    assert kernels.one.look() == b"unsaved"
    assert kernels.one.kept == 1


def test_a_reading_that_sets_the_time_of_access_is_not_left_to_the_kernel(tmp_path: Path) -> None:
    kernels = TwoKernels(tmp_path, "strictatime")
    put(kernels.one, b"x")
    for _ in range(3):
        kernels.one.look()
    assert kernels.one.kept == 0
    kernels.close()


class Listening(Deaf):
    """A kernel that notes which inodes it is to ask for again, with their pages."""

    def __init__(self) -> None:
        self.dropped: list[int] = []

    def inval_inode(self, ino: int, offset: int = 0, length: int = 0) -> bool:
        if offset == 0:
            self.dropped.append(ino)
        return True


def test_the_kernel_drops_its_pages_when_a_cut_turns_out_to_be_made(kernels: TwoKernels) -> None:
    """The cut failed, perhaps after its program was released, and may have been made: nothing is undone then. This
    mount's own batch is reported like another mount's, as soon as it is known to be in the log."""
    put(kernels.one, b"x" * 5000)
    fuse, vfs, _ = kernels.mounts[0]
    kernel = Listening()
    fuse.caches = caches = KernelCaches(vfs.look_for_changes, kernel, 1.0, kernels.cluster.grid.clock, 0.0)
    vfs.events.on_files_changed = caches.changed
    fuse.lookup(WHO, ROOT, b"f")
    grid = kernels.cluster.grid
    for server in (3, 4):
        grid[server].dies_after = 0
    with pytest.raises(MaybeDoneError):
        kernels.one.truncate(10)
    for server in (3, 4):
        grid[server].dies_after = None
    kernels.cluster.up(3, 4)
    caches.notify()
    assert kernel.dropped == []
    kernels.mounts[1][1].mkdir(ROOT, b"d", 0o755, SUPERUSER)  # whoever writes next finishes it
    grid.clock.wait_until(grid.clock() + 1.0)
    caches.look()
    caches.notify()
    assert kernel.dropped == [kernels.one.ino]
    assert vfs.getattr(kernels.one.ino).size == 10


@pytest.mark.parametrize("seed", range(6))
def test_what_is_opened_is_always_the_newest(kernels: TwoKernels, seed: int) -> None:
    """Two mounts open, read, write, truncate and close at random, while some files stay open; reading after an open()
    always shows the current content."""
    chance = random.Random(seed)
    content = b""
    held: list[tuple[Kernel, Opened]] = []
    for step in range(120):
        kernel = chance.choice((kernels.one, kernels.other))
        action = chance.choices(["look", "hold", "glance", "let go", "write", "cut"], [8, 2, 3, 2, 1, 1])[0]
        if action == "look":
            assert kernel.look() == content, f"step {step}"
        elif action == "hold" and len(held) < 4:
            held.append((kernel, kernel.open()))
        elif action == "glance" and held:
            kernel, file = chance.choice(held)
            kernel.read(file, chance.randrange(3))
        elif action == "let go" and held:
            kernel, file = held.pop(chance.randrange(len(held)))
            kernel.close(file)
        elif action == "write":
            page, data = chance.randrange(3), chance.randbytes(PAGE)
            file = kernel.open(os.O_WRONLY)
            kernel.write(file, page, data)
            kernel.close(file)
            content = content.ljust(page * PAGE, b"\0")[: page * PAGE] + data + content[(page + 1) * PAGE :]
        elif action == "cut":
            size = chance.randrange(3 * PAGE)
            kernel.truncate(size)
            content = content[:size].ljust(size, b"\0")
    for kernel, file in held:
        kernel.close(file)
    assert kernels.one.kept + kernels.other.kept > 10


def test_nothing_is_remembered_of_what_is_closed_and_forgotten() -> None:
    pages = KeptPages()
    pages.dropped(7, 1)
    pages.dropped(7, 2)
    assert pages.concerns(7)
    pages.closing(1)
    assert pages.is_current(7)
    pages.changed(7)
    pages.closing(2)
    assert not pages.is_current(7)
    pages.dropped(7, 3)
    pages.closing(3)
    pages.forget(7)
    assert not pages.concerns(7)
    pages.dropped(8, 4)
    pages.all_changed()
    pages.closing(4)
    assert not (pages.concerns(8) or pages._inodes or pages._open)
