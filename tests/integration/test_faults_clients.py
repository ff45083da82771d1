"""Clients that die, and clients that share: nothing half-written is visible, and two mounts see the same truth."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.mounts import USER, Grid, environment, eventually, program, within
from support.pieces_on_disk import large_piece_files
from support.trees import content

pytestmark = pytest.mark.integration

DEADLINE_S = 60.0


@pytest.fixture
def grid(tmp_path: Path) -> Iterator[Grid]:
    with Grid(tmp_path / "grid") as grid:
        yield grid


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [None, b"the old version"])
def test_a_put_killed_in_the_middle_leaves_nothing_visible(grid: Grid, tmp_path: Path, old: bytes | None) -> None:
    block = content(1 << 20)
    with (tmp_path / "large").open("wb") as file:
        for _ in range(200):
            file.write(block)
    if old is not None:
        (tmp_path / "old").write_bytes(old)
        assert grid.dfc("put", tmp_path / "old", "f").returncode == 0
    command = [*program("dfc"), "--config", str(grid.client_config), "put", str(tmp_path / "large"), "f"]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as put:
        eventually(lambda: len(large_piece_files(grid.servers[1].root, USER)) > 4, "pieces are on the way")
        put.kill()
        put.communicate(timeout=DEADLINE_S)
        assert put.returncode == -9
    assert grid.dfc("list").stdout == (b"" if old is None else b"f\n")
    if old is not None:
        assert grid.dfc("get", "f", tmp_path / "out").returncode == 0
        assert (tmp_path / "out").read_bytes() == old
    assert grid.dfc("put", tmp_path / "large", "f").returncode == 0
    assert grid.dfc("get", "f", tmp_path / "out").returncode == 0
    with (tmp_path / "out").open("rb") as out:
        assert all(out.read(1 << 20) == block for _ in range(200))


def test_a_killed_mount_keeps_what_was_closed_and_is_mounted_over(grid: Grid) -> None:
    mount = grid.mount()
    for number in range(10):
        (mount.path / f"closed-{number}").write_bytes(content(50_000, number))
    descriptor = os.open(mount.path / "open", os.O_RDWR | os.O_CREAT)
    os.write(descriptor, b"synced")
    os.fsync(descriptor)
    os.write(descriptor, content(9 << 20))
    mount.kill()
    with contextlib.suppress(OSError):
        os.close(descriptor)
    with pytest.raises(OSError, match="not connected"):
        os.listdir(mount.path)  # noqa: PTH208
    mount.mount()
    for number in range(10):
        assert (mount.path / f"closed-{number}").read_bytes() == content(50_000, number)
    assert (mount.path / "open").read_bytes()[:6] == b"synced"
    (mount.path / "new").write_bytes(b"works")
    assert mount.unmount() == 0


def test_each_mount_sees_what_the_other_closed(grid: Grid) -> None:
    one, other = grid.mount("one").path, grid.mount("other").path
    for turn in range(12):
        writer, reader = (one, other) if turn % 2 else (other, one)
        data = content(10 ** (turn % 7), turn)
        (writer / "f").write_bytes(data)
        assert (reader / "f").read_bytes() == data, turn
        with (reader / "log").open("ab") as log:
            log.write(b"%d\n" % turn)
        assert (writer / "log").read_bytes().splitlines() == [b"%d" % number for number in range(turn + 1)]
        with (writer / "f").open("r+b") as file:
            file.truncate(3)
            file.seek(1)
            file.write(b"!")
        with (reader / "f").open("rb") as file:
            assert file.read() == data[:1] + b"!" + data[2:3].ljust(1, b"\0")


def test_a_file_replaced_elsewhere_is_opened_in_its_new_version(grid: Grid) -> None:
    """Write a new file and rename it over the old one, as editors do: opening the name after that gives the new
    file."""
    one, other = grid.mount("one").path, grid.mount("other").path
    for turn in range(8):
        writer, reader = (one, other) if turn % 2 else (other, one)
        data = content(1000 + turn * 60_000, turn)
        (writer / "aside").write_bytes(data)
        (writer / "aside").rename(writer / "f")
        assert (reader / "f").read_bytes() == data, turn


def test_changes_of_another_mount_show_within_a_second_or_so(grid: Grid) -> None:
    one, other = grid.mount("one").path, grid.mount("other").path
    assert names(other) == []
    (one / "d").mkdir()
    (one / "d" / "f").write_bytes(b"1")
    eventually(lambda: names(other) == ["d"], "the new folder shows", 3)
    eventually((other / "d" / "f").exists, "the new file shows", 3)
    (one / "d" / "f").rename(one / "g")
    eventually(lambda: names(other) == ["d", "g"] and names(other / "d") == [], "the rename shows", 3)
    (one / "g").chmod(0o600)
    eventually(lambda: (other / "g").stat().st_mode & 0o777 == 0o600, "the mode shows", 3)
    (one / "g").write_bytes(b"longer")
    eventually(lambda: (other / "g").stat().st_size == 6, "the size shows", 3)
    (one / "g").unlink()
    eventually(lambda: not (other / "g").exists(), "the removal shows", 3)


def test_of_two_mounts_one_creates_exclusively(grid: Grid) -> None:
    mounts = [grid.mount("one").path, grid.mount("other").path]
    rounds = 25
    barrier = threading.Barrier(2, timeout=DEADLINE_S)

    def creator(number: int) -> list[int]:
        won = []
        for turn in range(rounds):
            barrier.wait()
            with contextlib.suppress(FileExistsError):
                descriptor = os.open(mounts[number] / f"f{turn}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                os.write(descriptor, b"%d" % number)
                os.close(descriptor)
                won.append(turn)
        return won

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(creator, (0, 1), timeout=DEADLINE_S)
    assert sorted(first + second) == list(range(rounds))
    for turn in range(rounds):
        assert (mounts[0] / f"f{turn}").read_bytes() == (b"0" if turn in first else b"1")


def test_two_mounts_make_and_move_names_at_once(grid: Grid) -> None:
    """Both mounts work in one folder; every name that was made is there exactly once."""
    mounts = [grid.mount("one").path, grid.mount("other").path]
    (mounts[0] / "d").mkdir()
    eventually((mounts[1] / "d").is_dir, "the other mount sees the folder")

    def work(number: int) -> None:
        for turn in range(30):
            (mounts[number] / "d" / f"{number}-{turn}.new").write_bytes(b"%d %d" % (number, turn))
            (mounts[number] / "d" / f"{number}-{turn}.new").rename(mounts[number] / "d" / f"{number}-{turn}")

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1), timeout=DEADLINE_S))
    expected = sorted(f"{number}-{turn}" for number in (0, 1) for turn in range(30))
    eventually(lambda: [names(mount / "d") for mount in mounts] == [expected] * 2, "both mounts list all names", 3)
    assert [(mount / "d" / "0-7").read_bytes() for mount in mounts] == [b"0 7"] * 2


def test_a_file_open_here_and_removed_there_ends_cleanly(grid: Grid) -> None:
    one, other = grid.mount("one").path, grid.mount("other").path
    data = content(700_000)
    (one / "f").write_bytes(data)
    with (other / "f").open("rb", buffering=0) as file:
        assert file.read(10) == data[:10]
        (one / "f").unlink()
        rest = within(20, "reading on", lambda: _rest_or_error(file.fileno()))
        assert rest is None or rest == data[10:]
    eventually(lambda: names(other) == [], "the removal shows", 3)


def _rest_or_error(descriptor: int) -> bytes | None:
    parts = []
    try:
        while part := os.read(descriptor, 1 << 20):
            parts.append(part)
    except OSError:
        return None
    return b"".join(parts)


def test_writers_on_two_mounts_keep_both_halves(grid: Grid) -> None:
    """Two mounts write different parts of one file at the same time, and no part is lost."""
    mounts = [grid.mount("one").path, grid.mount("other").path]
    size = 3 << 20
    data = content(2 * size)
    (mounts[0] / "f").write_bytes(bytes(2 * size))

    def write_half(number: int) -> None:
        with (mounts[number] / "f").open("r+b", buffering=0) as file:
            for start in range(number * size, (number + 1) * size, 1 << 18):
                os.pwrite(file.fileno(), data[start : start + (1 << 18)], start)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write_half, (0, 1), timeout=DEADLINE_S))
    for mount in mounts:
        assert (mount / "f").read_bytes() == data
