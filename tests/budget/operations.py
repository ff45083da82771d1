"""The operations whose cost is counted. What comes between the two `yield`s counts; what comes before is preparation.

A *series* is the work of a busy program: the mount holds the lease and knows the folder. *Cold* means a mount that was
opened after the files were made, has looked up something else, and was then left alone for PAUSE_S. *Warm* means doing
it again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from .rig import ROOT, Mount, Rig

Operation = Callable[[Rig], Generator[None, None, None]]
OPERATIONS: Final[dict[str, Operation]] = {}
BLOCK: Final = bytes(range(256)) * 16
"""4 KiB."""
SHORT_S: Final = 0.1
"""Work in progress is finished after this time, and cached state is still fresh."""
FOLLOWS_S: Final = 20.0
"""Longer than the ten seconds for which removed files are kept."""
SLOW_S: Final = 0.005
"""The pause between the calls of a program that does something else as well."""


def operation(name: str) -> Callable[[Operation], Operation]:
    """Register the operation of this name."""

    def note(function: Operation) -> Operation:
        OPERATIONS[name] = function
        return function

    return note


def make_file(
    mount: Mount, folder: int, name: str, data: bytes = BLOCK, pause: Callable[[], None] = lambda: None
) -> int:
    """Create, write and close a file."""
    file = mount.create(folder, name)
    pause()
    for offset in range(0, len(data), 1 << 20):
        mount.write(file, offset, data[offset : offset + (1 << 20)])
    pause()
    mount.close(file)
    return file[0]


def make_files(rig: Rig, *names: str, data: bytes = BLOCK) -> None:
    """Make files with another mount, which ends, and then something else with a third, so that it is no neighbour of
    them."""
    with rig.mounted() as mount:
        folder = mount.make_folder(ROOT, "folder")
        for name in names:
            make_file(mount, folder, name, data)
    with rig.mounted() as mount:
        make_file(mount, ROOT, "something else", b"!")


@contextmanager
def cold(rig: Rig) -> Iterator[tuple[Mount, int]]:
    """A mount that has nothing cached except the root and the existence of a folder."""
    with rig.mounted() as mount:
        folder = mount.look_up(ROOT, "folder")
        mount.look_up(ROOT, "something else")
        rig.pause()
        yield mount, folder


# ---------------------------------------------------------------------- making files


def made(rig: Rig, count: int, *, data: bytes = BLOCK, pause_s: float = 0.0) -> Generator[None, None, None]:
    """Make `count` files in a known folder."""
    with rig.mounted() as mount:
        folder = mount.make_folder(ROOT, "folder")
        make_file(mount, folder, "before")
        rig.pause()
        yield
        for number in range(count):
            make_file(mount, folder, f"file {number}", data, lambda: rig.pause(pause_s) if pause_s else None)
        yield


@operation("create, write 4 KiB, close")
def create(rig: Rig) -> Generator[None, None, None]:
    yield from made(rig, 1)


@operation("create, write 4 KiB, close; 5 ms between the calls")
def create_slowly(rig: Rig) -> Generator[None, None, None]:
    yield from made(rig, 1, pause_s=SLOW_S)


@operation("10 x (create, write 4 KiB, close)")
def create_ten(rig: Rig) -> Generator[None, None, None]:
    yield from made(rig, 10)


@operation("10 x (create, write 4 KiB, close); 5 ms between the calls")
def create_ten_slowly(rig: Rig) -> Generator[None, None, None]:
    yield from made(rig, 10, pause_s=SLOW_S)


@operation("create, write 1 MiB, close")
def create_large(rig: Rig) -> Generator[None, None, None]:
    yield from made(rig, 1, data=BLOCK * 256)


def appended(rig: Rig, count: int) -> Generator[None, None, None]:
    """Append `count` records to an open file."""
    with rig.mounted() as mount:
        file = mount.create(ROOT, "file", os.O_WRONLY | os.O_APPEND)

        def once(number: int) -> None:
            mount.write(file, 100 * number, b"x" * 100, append=True)
            mount.fsync(file)

        once(0)
        rig.pause()
        yield
        for number in range(count):
            once(number + 1)
        yield
        mount.close(file)


@operation("append 100 B, fsync")
def append(rig: Rig) -> Generator[None, None, None]:
    yield from appended(rig, 1)


@operation("10 x (append 100 B, fsync)")
def append_ten(rig: Rig) -> Generator[None, None, None]:
    yield from appended(rig, 10)


@operation("write 4 KiB at random into 16 MiB, fsync")
def write_at_random(rig: Rig) -> Generator[None, None, None]:
    make_files(rig, "file", data=BLOCK * 4096)
    with cold(rig) as (mount, folder):
        file = mount.open(mount.look_up(folder, "file"), os.O_RDWR)

        def once(offset: int) -> None:
            mount.write(file, offset, BLOCK)
            mount.fsync(file)

        for offset in (9 << 20, 2 << 20, 13 << 20, 6 << 20):
            once(offset)
        rig.pause(SHORT_S)
        yield
        once(10 << 20)
        yield
        mount.close(file)


@operation("10 x (lock, unlock by fcntl)")
def lock_ten(rig: Rig) -> Generator[None, None, None]:
    with rig.mounted() as mount:
        file = mount.create(ROOT, "file")
        mount.lock(file, fcntl.F_WRLCK)
        mount.lock(file, fcntl.F_UNLCK)
        rig.pause()
        yield
        for _ in range(10):
            mount.lock(file, fcntl.F_WRLCK)
            mount.lock(file, fcntl.F_UNLCK)
        yield
        mount.close(file)


# ---------------------------------------------------------------------- reading


@operation("read 4 KiB at random from 16 MiB; cold")
def read_at_random(rig: Rig) -> Generator[None, None, None]:
    make_files(rig, "file", data=BLOCK * 4096)
    with cold(rig) as (mount, folder):
        file = mount.open(mount.look_up(folder, "file"))
        for offset in (9 << 20, 2 << 20, 13 << 20, 6 << 20):
            mount.read(file, offset, 4096)
        rig.pause(SHORT_S)
        yield
        assert mount.read(file, 10 << 20, 4096) == BLOCK
        yield
        mount.close(file)


def read_file(mount: Mount, ino: int) -> None:
    """Open, read and close a file."""
    file = mount.open(ino)
    assert mount.read(file, 0, 4096) == BLOCK
    mount.close(file)


def read_files(rig: Rig, count: int) -> Generator[None, None, None]:
    names = [f"file {number}" for number in range(count)]
    make_files(rig, *names)
    with cold(rig) as (mount, folder):
        yield
        for name in names:
            read_file(mount, mount.look_up(folder, name))
        yield


@operation("open, read 4 KiB, close; cold")
def read_small(rig: Rig) -> Generator[None, None, None]:
    yield from read_files(rig, 1)


@operation("10 x (open, read 4 KiB, close); cold")
def read_ten(rig: Rig) -> Generator[None, None, None]:
    yield from read_files(rig, 10)


@operation("stat; cold")
def stat_cold(rig: Rig) -> Generator[None, None, None]:
    make_files(rig, "file")
    with cold(rig) as (mount, folder):
        yield
        mount.look_up(folder, "file")
        yield


@operation("stat; warm")
def stat_warm(rig: Rig) -> Generator[None, None, None]:
    make_files(rig, "file")
    with cold(rig) as (mount, folder):
        mount.look_up(folder, "file")
        yield
        mount.look_up(folder, "file")
        yield


@operation("list 1,000 names; cold")
def list_names(rig: Rig) -> Generator[None, None, None]:
    make_many(rig)
    with cold(rig) as (mount, folder):
        yield
        assert len(mount.list(folder)) == 1002
        yield


@operation("list 1,000 names with attributes; cold")
def list_attributes(rig: Rig) -> Generator[None, None, None]:
    make_many(rig)
    with cold(rig) as (mount, folder):
        yield
        assert len(mount.list(folder, with_attributes=True)) == 1002
        yield


def make_many(rig: Rig) -> None:
    """Make 1,000 empty files in the folder."""
    make_files(rig)
    with rig.mounted() as mount:
        folder = mount.look_up(ROOT, "folder")
        for number in range(1000):
            mount.make_node(folder, f"file-{number:04}")


# ---------------------------------------------------------------------- names


@contextmanager
def listed(rig: Rig, count: int) -> Iterator[tuple[Mount, int, dict[str, int]]]:
    """A mount that has listed a folder of `count` files, as `rm` and `mv` do to find names; with the names and their
    inodes."""
    names = [f"file {number}" for number in range(count)]
    make_files(rig, *names)
    with cold(rig) as (mount, folder):
        found = mount.list(folder, with_attributes=True)
        rig.pause(SHORT_S)
        yield mount, folder, {name: found[name] for name in names}


def renamed(rig: Rig, count: int) -> Generator[None, None, None]:
    with listed(rig, count) as (mount, folder, names):
        yield
        for name in names:
            mount.rename(folder, name, name.upper())
        yield


@operation("rename")
def rename(rig: Rig) -> Generator[None, None, None]:
    yield from renamed(rig, 1)


@operation("10 x rename")
def rename_ten(rig: Rig) -> Generator[None, None, None]:
    yield from renamed(rig, 10)


@operation("20 x rename; cold")
def rename_cold(rig: Rig) -> Generator[None, None, None]:
    """As `mv` does, which first checks whether the new name exists."""
    names = [f"file {number}" for number in range(20)]
    make_files(rig, *names)
    with cold(rig) as (mount, folder):
        yield
        for name in names:
            mount.look_up(folder, name)
            with suppress(FileNotFoundError):
                mount.look_up(folder, name.upper())
            mount.rename(folder, name, name.upper())
        yield


@operation("10 x (mkdir, rmdir)")
def folders_ten(rig: Rig) -> Generator[None, None, None]:
    with listed(rig, 1) as (mount, folder, _names):
        yield
        for number in range(10):
            mount.remove_folder(folder, f"new {number}", mount.make_folder(folder, f"new {number}"))
        yield


def removed(rig: Rig, count: int) -> Generator[None, None, None]:
    with listed(rig, count) as (mount, folder, names):
        yield
        for name, ino in names.items():
            mount.unlink(folder, name, ino)
        yield


@operation("unlink")
def unlink(rig: Rig) -> Generator[None, None, None]:
    yield from removed(rig, 1)


@operation("10 x unlink")
def unlink_ten(rig: Rig) -> Generator[None, None, None]:
    yield from removed(rig, 10)


# ---------------------------------------------------------------------- what follows later, and doing nothing


@operation("the 20 s after 10 x unlink")
def after_unlink(rig: Rig) -> Generator[None, None, None]:
    with listed(rig, 10) as (mount, folder, names):
        for name, ino in names.items():
            mount.unlink(folder, name, ino)
        rig.pause(SHORT_S)
        yield
        rig.pause(FOLLOWS_S)
        yield


@operation("the 20 s after 10 x (open, read 4 KiB, close)")
def after_read(rig: Rig) -> Generator[None, None, None]:
    with listed(rig, 10) as (mount, _folder, names):
        for ino in names.values():
            read_file(mount, ino)
        rig.pause(SHORT_S)
        yield
        rig.pause(FOLLOWS_S)
        yield


@operation("the 20 s after 4 KiB were written to a file that stays open")
def after_write(rig: Rig) -> Generator[None, None, None]:
    with rig.mounted() as mount:
        file = mount.create(ROOT, "file")
        mount.write(file, 0, BLOCK)
        mount.fsync(file)
        rig.pause()
        mount.write(file, 4096, BLOCK)
        yield
        rig.pause(FOLLOWS_S)
        yield
        mount.close(file)


@operation("a minute in which nobody asks anything")
def idle(rig: Rig) -> Generator[None, None, None]:
    make_files(rig, "file")
    with cold(rig) as (mount, folder):
        mount.look_up(folder, "file")
        rig.pause()
        yield
        rig.pause(60.0)
        yield
