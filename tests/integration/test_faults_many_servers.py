"""Two or more servers down: never wrong, never stuck. Everything that is available can be read, and writing is refused
at once.

On the mission's ring, two neighbours share one piece: with both down, every file lacks it. Two opposite servers share
none: with both down, everything is readable.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from support.mounts import USER, Grid, Mount, eventually, within
from support.pieces_on_disk import TABLE, large_piece_files
from support.trees import content, rotation_of, with_rotation

pytestmark = pytest.mark.integration

AT_ONCE_S = 8.0
DEADLINE_S = 25.0
SIZES = (10, 4000, 150_000, 1_000_001)


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


@pytest.fixture
def files() -> dict[str, bytes]:
    """Small and large files with all four rotations."""
    return {f"file {size} {x}": with_rotation(size, x) for size in SIZES for x in range(4)}


def write(mount: Mount, files: dict[str, bytes]) -> None:
    (mount.path / "d").mkdir()
    (mount.path / "e").mkdir()
    for name, data in files.items():
        (mount.path / "d" / name).write_bytes(data)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fails_with(number: int, action: Callable[[], object]) -> None:
    with pytest.raises(OSError) as raised:
        within(AT_ONCE_S, "being refused", action)
    assert raised.value.errno == number


def writing_is_refused(mount: Mount) -> None:
    """Check that every way to change something fails at once with EROFS, and that nothing has changed."""
    before = names(mount.path), names(mount.path / "d")
    existing = mount.path / "d" / before[1][0].removesuffix(" [incomplete]")
    size = existing.stat().st_size
    fails_with(errno.EROFS, lambda: (mount.path / "new").write_bytes(b"x"))
    fails_with(errno.EROFS, (mount.path / "new").mkdir)
    fails_with(errno.EROFS, lambda: (mount.path / "new").symlink_to("x"))
    fails_with(errno.EROFS, existing.unlink)
    fails_with(errno.EROFS, lambda: existing.rename(mount.path / "moved"))
    fails_with(errno.EROFS, lambda: existing.chmod(0o600))
    fails_with(errno.EROFS, lambda: os.truncate(existing, 0))
    fails_with(errno.EROFS, lambda: existing.write_bytes(b"x"))
    fails_with(errno.EROFS, (mount.path / "e").rmdir)
    assert (names(mount.path), names(mount.path / "d")) == before
    assert existing.stat().st_size == size


def lost_ranges(data: bytes, down: tuple[int, int]) -> list[tuple[int, int]]:
    """Return (start, end) of the bytes that are only on these two servers, for a file with one segment."""
    here = [set(TABLE[rotation_of(data)][f"DFS{number}"]) for number in down]
    whole, longer = divmod(len(data), 4)
    ends = [0]
    for number in (1, 2, 3, 4):
        ends.append(ends[-1] + whole + (number <= longer))
    return [(ends[piece - 1], ends[piece]) for piece in here[0] & here[1] if ends[piece - 1] < ends[piece]]


def test_the_mark_follows_the_ring() -> None:
    """This file's own model: neighbours lose one piece of each file, opposite servers none."""
    for x in range(4):
        data = with_rotation(1000, x)
        for first in range(1, 5):
            assert len(lost_ranges(data, (first, first % 4 + 1))) == 1
        assert lost_ranges(data, (1, 3)) == lost_ranges(data, (2, 4)) == []


@pytest.mark.parametrize("remounted", [False, True])
def test_two_opposite_servers_down(grid: Grid, files: dict[str, bytes], remounted: bool) -> None:
    mount = grid.mount()
    write(mount, files)
    with grid.without(2, 4):
        if remounted:
            mount.remount()
        within(DEADLINE_S, "the first look", lambda: names(mount.path / "d"))
        assert names(mount.path / "d") == sorted(files)
        for name, data in files.items():
            assert within(AT_ONCE_S, "reading", (mount.path / "d" / name).read_bytes) == data
        writing_is_refused(mount)
    eventually(lambda: _writes(mount), "writing again after the servers' return")
    assert names(mount.path / "d") == sorted(files)


def _writes(mount: Mount) -> bool:
    try:
        (mount.path / "again").write_bytes(b"again")
    except OSError as error:
        assert error.errno in (errno.EROFS, errno.EIO)
        return False
    return True


@pytest.mark.parametrize("down", [(1, 2), (4, 1)])
def test_two_neighbours_down(grid: Grid, files: dict[str, bytes], down: tuple[int, int]) -> None:
    mount = grid.mount()
    write(mount, files)
    (mount.path / "d" / "empty").write_bytes(b"")
    (mount.path / "d" / "link").symlink_to("nowhere")
    marked = sorted([*(f"{name} [incomplete]" for name in files), "empty", "link"])
    mount.unmount()  # a mount may show what it has in memory, which is nothing after this
    mount.mount()
    with grid.without(*down):
        within(DEADLINE_S, "the first look", lambda: names(mount.path / "d"))
        eventually(lambda: names(mount.path / "d") == marked, "the files are marked")
        for name, data in files.items():
            for path in (mount.path / "d" / name, mount.path / "d" / f"{name} [incomplete]"):
                assert path.stat().st_size == len(data)
                _reads_what_is_there(path, data, lost_ranges(data, down))
        writing_is_refused(mount)
    eventually(lambda: names(mount.path / "d") == sorted([*files, "empty", "link"]), "the marks go away")
    for name, data in files.items():
        assert (mount.path / "d" / name).read_bytes() == data


def _reads_what_is_there(path: Path, data: bytes, lost: list[tuple[int, int]]) -> None:
    (start, end) = lost[0]
    fd = os.open(path, os.O_RDONLY)
    try:
        for offset in {start, (start + end) // 2, end - 1}:
            fails_with(errno.EIO, partial(os.pread, fd, 1, offset))
        if len(data) >= 1_000_000:  # the kernel requests whole pages and reads ahead, so stay away from the borders
            for position in (p for p in range(4096, len(data) - 4096, 131_072) if not start - 140_000 < p < end + 4096):
                found = within(AT_ONCE_S, "reading", partial(os.pread, fd, 100, position))
                assert found == data[position : position + 100]
    finally:
        os.close(fd)


def test_incomplete_files_can_be_deleted_by_either_name(grid: Grid) -> None:
    """A disk has lost its large pieces for good, and then its neighbour dies: three servers answer, and one piece is
    gone."""
    mount = grid.mount()
    data = content(600_000)
    for name in ("one", "two", "whole"):
        (mount.path / name).write_bytes(content(600_000, name))
    (mount.path / "small").write_bytes(b"small")
    mount.unmount()
    grid.servers[1].kill()
    for path in large_piece_files(grid.servers[1].root, USER):
        path.unlink()
    grid.servers[1].start()
    with grid.without(2):
        mount.mount()
        assert names(mount.path) == ["one [incomplete]", "small", "two [incomplete]", "whole [incomplete]"]
        (mount.path / "one").unlink()
        (mount.path / "two [incomplete]").unlink()
        assert names(mount.path) == ["small", "whole [incomplete]"]
        (mount.path / "whole [incomplete]").rename(mount.path / "moved")
        assert names(mount.path) == ["moved [incomplete]", "small"]
        (mount.path / "moved").write_bytes(data)
        eventually(lambda: names(mount.path) == ["moved", "small"], "the verdict on the old content is forgotten")
        assert (mount.path / "moved").read_bytes() == data
    assert names(mount.path) == ["moved", "small"]


def test_dfc_says_which_files_are_incomplete_and_leaves_nothing_behind(grid: Grid, tmp_path: Path) -> None:
    data = content(600_000)
    (tmp_path / "f").write_bytes(data)
    assert grid.dfc("put", tmp_path / "f", "f").returncode == 0
    with grid.without(2, 3):
        listed = grid.dfc("list")
        assert (listed.returncode, listed.stdout) == (0, b"f [incomplete]\n")
        got = grid.dfc("get", "f", tmp_path / "out")
        assert got.returncode == 3
        assert b"File is incomplete" in got.stdout + got.stderr
        assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "grid"]
        refused = grid.dfc("put", tmp_path / "f", "g")
        assert refused.returncode == 7, refused.stderr
    assert grid.dfc("get", "f", tmp_path / "out").returncode == 0
    assert (tmp_path / "out").read_bytes() == data


def test_with_all_servers_down_every_operation_ends(grid: Grid) -> None:
    mount = grid.mount()
    (mount.path / "d").mkdir()
    for name in ("f", "g", "h"):
        (mount.path / name).write_bytes(content(300_000, name))
    mount.remount()
    held = os.open(mount.path / "g", os.O_RDWR)
    try:
        with grid.without(1, 2, 3, 4):
            operations: dict[str, Callable[[], object]] = {
                "open": (mount.path / "f").read_bytes,
                "read": lambda: os.pread(held, 100, 1000),
                "write": lambda: _write_through(held),
                "create": lambda: (mount.path / "new").write_bytes(b"x"),
                "mkdir": (mount.path / "new").mkdir,
                "unlink": (mount.path / "h").unlink,
                "rename": lambda: (mount.path / "h").rename(mount.path / "i"),
                "list": lambda: names(mount.path / "d"),
                "look up": (mount.path / "missing").stat,
            }
            for what, operation in operations.items():
                start = time.monotonic()
                with pytest.raises(OSError) as raised:
                    within(DEADLINE_S, what, operation)
                allowed = (
                    (errno.EIO, errno.EROFS)
                    if what in ("write", "create", "mkdir", "unlink", "rename")
                    else (errno.EIO,)
                )
                assert raised.value.errno in allowed, (what, raised.value)
                assert time.monotonic() - start < DEADLINE_S
    finally:
        try:
            os.close(held)
        except OSError as error:
            assert error.errno in (errno.EIO, errno.EROFS)  # close() reports that the write was not saved
    eventually(lambda: _writes(mount), "writing again after the servers' return")
    assert (mount.path / "f").read_bytes() == content(300_000, "f")
    assert (mount.path / "h").read_bytes() == content(300_000, "h")


def _write_through(descriptor: int) -> None:
    os.pwrite(descriptor, b"x" * 200_000, 0)
    os.fsync(descriptor)


def test_a_mount_without_servers_can_be_unmounted(grid: Grid) -> None:
    mount = grid.mount()
    (mount.path / "f").write_bytes(b"x")
    for server in grid.servers:
        server.kill()
    within(DEADLINE_S, "unmounting", mount.unmount)


def test_a_mount_that_cannot_work_says_so(grid: Grid) -> None:
    for server in grid.servers:
        server.kill()
    mount = Mount(grid, grid.folder / "mnt", ())
    with pytest.raises(AssertionError, match="dfsmount ended"):
        within(DEADLINE_S, "refusing to mount", mount.mount)
    mount.end()
