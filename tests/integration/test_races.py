"""Two mounts of one namespace at the same moment, again and again: both see the same order of events."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest
from support.mounts import Grid, eventually

from dfs_server.protocol.messages import GetPosition, Position, ReadKeys, Values
from dfsfuse.namespace.ops import orphans
from dfsfuse.namespace.records import keys
from dfsfuse.vfs.open.orphan_keeper import GRACE_S

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

ROUNDS: Final = 200
DEADLINE_S: Final = 60.0


@pytest.fixture(scope="module")
def mounts(grid: Grid) -> tuple[Path, Path]:
    options = ("-o", "binding=kernel")
    return grid.mount("one", options).path, grid.mount("other", options).path


def winners(mounts: tuple[Path, Path], attempt: Callable[[Path, int], None]) -> tuple[set[int], set[int]]:
    """Make the attempt on both mounts at once in each round; return the rounds that each has won."""
    barrier = threading.Barrier(2, timeout=DEADLINE_S)

    def contender(mount: Path) -> set[int]:
        won = set()
        for turn in range(ROUNDS):
            barrier.wait()
            with contextlib.suppress(FileExistsError):
                attempt(mount, turn)
                won.add(turn)
        return won

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(contender, mounts, timeout=DEADLINE_S)
    return one, other


def test_exclusive_creation_has_exactly_one_winner(mounts: tuple[Path, Path]) -> None:
    def attempt(mount: Path, turn: int) -> None:
        descriptor = os.open(mount / f"file{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.write(descriptor, mount.name.encode())
        finally:
            os.close(descriptor)

    one, other = winners(mounts, attempt)
    assert one | other == set(range(ROUNDS))
    assert not one & other
    for turn in range(0, ROUNDS, 7):
        expected = b"one" if turn in one else b"other"
        assert [(mount / f"file{turn}").read_bytes() for mount in mounts] == [expected] * 2


def test_opening_or_creating_a_file_at_the_same_time_gives_the_same_one(mounts: tuple[Path, Path]) -> None:
    """The second mount finds that the file was created since its lookup: it gets no error, and nothing is lost."""
    inodes: dict[str, list[int]] = {mount.name: [] for mount in mounts}

    def attempt(mount: Path, turn: int) -> None:
        place, text = (0, b"one") if mount.name == "one" else (3, b"other")
        descriptor = os.open(mount / f"shared{turn}", os.O_RDWR | os.O_CREAT)
        try:
            assert os.pwrite(descriptor, text, place) == len(text)
            inodes[mount.name].append(os.fstat(descriptor).st_ino)
        finally:
            os.close(descriptor)

    assert winners(mounts, attempt) == (set(range(ROUNDS)), set(range(ROUNDS)))
    assert inodes["one"] == inodes["other"]
    assert len(set(inodes["one"])) == ROUNDS
    for turn in range(ROUNDS):
        assert [(mount / f"shared{turn}").read_bytes() for mount in mounts] == [b"oneother"] * 2, turn


@contextlib.contextmanager
def not_as_root() -> Iterator[None]:
    """Act as another user within the block, since root may open everything."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_a_file_made_a_moment_ago_is_not_opened_without_permission(mounts: tuple[Path, Path]) -> None:
    """Only the process that created the file gets a descriptor: the file's mode does not allow opening it."""
    (mounts[0] / "everybody's").mkdir()
    (mounts[0] / "everybody's").chmod(0o777)
    folders = {mount: os.open(mount / "everybody's", os.O_RDONLY) for mount in mounts}

    def attempt(mount: Path, turn: int) -> None:
        try:
            os.close(os.open(f"closed{turn}", os.O_RDWR | os.O_CREAT, 0, dir_fd=folders[mount]))
        except PermissionError as error:
            raise FileExistsError from error

    try:
        with not_as_root():
            one, other = winners(mounts, attempt)
    finally:
        for folder in folders.values():
            os.close(folder)
    assert one | other == set(range(ROUNDS))
    assert not one & other


def test_mkdir_has_exactly_one_winner(mounts: tuple[Path, Path]) -> None:
    one, other = winners(mounts, lambda mount, turn: (mount / f"folder{turn}").mkdir())
    assert one | other == set(range(ROUNDS))
    assert not one & other


def test_a_file_replaced_by_rename_is_never_missing_nor_mixed(mounts: tuple[Path, Path]) -> None:
    """Each version has a different length and consists of a single byte value; an older version never follows a newer
    one."""
    writer, reader = mounts
    versions = [bytes([turn % 251]) * (1 + turn * 997 % 300_000) for turn in range(ROUNDS)]
    numbers = {version: turn for turn, version in enumerate(versions)}
    assert len(numbers) == ROUNDS
    (writer / "page").write_bytes(versions[0])
    done = threading.Event()

    def replace() -> None:
        try:
            for version in versions[1:]:
                (writer / "page.new").write_bytes(version)
                (writer / "page.new").rename(writer / "page")
        finally:
            done.set()

    def read() -> list[int]:
        seen = []
        while not done.is_set():
            seen.append(numbers[(reader / "page").read_bytes()])
        return [*seen, numbers[(reader / "page").read_bytes()]]

    with ThreadPoolExecutor(2) as pool:
        replacing, reading = pool.submit(replace), pool.submit(read)
        replacing.result(DEADLINE_S)
        seen = reading.result(DEADLINE_S)
    assert seen == sorted(seen)
    assert seen[-1] == ROUNDS - 1


def test_open_sees_at_once_what_the_other_mount_closed(mounts: tuple[Path, Path]) -> None:
    """Whether it became longer or shorter, was written in place, truncated or replaced; name and caches stay the
    same."""
    for turn in range(ROUNDS):
        writer, reader = mounts if turn % 2 else reversed(mounts)
        expected = b"%d" % turn * (1 + turn * 53 % 2000)
        if turn % 5 == 4:
            (writer / "sheet.new").write_bytes(expected)
            (writer / "sheet.new").rename(writer / "sheet")
        else:
            with (writer / "sheet").open("r+b" if turn % 2 and turn > 1 else "wb") as file:
                file.write(expected)
                file.truncate()
        assert (reader / "sheet").read_bytes() == expected, turn
        assert (reader / "sheet").stat().st_size == len(expected), turn


def pages_in_memory(path: Path) -> int:
    """Open a file and return how many of its pages the kernel has, before anything is read."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapping:
        size = len(mapping)
        first = ctypes.c_char.from_buffer(mapping)
        found = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
        refused = ctypes.CDLL(None).mincore(ctypes.c_void_p(ctypes.addressof(first)), ctypes.c_size_t(size), found)
        del first
        assert refused == 0
        return sum(byte & 1 for byte in found.raw)


def test_what_the_kernel_keeps_over_an_opening_is_never_old(mounts: tuple[Path, Path]) -> None:
    one, other = (mount / "kept" for mount in mounts)
    for turn in range(20):
        text = b"%d" % turn * 20_000
        (other if turn % 2 else one).write_bytes(text)
        for path in (one, other):
            assert path.read_bytes() == text
            assert path.read_bytes() == text
            assert pages_in_memory(path) == -(-len(text) // mmap.PAGESIZE), "it must not be read from the mount again"
        writer, reader = (one, other) if turn % 3 else (other, one)
        writer.write_bytes(text[:19_000])
        assert pages_in_memory(reader) == 0
        assert reader.read_bytes() == text[:19_000]


def test_nothing_is_done_by_the_name_that_a_folder_had_before(mounts: tuple[Path, Path]) -> None:
    """The folder is in the other mount's kernel's cache when it is moved and another one takes its name."""
    actions: list[Callable[[Path], object]] = [
        lambda folder: (folder / "made").mkdir(),
        lambda folder: (folder / "new").open("xb").close(),
        lambda folder: (folder / "link").symlink_to("there"),
        lambda folder: (folder / "hard").hardlink_to(folder / "file"),
        lambda folder: (folder / "file").rename(folder / "moved"),
        lambda folder: (folder / "file").unlink(),
        lambda folder: (folder / "sub").rmdir(),
        lambda folder: (folder / "file").chmod(0o600),
        lambda folder: os.truncate(folder / "file", 1),
        lambda folder: os.setxattr(folder / "file", "user.a", b"x"),
        lambda folder: folder.chmod(0o700),
    ]

    def shape(folder: Path) -> list[tuple[object, ...]]:
        """Return a file's attributes from an open descriptor, which shows the newest state."""
        found: list[tuple[object, ...]] = []
        for path in [folder, *sorted(folder.iterdir())]:
            if path.is_symlink():
                found.append((path.name,))
                continue
            descriptor = os.open(path, os.O_RDONLY)
            entry = os.fstat(descriptor)
            found.append((path.name, entry.st_mode, entry.st_size, os.listxattr(descriptor)))
            os.close(descriptor)
        return [found[0][1:], *found[1:]]

    one, other = mounts
    for turn in range(2 * len(actions)):
        act = actions[turn % len(actions)]
        for name in ("a", "b"):
            folder = one / f"{name}{turn}"
            (folder / "sub").mkdir(parents=True)
            (folder / "file").write_bytes(b"12345")
        before = shape(other / f"a{turn}")
        assert shape(other / f"b{turn}") == before
        (one / f"a{turn}").rename(one / f"old{turn}")
        if turn < len(actions):
            with pytest.raises(FileNotFoundError):
                act(other / f"a{turn}")
        else:
            (one / f"b{turn}").rename(one / f"a{turn}")
            act(other / f"a{turn}")
            assert shape(one / f"a{turn}") != before
        assert shape(one / f"old{turn}") == before


def claims_on(grid: Grid, ino: int) -> int:
    """Return how many mounts have claimed the inode, which has no name, by DFS1's map."""
    with grid.servers[1].connect() as client:
        position = client.ask(GetPosition())
        assert isinstance(position, Position)
        found = client.ask(ReadKeys(position.applied, position.digest, (keys.orphan(ino),)))
        assert isinstance(found, Values)
        (record,) = found.values
        return 0 if record is None else len(orphans.decode(record))


def test_a_file_that_is_open_stays_though_the_other_mount_removes_it(grid: Grid, mounts: tuple[Path, Path]) -> None:
    """The mount that has it open claims it, within the grace period for removed files."""
    one, other = mounts
    (one / "film").write_bytes(b"x" * 300_000)
    with (other / "film").open("rb") as film:
        assert film.read(3) == b"xxx"
        (one / "film").unlink()
        ino = os.fstat(film.fileno()).st_ino
        eventually(lambda: claims_on(grid, ino) == 2, "the other mount claims the file", within_s=GRACE_S)
        film.seek(0)
        assert film.read() == b"x" * 300_000
        assert os.fstat(film.fileno()).st_nlink == 0
    with pytest.raises(FileNotFoundError):
        (other / "film").stat()


_APPEND: Final = """
import fcntl, os, sys
path, who, how = sys.argv[1:]
record = lambda turn: f"{who} {turn} {'x' * (turn * 37 % 5000)};".encode()
fd = os.open(path, os.O_WRONLY | os.O_CREAT | (0 if how == "fcntl" else os.O_APPEND), 0o644)
if how == "fcntl":
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_APPEND)
for turn in range(200):
    if how == "open":
        os.close(fd)
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    assert os.write(fd, record(turn)) == len(record(turn))
    if how != "open" and turn % 10 == 0:
        os.fsync(fd)
os.close(fd)
"""


def append_at_once(log: str, contenders: list[tuple[Path, str]]) -> None:
    """Let processes append 200 records each to one file."""
    commands = [
        [sys.executable, "-c", _APPEND, str(mount / log), str(number), how]
        for number, (mount, how) in enumerate(contenders)
    ]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(subprocess.Popen(command)) for command in commands]
        assert [process.wait(DEADLINE_S) for process in processes] == [0] * len(contenders)


@pytest.mark.parametrize("how", ["kept", "fcntl", "open"])
def test_all_that_both_append_is_there_and_whole(mounts: tuple[Path, Path], how: str) -> None:
    """Two processes on one mount and one on the other keep the file open, or open it for each record."""
    one, other = mounts
    append_at_once(f"log.{how}", [(one, how), (one, how), (other, how)])
    data = (one / f"log.{how}").read_bytes()
    assert (other / f"log.{how}").read_bytes() == data
    if how == "fcntl":  # the kernel splits these records at page borders
        assert len(data) == 3 * sum(len(b"%d %d ;" % (0, turn)) + turn * 37 % 5000 for turn in range(ROUNDS))
        return
    records = [record.split(b" ") for record in data.split(b";")[:-1]]
    for number in range(3):
        found = [(int(turn), len(rest)) for who, turn, rest in records if int(who) == number]
        assert found == [(turn, turn * 37 % 5000) for turn in range(ROUNDS)]
    assert len(records) == 3 * ROUNDS
